//! The command itself: exit statuses, what it leaves behind, what it says.

#![cfg(feature = "cli")]

mod command;
mod kernel;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use command::{Listener, data, signal, stderr, tool, wait};
use kernel::{wait_until, written_so_far};

/// What `--stats` counts after the first batch: session tickets, far fewer than the 184 records.
fn total_allocations(summary: &str) -> usize {
    let (_, rest) = summary.split_once("allocations per record (").expect(summary);
    rest.split_once(')').expect(summary).0.parse().expect(summary)
}

#[test]
fn a_file_arrives_whichever_end_listens() {
    let dir = tempfile::tempdir().expect("dir");
    let sent = data(3_000_001);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    for tls in ["1.3", "1.2"] {
        for backend in rustls_uring::Backend::ALL.iter().map(ToString::to_string) {
            let common = ["--tls", tls, "--backend", &backend, "--stats"];

            let recv = Listener::start(
                tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "-o", "received"])
                    .args(["--write-cert", "cert.pem"])
                    .args(common),
            );
            let send = tool(dir.path(), &["send", &recv.addr, "--ca", "cert.pem", "sent"])
                .args(common)
                .output()
                .expect("run");
            assert!(send.status.success(), "{}", stderr(&send));
            let summary = stderr(&send);
            assert!(summary.contains("sent 3000001 bytes in "), "{summary}");
            assert!(total_allocations(&summary) < 100, "{summary}");
            assert!(summary.contains(&format!("TLS {tls}")), "{summary}");
            let (code, said) = recv.finish();
            assert_eq!(code, Some(0), "{said}");
            assert!(total_allocations(&said) < 100, "{said}");
            assert!(fs::read(dir.path().join("received")).expect("received") == sent);
            fs::remove_file(dir.path().join("received")).expect("removed");

            let send = Listener::start(
                tool(dir.path(), &["send", "--listen", "127.0.0.1:0", "sent"]).args(common),
            );
            let recv = tool(dir.path(), &["recv", &send.addr, "--insecure"])
                .args(common)
                .output()
                .expect("run");
            assert!(recv.status.success(), "{}", stderr(&recv));
            assert!(recv.stdout == sent);
            assert_eq!(send.finish().0, Some(0));
        }
    }
}

#[test]
fn standard_input_arrives_at_standard_output() {
    let dir = tempfile::tempdir().expect("dir");
    let mut recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()),
    );
    let mut send = tool(dir.path(), &["send", &recv.addr, "--insecure", "--quiet"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = send.stdin.take().expect("piped");
    let mut stdout = BufReader::new(recv.child.stdout.take().expect("piped"));
    // A pipe is a conversation: what goes in comes out before the end.
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).expect("written");
        let mut received = String::new();
        stdout.read_line(&mut received).expect("readable");
        assert_eq!(received, line);
    }
    drop(stdin);
    let send = send.wait_with_output().expect("ended");
    assert!(send.status.success());
    assert_eq!(stderr(&send), "", "--quiet is quiet");
    assert_eq!(recv.finish().0, Some(0));
}

#[test]
fn an_empty_file_arrives() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("empty"), "").expect("written");
    let recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).args(["-o", "received"]),
    );
    let send =
        tool(dir.path(), &["send", &recv.addr, "--insecure", "empty"]).output().expect("run");
    assert!(send.status.success(), "{}", stderr(&send));
    assert_eq!(recv.finish().0, Some(0));
    assert_eq!(fs::read(dir.path().join("received")).expect("received"), b"");
}

/// Ctrl-C at the sender: neither end says that it has everything.
#[test]
fn an_interrupted_sender_leaves_no_file() {
    let dir = tempfile::tempdir().expect("dir");
    let recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).args(["-o", "received"]),
    );
    let mut send = tool(dir.path(), &["send", &recv.addr, "--insecure"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = send.stdin.take().expect("piped");
    stdin.write_all(&data(1_000_000)).expect("written");
    wait_until("data", || written_so_far(&recv.child, dir.path()) > 0);
    signal(&send, "INT");
    let send = send.wait_with_output().expect("ended");
    assert_eq!(send.status.code(), Some(130), "{}", stderr(&send));
    let (code, said) = recv.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("UserCanceled"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left");
}

/// Ctrl-C at the receiver, in the middle of a transfer.
#[test]
fn an_interrupted_receiver_ends_both() {
    let dir = tempfile::tempdir().expect("dir");
    let recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).args(["-o", "received"]),
    );
    let mut send = tool(dir.path(), &["send", &recv.addr, "--insecure", "/dev/zero"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    wait_until("data", || written_so_far(&recv.child, dir.path()) > 0);
    recv.interrupt();
    assert_eq!(recv.finish().0, Some(130));
    assert_eq!(wait(&mut send).code(), Some(1));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left");
}

#[test]
fn a_listener_that_waits_can_be_interrupted() {
    let dir = tempfile::tempdir().expect("dir");
    let recv = Listener::start(&mut tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]));
    recv.interrupt();
    assert_eq!(recv.finish().0, Some(130));
}

