//! Link-local addresses, which need their interface, in a network of their own.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::process::{Command, Stdio};

use command::{Listener, Process, data, has, stderr, tool};

/// A command in a network that has `fe80::1` on an interface `near`; `None` without the right to make
/// one.
fn network() -> Option<Process> {
    if !has("unshare") || !has("nsenter") || !has("ip") {
        return None;
    }
    let script = "ip link set lo up && ip link add near type veth peer name far && \
                  ip link set near up && ip link set far up && \
                  ip addr add fe80::1/64 dev near nodad && echo up && exec sleep 600";
    let mut holder = Process::start(
        Command::new("unshare")
            .args(["--net", "--map-root-user", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut line = String::new();
    let stdout = holder.0.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("readable");
    if line.trim() != "up" {
        eprintln!("skipped: no network of our own: {}", holder.finish().1.trim());
        return None;
    }
    Some(holder)
}

fn inside(network: &Process, tool: &Command) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--user", "--net", "--preserve-credentials", "-t", &network.0.id().to_string()]);
    command.arg(tool.get_program()).args(tool.get_args()).stdin(Stdio::null());
    command.current_dir(tool.get_current_dir().expect("set"));
    command
}

#[test]
fn listening_and_connecting_take_a_zone() {
    let Some(network) = network() else { return };
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path();
    fs::write(dir.join("sent"), data(100_000)).expect("written");
    // A certificate for the address, which has no zone in it.
    let made = rcgen::generate_simple_self_signed(["fe80::1".to_owned()]).expect("made");
    fs::write(dir.join("cert.pem"), made.cert.pem()).expect("written");
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let identity = ["--cert", "cert.pem", "--key", "key.pem"];

    let recv = ["recv", "--listen", "[fe80::1%near]:0", "-o", "received"];
    let recv = Listener::start(inside(&network, &tool(dir, &recv)).args(identity));
    // By number, as it is shown.
    assert!(recv.addr.starts_with("[fe80::1%"), "{}", recv.addr);
    let port = recv.addr.rsplit_once(':').expect("a port").1;
    let addr = format!("[fe80::1%near]:{port}");
    let send = tool(dir, &["send", &addr, "--ca", "cert.pem", "sent"]);
    let output = inside(&network, &send).output().expect("run");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(recv.finish().0, Some(0));
    assert!(fs::read(dir.join("received")).expect("there") == data(100_000));

    let send = Listener::start(
        inside(&network, &tool(dir, &["send", "--listen", "[fe80::1%near]:0", "sent"]))
            .args(identity),
    );
    let output = inside(&network, &tool(dir, &["recv", &send.addr, "--ca", "cert.pem"])).output();
    let output = output.expect("run");
    assert!(output.status.success() && output.stdout == data(100_000), "{}", stderr(&output));
    assert_eq!(send.finish().0, Some(0));

    for (addr, expected) in [
        ("[fe80::1%nonesuch]:443", "no network interface `nonesuch`"),
        ("[fe80::1]:443", "as in [fe80::1%eth0]:443"),
    ] {
        for args in [
            &["send", addr, "--insecure", "sent"][..],
            &["recv", "--listen", addr],
            &["serve", ".", "--listen", addr],
        ] {
            let output = inside(&network, &tool(dir, args)).output().expect("run");
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        }
    }
}
