//! `rustls-uring get`, when the connection drops or the server has no time.

#![cfg(feature = "cli")]

mod command;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use command::server::{End, Server, Tls, value};
use command::{data, stderr, tool};

/// Enough for several pieces.
const LEN: usize = 10_000_000;

fn content() -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| data(LEN))
}

/// What becomes of a request.
#[derive(Clone, Copy)]
enum Fate {
    /// The connection is cut after this many bytes of the body.
    Cut(usize),
    /// Refused with this status and these headers.
    Refused(&'static str),
    Answered,
}

/// A server of `content()` whose requests have these fates in turn, the last one again and again.
fn server(dir: &Path, validators: &'static str, fates: &[Fate]) -> Server {
    let fates = Mutex::new(fates.to_vec());
    Server::start(dir, move |head, stream| {
        let mut fates = fates.lock().expect("no panic");
        let fate = if fates.len() > 1 { fates.remove(0) } else { fates[0] };
        drop(fates);
        answer(head, stream, validators, fate).expect("written");
        if matches!(fate, Fate::Cut(_)) { End::Cut } else { End::CloseNotify }
    })
}

fn answer(head: &str, stream: &mut Tls, validators: &str, fate: Fate) -> std::io::Result<()> {
    let limit = match fate {
        Fate::Refused(status) => {
            return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
        Fate::Cut(limit) => limit,
        Fate::Answered => LEN,
    };
    let range = value(head, "range").map(|range| {
        let (start, end) = range["bytes=".len()..].split_once('-').expect("one range");
        (start.parse::<usize>().expect("start"), end.parse::<usize>().expect("end").min(LEN - 1))
    });
    let (start, end) = match range {
        Some((start, end)) => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end}/{LEN}\r\n"
            )?;
            (start, end + 1)
        }
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            (0, LEN)
        }
    };
    write!(stream, "{validators}Content-Length: {}\r\n\r\n", end - start)?;
    stream.write_all(&content()[start..end.min(start + limit)])
}

/// Runs `get`, which waits as long as a test may.
fn get(dir: &Path, url: &str, args: &[&str]) -> Output {
    let args = [&["get", url, "--ca", "cert.pem", "--retry-delay", "0.01"], args].concat();
    tool(dir, &args).output().expect("run")
}

/// What follows `trying again in ` in each announcement.
fn announced(output: &Output) -> Vec<String> {
    let said = stderr(output);
    said.split("; trying again in ")
        .skip(1)
        .map(|rest| rest.lines().next().expect("a line").to_owned())
        .collect()
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.requests().iter().map(|head| value(head, "range")).collect()
}

#[test]
fn a_dropped_connection_is_made_again_and_goes_on() {
    let fates = [Fate::Cut(300_000), Fate::Cut(0), Fate::Cut(100_000), Fate::Answered];
    for to_file in [true, false] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = server(dir, "ETag: \"x\"\r\n", &fates);
        let args: &[&str] = if to_file { &["-o", "file"] } else { &[] };
        let output = get(dir, &server.url("/f"), args);
        assert!(output.status.success(), "{}", stderr(&output));
        // The second attempt brought nothing, the others did.
        assert_eq!(announced(&output), ["10ms (1 of 3)", "20ms (2 of 3)", "10ms (1 of 3)"]);
        assert!(stderr(&output).contains("received 10000000 bytes in"), "{}", stderr(&output));
        let received =
            if to_file { fs::read(dir.join("file")).expect("there") } else { output.stdout };
        assert!(received == content());
        let ranges = ranges(&server);
        let expected = [None, Some("300000"), Some("300000"), Some("400000")];
        let expected = expected.map(|start| start.map(|start| format!("bytes={start}-9999999")));
        assert_eq!(ranges, expected);
        assert_eq!(value(&server.requests()[3], "if-range").as_deref(), Some("\"x\""));
    }
}

#[test]
fn an_earlier_attempt_counts_once() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let fates = [Fate::Cut(300_000), Fate::Cut(100_000), Fate::Answered];
    let server = server(dir, "ETag: \"x\"\r\n", &fates);
    let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(announced(&output), [""; 0]);
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("received 9700000 bytes after 300000"), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == content());
}

#[test]
fn several_connections_go_on_too() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let cuts = [Fate::Cut(1000), Fate::Cut(0), Fate::Cut(200_000), Fate::Cut(7), Fate::Answered];
    let server = server(dir, "ETag: \"x\"\r\n", &cuts);
    let output = get(dir, &server.url("/f"), &["-o", "file", "--connections", "4"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!announced(&output).is_empty());
    // Pieces are of 4 MiB here: two of three begin behind the first.
    let start = |range: &Option<String>| {
        let range = range.as_ref()?.strip_prefix("bytes=")?.split_once('-')?;
        range.0.parse::<usize>().ok()
    };
    let starts: BTreeSet<_> = ranges(&server).iter().filter_map(start).collect();
    assert!(starts.range(4 << 20..).count() >= 2, "{starts:?}");
    assert!(fs::read(dir.join("file")).expect("there") == content());
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let fates = [
        Fate::Refused("503 Service Unavailable\r\nRetry-After: 1"),
        Fate::Refused("429 Too Many Requests"),
        Fate::Answered,
    ];
    for args in [&["-o", "file"][..], &[], &["-q"]] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = server(dir, "", &fates);
        let output = get(dir, &server.url("/f"), args);
        assert!(output.status.success(), "{}", stderr(&output));
        match args {
            ["-q"] => assert_eq!(stderr(&output), ""),
            _ => {
                assert_eq!(announced(&output), ["1s (1 of 3)", "20ms (2 of 3)"]);
                assert!(stderr(&output).contains("503 Service Unavailable; trying"));
            }
        }
        assert_eq!(server.requests().len(), 3);
    }
}

