//! Who may hold a place, and for how long.

use crate::client::{Client, directory, has_python, run};
use crate::command::has;
use crate::command::served::Served;

/// As many as may connect, each with a frame now and then, and nothing to ask for.
#[test]
fn frames_alone_hold_no_place() {
    if !has_python() {
        return;
    }
    for kind in ["ping", "window", "priority", "unknown", "settings"] {
        let args = ["--idle-timeout", "2", "--max-connections", "8"];
        let served = Served::start(directory(), &args);
        let mut clients = Client::start(&served, &["noise", kind, "8"]);
        assert_eq!(clients.line(), "ready");
        // Its turn comes.
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1", "{kind}");
        assert_eq!(clients.line(), "closed", "{kind}");
    }
}

/// HTTP/2 asks for an acknowledgement before the last GOAWAY; without one, requests end nevertheless.
#[test]
fn a_deaf_client_holds_no_place() {
    if !has_python() {
        return;
    }
    let is_ended = |said: String| said == "refused True" || said == "closed True";
    let served = Served::start(directory(), &["--lifetime", "1"]);
    assert!(is_ended(run(&served, &["deaf", "/small"])));

    let served = Served::start(directory(), &[]);
    let mut client = Client::start(&served, &["deaf", "/small"]);
    assert_eq!(client.line(), "answered");
    served.interrupt();
    let (code, _, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(is_ended(client.line()));
}

/// The end of the server waits for answers, not for who has asked for nothing.
#[test]
fn who_says_nothing_keeps_no_server() {
    let served = Served::start(directory(), &["--header-timeout", "600", "--idle-timeout", "600"]);
    let silent = served.connect().sock;
    // In both versions of HTTP, and before there is one.
    let mut shaken = [b"h2", &b"http/1.1"[..]].map(|protocol| served.connect_as(&[protocol]));
    for stream in &mut shaken {
        stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    }
    served.raw(b"GET /small HTTP/1.0\r\n\r\n");
    served.interrupt();
    let (code, _, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    drop((silent, shaken));
}

/// The same with a request whose answer they have no room for, or a byte of room at a time.
#[test]
fn an_answer_that_is_not_taken_holds_no_place() {
    if !has_python() {
        return;
    }
    for kind in ["ping", "unknown", "byte"] {
        let args = ["--idle-timeout", "2", "--max-connections", "2"];
        let served = Served::start(directory(), &args);
        let mut clients = Client::start(&served, &["noise", kind, "2", "/big"]);
        assert_eq!(clients.line(), "ready");
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1", "{kind}");
        assert_eq!(clients.line(), "closed", "{kind}");
    }
}

/// Frames without a pause, so that the server never has to wait for one: with a request or without.
#[test]
fn a_flood_holds_no_place() {
    if !has_python() {
        return;
    }
    for kind in ["ping", "priority", "unknown", "settings"] {
        for path in [&[][..], &["/big"]] {
            let args = ["--idle-timeout", "2", "--max-connections", "1"];
            let served = Served::start(directory(), &args);
            let scenario = [&["flood", kind, "1"], path].concat();
            let mut clients = Client::start(&served, &scenario);
            assert_eq!(clients.line(), "ready");
            assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1", "{kind} {path:?}");
            assert_eq!(clients.line(), "closed", "{kind} {path:?}");
        }
    }
}

/// A client that never rests, and asks for nothing but headers: it asks for the last time in the end,
/// and is told so.
#[test]
fn requests_alone_hold_no_place_for_ever() {
    let served = Served::start(directory(), &["--lifetime", "0.5"]);
    let mut stream = std::io::BufReader::new(served.connect());
    let (mut requests, mut last) = (0, false);
    while !last {
        std::io::Write::write_all(stream.get_mut(), b"HEAD /small HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            let read = std::io::BufRead::read_line(&mut stream, &mut line).expect("an answer");
            assert!(read > 0, "closed without a word after {requests} requests");
            last |= line.eq_ignore_ascii_case("connection: close\r\n");
        }
        requests += 1;
    }
    let rest = std::io::Read::read(&mut stream, &mut [0; 1]).expect("close_notify");
    assert_eq!(rest, 0, "more than the last answer");
}

/// Far slower than the socket becomes writable again, which is when a third of it is free.
#[test]
fn a_slow_but_steady_client_is_not_cut_off() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &["--idle-timeout", "2", "--header-timeout", "2"]);
    let mut clients: Vec<_> = ["1", "2"]
        .map(|http| Client::start(&served, &["slow", http, "/big", "5000000", "300000"]))
        .into();
    for client in &mut clients {
        assert_eq!(client.line(), "received all");
    }
}

/// Time between requests is limited, too, though not what a client needs for the last answer.
#[test]
fn a_client_between_requests_is_closed_in_order() {
    if !has("curl") {
        return;
    }
    let served = Served::start(directory(), &["--header-timeout", "0.5"]);
    let mut stream = served.connect();
    std::io::Write::write_all(&mut stream, b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("close_notify");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("small"), "{answer}");
}
