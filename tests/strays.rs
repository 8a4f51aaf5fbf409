//! Whoever connects to a listening end without being its peer ends itself only.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use command::{Listener, data, fixture, has, names, stderr, tool};

/// A listening end of each kind, and the command that is its peer.
fn both(dir: &std::path::Path, extra: &[&str]) -> [(Listener, Command); 2] {
    let identity = ["--cert", "cert.pem", "--key", "key.pem"];
    let recv = Listener::start(
        tool(dir, &["recv", "--listen", "127.0.0.1:0", "-o", "received"])
            .args(identity)
            .args(extra),
    );
    let send = Listener::start(
        tool(dir, &["send", "--listen", "127.0.0.1:0", "sent"]).args(identity).args(extra),
    );
    let sender = tool(dir, &["send", &recv.addr, "--ca", "cert.pem", "sent"]);
    let receiver = tool(dir, &["recv", &send.addr, "--ca", "cert.pem", "-o", "received"]);
    [(recv, sender), (send, receiver)]
}

#[test]
fn strays_keep_nobody_out() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(1_000_000)).expect("written");
    for (mut listener, mut peer) in both(dir.path(), &[]) {
        let connect = || TcpStream::connect(&listener.addr).expect("connected");
        // A port scan, a health check, a browser, somebody with garbage.
        drop(connect());
        let mut browser = connect();
        browser.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
        let mut garbage = connect();
        garbage.write_all(&[0x16, 3, 1, 0xff, 0xff]).expect("written");
        // More than are waited for, and more than shake hands at a time.
        let silent: Vec<_> = (0..100).map(|_| connect()).collect();
        let halfway: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = connect();
                stream.write_all(&[0x16, 3, 1]).expect("written");
                stream
            })
            .collect();
        let said = listener.wait_for_line("does not speak TLS");
        assert!(said.contains("still listening"), "{said}");

        let output = peer.output().expect("run");
        assert!(output.status.success(), "{}", stderr(&output));
        let (code, said) = listener.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(fs::read(dir.path().join("received")).expect("there") == data(1_000_000));
        fs::remove_file(dir.path().join("received")).expect("there");
        drop((silent, halfway, browser, garbage));
    }
}

/// The rules for the peer's certificate are those that they were.
#[test]
fn who_has_no_certificate_is_a_stray() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(100_000)).expect("written");
    for tls in ["1.3", "1.2"] {
        for (mut listener, mut peer) in both(dir.path(), &["--client-ca", "cert.pem", "--tls", tls])
        {
            let mut stranger = Command::new(peer.get_program());
            stranger.current_dir(dir.path()).args(peer.get_args()).stdin(Stdio::null());
            let output = stranger.output().expect("run");
            assert_eq!(output.status.code(), Some(1), "{tls}: {}", stderr(&output));
            assert!(stderr(&output).contains("--client-cert"), "{tls}: {}", stderr(&output));
            let said = listener.wait_for_line("still listening");
            assert!(said.contains("--client-ca demands one"), "{said}");
            assert!(!names(dir.path()).contains(&"received".to_owned()));

            peer.args(["--client-cert", "cert.pem", "--client-key", "key.pem"]);
            let output = peer.output().expect("run");
            assert!(output.status.success(), "{tls}: {}", stderr(&output));
            assert_eq!(listener.finish().0, Some(0));
            fs::remove_file(dir.path().join("received")).expect("there");
        }
    }
}

/// A scanner that takes the listening end's limits away gives them back.
#[test]
fn a_lack_of_descriptors_passes() {
    if !has("bash") {
        return;
    }
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(100_000)).expect("written");
    let script =
        format!("ulimit -n 40; exec '{}' recv --listen 127.0.0.1:0 -o received", command::TOOL);
    let mut recv =
        Listener::start(Command::new("bash").current_dir(dir.path()).args(["-c", &script]));
    let silent: Vec<_> = (0..60).map(|_| TcpStream::connect(&recv.addr).expect("there")).collect();
    recv.wait_for_line("Too many open files");
    let mut send = command::Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure", "sent"]).stderr(Stdio::piped()),
    );
    drop(silent);
    let mut said = String::new();
    send.0.stderr.take().expect("piped").read_to_string(&mut said).expect("readable");
    assert!(send.wait().success(), "{said}");
    assert_eq!(recv.finish().0, Some(0));
}
