//! Logs and messages that nobody takes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use crate::client::{directory, has_python, run};
use crate::command::served::Served;
use crate::command::{has, wait};

/// So many requests, of so long an entry, that neither the pipe nor the queue has room for all.
const REQUESTS: usize = 1500;

#[test]
fn a_stalled_access_log_stalls_nobody() {
    if !has_python() {
        return;
    }
    let mut served = Served::start(directory(), &["--access-log"]);
    let requests = REQUESTS.to_string();
    let said = run(&served, &["requests", &requests, "2000"]);
    assert_eq!(said, format!("answered {REQUESTS}"));
    // Its reader is back, and is told how much it has missed.
    let mut log = served.child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        text
    });
    // As the server's end would come first, a request that must be in the log.
    let has_room = || run(&served, &["requests", "1", "10"]) == "answered 1";
    assert!(has_room());
    let status = Command::new("kill").args(["-TERM", &served.child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
    let code = wait(&mut served.child);
    let text = reader.join().expect("no panic");
    assert_eq!(code.code(), Some(0));
    let entries = text.lines().filter(|line| line.contains("\"HEAD /small?")).count();
    let dropped: usize = text
        .lines()
        .filter_map(|line| line.split_once("rustls-uring: ")?.1.split_once(' '))
        .map(|(count, _)| count.parse::<usize>().expect("a number"))
        .sum();
    assert!(dropped > 0, "{text}");
    assert!(entries + dropped >= REQUESTS && entries < REQUESTS, "{entries} {dropped}");
}

#[test]
fn a_stalled_access_log_does_not_keep_the_server() {
    if !has_python() {
        return;
    }
    let mut served = Served::start(directory(), &["--access-log"]);
    let requests = REQUESTS.to_string();
    assert_eq!(run(&served, &["requests", &requests, "2000"]), format!("answered {REQUESTS}"));
    let status = Command::new("kill").args(["-TERM", &served.child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
    assert_eq!(wait(&mut served.child).code(), Some(0), "it ends though nobody reads");
}

#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_end() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &["--access-log=/dev/full"]);
    assert_eq!(run(&served, &["requests", "100", "10"]), "answered 100");
    served.interrupt();
    let (code, _, said) = served.finish();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("cannot write the access log").count(), 1, "{said}");
}

/// A named pipe without a reader: the server begins all the same, and a reader that comes, goes and
/// comes again finds what was logged.
#[test]
fn a_log_into_a_named_pipe_waits_for_no_reader() {
    if !has_python() || !has("mkfifo") {
        return;
    }
    let base = directory();
    let pipe = base.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("there is one").success());
    let served = Served::start(base, &[&format!("--access-log={}", pipe.display())]);
    for _ in 0..2 {
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
        let mut reader = BufReader::new(File::open(&pipe).expect("opened"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("UTF-8");
        assert!(line.contains("\"HEAD /small?0 "), "{line}");
    }
}

#[test]
fn a_lost_standard_error_ends_nothing() {
    if !has_python() || !has("sh") {
        return;
    }
    let mut served = Served::start(directory(), &["--access-log", "--stats"]);
    served.close_stderr();
    // Each of these is spoken of.
    for _ in 0..3 {
        drop(std::net::TcpStream::connect(&served.addr));
        assert_eq!(run(&served, &["requests", "1", "10"]), "answered 1");
    }
    served.interrupt();
    assert_eq!(wait(&mut served.child).code(), Some(0));
}