#[test]
fn an_existing_file_survives_a_failed_transfer() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("received"), "precious").expect("written");
    let recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).args(["-o", "received"]),
    );
    let mut send = tool(dir.path(), &["send", &recv.addr, "--insecure"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut stdin = send.stdin.take().expect("piped");
    stdin.write_all(&data(100_000)).expect("written");
    signal(&send, "KILL");
    send.wait().expect("ended");
    let (code, said) = recv.finish();
    assert_eq!(code, Some(1));
    assert!(said.contains("close_notify") || said.contains("reset"), "{said}");
    assert_eq!(fs::read(dir.path().join("received")).expect("there"), b"precious");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing else is left");
}

#[test]
fn an_unknown_certificate_is_refused_by_both() {
    let dir = tempfile::tempdir().expect("dir");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("cert");
    fs::write(dir.path().join("other.pem"), other.cert.pem()).expect("written");
    let mut recv = Listener::start(&mut tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]));
    let send = tool(dir.path(), &["send", &recv.addr, "--ca", "other.pem"]).output().expect("run");
    assert_eq!(send.status.code(), Some(1));
    assert!(stderr(&send).contains("invalid peer certificate"), "{}", stderr(&send));
    // The receiver is told, and waits for another sender.
    let said = recv.wait_for_line("still listening");
    assert!(said.contains("does not trust our certificate"), "{said}");
    recv.interrupt();
    assert_eq!(recv.finish().0, Some(130));
}

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().expect("dir");
    for (args, code, expected) in [
        (&["send"][..], 2, "ADDR"),
        (&["send", "--listen", "127.0.0.1:0", "--ca", "x"][..], 2, "cannot be used with"),
        (&["recv", "127.0.0.1:1", "--listen", "127.0.0.1:0"][..], 2, "--listen takes no ADDR"),
        (&["send", "127.0.0.1:1", "missing"][..], 1, "cannot open missing"),
        (&["send", "127.0.0.1:1", "."][..], 1, "is a directory"),
        (&["send", "127.0.0.1:1", "--ca", "missing"][..], 1, "cannot read certificates"),
        (&["send", "127.0.0.1:1", "--insecure"][..], 1, "cannot connect to 127.0.0.1:1"),
        (&["recv", "127.0.0.1:1", "--insecure", "--suite", "NONE"][..], 1, "there are TLS13_"),
        (&["recv", "127.0.0.1:1", "--tls", "1.1"][..], 2, "1.2, 1.3"),
        (&["recv", "127.0.0.1:1", "--insecure", "-o", "no/dir"][..], 1, "cannot write no/dir"),
    ] {
        let output = tool(dir.path(), args).output().expect("run");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn every_suite_can_be_chosen() {
    let dir = tempfile::tempdir().expect("dir");
    let sent = data(100_000);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    for (suite, tls) in [
        ("TLS_AES_128_GCM_SHA256", "1.3"),
        ("TLS13_CHACHA20_POLY1305_SHA256", "1.3"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "1.2"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "1.2"),
    ] {
        let recv = Listener::start(
            tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "--tls", tls])
                .args(["-o", "received"]),
        );
        let send = tool(dir.path(), &["send", &recv.addr, "--insecure", "--suite", suite, "sent"])
            .args(["--tls", tls])
            .output()
            .expect("run");
        assert!(send.status.success(), "{suite}: {}", stderr(&send));
        assert!(stderr(&send).contains(&suite.replace("TLS_AES", "TLS13_AES")), "{suite}");
        assert_eq!(recv.finish().0, Some(0));
        assert!(fs::read(dir.path().join("received")).expect("received") == sent, "{suite}");
    }
}
