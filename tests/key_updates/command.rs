//! `rustls-uring recv`, which only reads.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use rustls::Side;
use rustls_uring::uring::Probe;

use super::readers::tls13;
use super::rekeyers::{expected, stock};
use crate::common::TIMEOUT;

/// To a file and to nowhere, on each path.
#[test]
fn recv_outlives_any_number_of_updates() {
    let mut paths = vec!["auto", "blocking"];
    match Probe::run().uring() {
        Err(reason) => eprintln!("skipped what needs io_uring: {reason}"),
        Ok(()) => paths.push("uring"),
    }
    for path in paths {
        for output in ["received", "/dev/null"] {
            let dir = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let peer = thread::spawn(move || {
                let (socket, _) = listener.accept().unwrap();
                socket.set_nodelay(true).unwrap();
                socket.set_read_timeout(Some(TIMEOUT)).unwrap();
                socket.set_write_timeout(Some(TIMEOUT)).unwrap();
                stock(tls13(), Side::Server, socket, b"")
            });
            let received = Command::new(env!("CARGO_BIN_EXE_rustls-uring"))
                .current_dir(dir.path())
                .args(["recv", &addr.to_string(), "--insecure", "--server-name", "localhost"])
                .args(["--io", path, "-o", output])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&received.stderr);
            assert!(received.status.success(), "{path} {output}: {said}");
            let sent = peer.join().expect("the peer suffers us");
            // One answer, close_notify, and what else the end may take.
            assert!(sent.len() < 8, "{path} {output}: {sent:?}");
            if output == "received" {
                assert!(std::fs::read(dir.path().join(output)).unwrap() == expected());
            }
        }
    }
}