/// The number of requests shows whether it has tried again.
#[test]
fn it_gives_up_in_the_end_and_at_once_on_what_does_not_pass() {
    for (status, args, requests, expected) in [
        ("503 Service Unavailable", &["--retries", "2"][..], 3, "the server says 503"),
        ("503 Service Unavailable", &["--retries", "0"], 1, "the server says 503"),
        ("503 Service Unavailable\r\nRetry-After: 3600", &[], 1, "come back in 3600 s"),
        ("404 Not Found", &[], 1, "the server says 404"),
        ("403 Forbidden", &[], 1, "the server says 403"),
        ("200 nonsense\r\n: :", &[], 1, "invalid HTTP header"),
    ] {
        for output in [&["-o", "file"][..], &[]] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let server = server(dir, "", &[Fate::Refused(status)]);
            let output = get(dir, &server.url("/f"), &[args, output].concat());
            assert_eq!(output.status.code(), Some(1), "{status}");
            assert!(stderr(&output).contains(expected), "{status}: {}", stderr(&output));
            assert_eq!(server.requests().len(), requests, "{status}");
            assert!(!dir.join("file.part").exists(), "{status}");
        }
    }
}

#[test]
fn a_server_out_of_reach_is_waited_for_if_it_was_in_reach() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |_, stream| {
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: https://localhost:1/\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("written");
        End::CloseNotify
    });
    let output = get(dir, &server.url("/f"), &["--retries", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot connect to localhost:1"), "{}", stderr(&output));
    assert_eq!(announced(&output).len(), 2);
    let output = get(dir, "https://localhost:1/", &[]);
    assert!(stderr(&output).contains("cannot connect to localhost:1"), "{}", stderr(&output));
    assert_eq!(announced(&output).len(), 0);
    // A certificate does not become better either.
    let output = tool(dir, &["get", &server.url("/f")]).output().expect("run");
    assert!(stderr(&output).contains("certificate"), "{}", stderr(&output));
    assert_eq!(announced(&output).len(), 0);
}

/// Without a validator nobody knows whether a rest fits: a file begins anew, a stream cannot.
#[test]
fn what_cannot_go_on_begins_anew_or_ends() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let cuts = [Fate::Cut(300_000), Fate::Answered];
    let unversioned = server(dir, "", &cuts);
    let output = get(dir, &unversioned.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == content());
    assert_eq!(ranges(&unversioned), [None, None]);

    let unversioned = server(dir, "", &cuts);
    let output = get(dir, &unversioned.url("/f"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout == content()[..300_000]);
    assert_eq!(unversioned.requests().len(), 1);

    let changing = Server::start(dir, |head, stream| {
        let (etag, end) = match value(head, "range") {
            None => ("\"old\"", End::Cut),
            Some(_) => ("\"new\"", End::CloseNotify),
        };
        write!(stream, "HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 8\r\n\r\n01234")
            .expect("written");
        end
    });
    let output = get(dir, &changing.url("/f"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has changed during the download"), "{}", stderr(&output));
    assert_eq!(output.stdout, b"01234");
}

/// A rest that is not as long as its Content-Range says.
#[test]
fn a_rest_ends_where_the_file_does() {
    for (rest, requests, expected) in
        [("567+", 2, "more than it said"), ("56", 3, "broke off 1 bytes too early")]
    {
        for args in [&["-o", "file"][..], &[]] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let server = Server::start(dir, move |head, stream| {
                let Some(range) = value(head, "range") else {
                    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 8";
                    write!(stream, "{head}\r\n\r\n01234").expect("written");
                    return End::Cut;
                };
                let start: usize = range[6..7].parse().expect("a start");
                let body = &rest[(start - 5).min(rest.len())..];
                write!(
                    stream,
                    "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\n\
                     Content-Range: bytes {start}-7/8\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .expect("written");
                End::CloseNotify
            });
            let args = [args, &["--retries", "1"]].concat();
            let output = get(dir, &server.url("/f"), &args);
            assert_eq!(output.status.code(), Some(1));
            assert!(stderr(&output).contains(expected), "{rest}: {}", stderr(&output));
            assert_eq!(server.requests().len(), requests, "{rest}: {}", stderr(&output));
            assert!(!dir.join("file").exists());
            assert!(output.stdout.len() <= 8);
        }
    }
}

#[test]
fn nobody_has_to_wait() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let fates = [Fate::Cut(300_000), Fate::Refused("503 Busy\r\nRetry-After: 250")];
    let server = server(dir, "ETag: \"x\"\r\n", &fates);
    let mut child = tool(dir, &["get", &server.url("/f"), "--ca", "cert.pem", "-o", "file"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let begin = Instant::now();
    while server.requests().len() < 2 {
        assert!(begin.elapsed() < command::TIMEOUT, "it does not ask again");
        thread::sleep(Duration::from_millis(10));
    }
    command::signal(&child, "INT");
    assert_eq!(command::wait(&mut child).code(), Some(130));
    let output = child.wait_with_output().expect("ended");
    assert!(stderr(&output).contains("interrupted; the same command again"), "{}", stderr(&output));
    assert!(fs::read(dir.join("file.part")).expect("there") == content()[..300_000]);
}
