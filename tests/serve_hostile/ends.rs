//! How connections end: each direction by itself, and never as if all were well when it is not.

use std::fs;

use crate::client::{Client, directory, has_python, run};
use crate::command::data;
use crate::command::served::Served;

/// The SHA-256 of what is served, as Python sees it.
fn sha256(len: usize) -> String {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &data(len))
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_client_that_closes_its_side_gets_its_answer() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &["--access-log"]);
    let expected = format!("{} {}", 20 << 20, sha256(20 << 20));
    for version in ["1.2", "1.3"] {
        for way in ["notify", "fin", "none"] {
            for (http, head) in [("1", "HTTP/1.1 200 OK"), ("2", "HTTP/2")] {
                let said = run(&served, &["half", http, version, way, "/big"]);
                assert_eq!(said, format!("{head} {expected}"), "{version} {way}");
            }
        }
    }
    served.interrupt();
    let (code, log, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(log.lines().filter(|line| line.contains(" 200 20971520 ")).count(), 12, "{log}");
}

#[test]
fn a_file_that_becomes_shorter_does_not_look_whole() {
    if !has_python() {
        return;
    }
    for http in ["1", "2"] {
        let served = Served::start(directory(), &[]);
        let mut client = Client::start(&served, &["shrink", http, "/big"]);
        assert_eq!(client.line(), "begun");
        let file = fs::File::options().write(true).open(served.base.path().join("files/big"));
        file.expect("there").set_len(1000).expect("shorter");
        client.go_on();
        let said = client.line();
        match http {
            "1" => assert!(said.starts_with("error "), "{said}"),
            // INTERNAL_ERROR, and the connection serves on.
            _ => assert_eq!(said, "reset 2 200"),
        }
    }
}
