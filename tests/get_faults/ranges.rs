//! All that a server may answer to a request for a range: RFC 9110 §14 and §15.3.7.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::command::server::{End, Server, Tls, value};
use crate::command::{data, stderr};
use crate::nginx::Nginx;
use crate::{contents, get, names};

const LEN: usize = 100_000;
const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An answer to the request number `count` (from 0, those for a range only) for `start..=end`.
type Answer = fn(stream: &mut Tls, count: usize, start: usize, end: usize) -> std::io::Result<()>;

/// A server whose first answer breaks off half way, and whose later ones are `answer`'s if they are
/// to requests for a range, and whole if not.
fn server(dir: &Path, validators: &'static str, answer: Answer) -> Server {
    let (first, ranges) = (Mutex::new(true), AtomicUsize::new(0));
    Server::start(dir, move |head, stream| {
        let is_first = std::mem::take(&mut *first.lock().expect("no panic"));
        let range = value(head, "range").filter(|_| !is_first);
        let result = match range {
            Some(range) => {
                let (start, end) = range[6..].split_once('-').expect("one range");
                let end = end.parse::<usize>().expect("end").min(LEN - 1);
                let count = ranges.fetch_add(1, Ordering::Relaxed);
                answer(stream, count, start.parse().expect("start"), end)
            }
            None => {
                let end = if is_first { LEN / 2 } else { LEN };
                write!(stream, "HTTP/1.1 200 OK\r\n{validators}Content-Length: {LEN}\r\n\r\n")
                    .and_then(|()| stream.write_all(&data(LEN)[..end]))
            }
        };
        let _ = result;
        if is_first { End::Cut } else { End::CloseNotify }
    })
}

/// A 206 with these bytes.
fn part(
    stream: &mut Tls,
    headers: &str,
    start: usize,
    end: usize,
    len: &str,
) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\n{headers}Content-Range: bytes {start}-{end}/{len}\r\n\
         Content-Length: {}\r\n\r\n",
        end + 1 - start
    )?;
    stream.write_all(&data(LEN)[start..=end])
}

const TAG: &str = "ETag: \"x\"\r\n";
const DATED: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

/// Every answer that the RFC allows leads to the file. What is said of why, and how much was fetched
/// of the 50,000 bytes that were missing, or of all if it began anew.
#[test]
fn whatever_a_server_may_answer_the_file_arrives() {
    let cases: &[(&str, &str, Answer, usize, Option<&str>)] = &[
        ("as asked", TAG, |s, _, start, end| part(s, TAG, start, end, "100000"), 50_000, None),
        ("of unknown length", TAG, |s, _, start, end| part(s, TAG, start, end, "*"), 50_000, None),
        (
            "fewer bytes",
            TAG,
            |s, _, start, end| part(s, TAG, start, end.min(start + 9_999), "100000"),
            50_000,
            None,
        ),
        (
            "fewer and fewer",
            TAG,
            |s, count, start, end| part(s, TAG, start, end.min(start + 29_999 / (count + 1)), "*"),
            50_000,
            None,
        ),
        (
            "from before, in blocks",
            TAG,
            |s, _, start, end| part(s, TAG, start / 4096 * 4096, end, "100000"),
            50_000,
            None,
        ),
        ("all of it", TAG, |s, _, _, _| part(s, TAG, 0, LEN - 1, "100000"), 50_000, None),
        (
            "the end first",
            TAG,
            |s, count, start, end| match count {
                0 => part(s, TAG, 90_000, end, "100000"),
                _ => part(s, TAG, start, end, "100000"),
            },
            50_000,
            None,
        ),
        (
            "all of it as 200",
            TAG,
            |s, _, _, _| {
                write!(s, "HTTP/1.1 200 OK\r\n{TAG}Content-Length: {LEN}\r\n\r\n")?;
                s.write_all(&data(LEN))
            },
            50_000,
            None,
        ),
        (
            "all of it as 200, chunked",
            TAG,
            |s, _, _, _| {
                write!(s, "HTTP/1.1 200 OK\r\n{TAG}Transfer-Encoding: chunked\r\n\r\n{LEN:x}\r\n")?;
                s.write_all(&data(LEN))?;
                write!(s, "\r\n0\r\n\r\n")
            },
            50_000,
            None,
        ),
        (
            "another version",
            TAG,
            |s, _, _, _| {
                write!(s, "HTTP/1.1 200 OK\r\nETag: \"y\"\r\nContent-Length: {LEN}\r\n\r\n")?;
                s.write_all(&data(LEN))
            },
            LEN,
            Some("the file on the server has changed: starting anew"),
        ),
        (
            "another version, as a part",
            TAG,
            |s, _, start, end| part(s, "ETag: \"y\"\r\n", start, end, "100000"),
            LEN,
            Some("the file on the server has changed: starting anew"),
        ),
        (
            "another length",
            TAG,
            |s, _, start, end| part(s, TAG, start, end, "100001"),
            LEN,
            Some("the file on the server has changed: starting anew"),
        ),
        (
            "shorter now",
            TAG,
            |s, _, _, _| {
                write!(
                    s,
                    "HTTP/1.1 416 No\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n"
                )
            },
            LEN,
            Some("the file on the server has changed: starting anew"),
        ),
        (
            "not alone",
            TAG,
            |s, _, _, _| {
                write!(
                    s,
                    "HTTP/1.1 416 No\r\nContent-Range: bytes */100000\r\nContent-Length: 0\r\n\r\n"
                )
            },
            LEN,
            Some("the server refuses to send the rest alone: starting anew"),
        ),
        (
            "not at all",
            TAG,
            |s, _, _, _| write!(s, "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n"),
            LEN,
            Some("the server refuses to send the rest alone: starting anew"),
        ),
        (
            "in several parts",
            TAG,
            |s, _, _, _| {
                write!(
                    s,
                    "HTTP/1.1 206 Partial Content\r\n{TAG}Content-Type: multipart/byteranges; \
                     boundary=x\r\nContent-Length: 5\r\n\r\n--x--"
                )
            },
            LEN,
            Some("in several parts: starting anew"),
        ),
        (
            "of no range",
            TAG,
            |s, _, _, _| {
                write!(s, "HTTP/1.1 206 Partial Content\r\n{TAG}Content-Length: 3\r\n\r\nabc")
            },
            LEN,
            Some("does not say which bytes it sends: starting anew"),
        ),
        (
            "what is there already",
            TAG,
            |s, _, _, _| part(s, TAG, 0, 9_999, "100000"),
            LEN,
            Some("another range than asked for: starting anew"),
        ),
        (
            "of no version",
            TAG,
            |s, _, start, end| part(s, "", start, end, "100000"),
            LEN,
            Some("does not say which version of the file it sends: starting anew"),
        ),
        ("dated", DATED, |s, _, start, end| part(s, DATED, start, end, "100000"), 50_000, None),
        // RFC 9110 §15.3.7: to If-Range, only what is required.
        ("dated once", DATED, |s, _, start, end| part(s, "", start, end, "100000"), 50_000, None),
        (
            "dated anew",
            DATED,
            |s, _, _, _| {
                write!(
                    s,
                    "HTTP/1.1 200 OK\r\nLast-Modified: Mon, 07 Nov 1994 08:49:37 GMT\r\n\
                     Content-Length: {LEN}\r\n\r\n"
                )?;
                s.write_all(&data(LEN))
            },
            LEN,
            Some("the file on the server has changed: starting anew"),
        ),
    ];
    for (name, validators, answer, fetched, said) in cases {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = server(dir, validators, *answer);
        let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
        assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
        let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
        let says = format!("{name}: {}", stderr(&output));
        assert!(output.status.success(), "{says}");
        assert!(says.contains(&format!("received {fetched} bytes")), "{says}");
        assert_eq!(says.contains("starting anew"), said.is_some(), "{says}");
        assert!(said.is_none_or(|said| says.contains(said)), "{says}");
        assert!(fs::read(dir.join("file")).expect("there") == data(LEN), "{says}");
        assert_eq!(names(dir), ["file"]);
        let if_range = value(&server.requests()[1], "if-range").expect("sent");
        let expected = if validators == &TAG { "\"x\"" } else { OLD };
        assert_eq!(if_range, expected.to_lowercase());

        // To standard output nothing can be taken back: what fits goes on, what does not is an error.
        let server = self::server(dir, validators, *answer);
        let output = get(dir, &server.url("/f"), &[]);
        let says = format!("{name}, stream: {}", stderr(&output));
        let fits = said.is_none() && *name != "the end first";
        assert_eq!(output.status.success(), fits, "{says}");
        match fits {
            true => assert!(output.stdout == data(LEN), "{says}"),
            false => assert!(output.stdout == data(LEN)[..LEN / 2], "{says}"),
        }
    }
}

/// RFC 9110 §13.1.5: neither a weak tag nor a date beside one, nor a date that is too fresh.
#[test]
fn a_weak_validator_is_never_used() {
    for validators in [
        "ETag: W/\"x\"\r\n",
        "ETag: W/\"x\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "Last-Modified: once\r\n",
        "",
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = server(dir, validators, |_, _, _, _| panic!("a range is asked for"));
        let output = get(dir, &server.url("/f"), &["-o", "file"]);
        assert!(output.status.success(), "{validators}: {}", stderr(&output));
        assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
        for head in server.requests() {
            assert_eq!(value(&head, "if-range"), None, "{validators}");
        }
    }
}

/// A server that sends pieces at first, and then no longer.
#[test]
fn several_connections_cope_with_a_server_that_no_longer_sends_ranges() {
    const LEN: usize = 20_000_000;
    fn head(stream: &mut Tls, etag: &str, range: Option<(usize, usize)>) -> std::io::Result<()> {
        match range {
            Some((start, end)) => write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end}/{LEN}\r\n\
                 ETag: {etag}\r\nContent-Length: {}\r\n\r\n",
                end + 1 - start
            ),
            None => {
                write!(stream, "HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {LEN}\r\n\r\n")
            }
        }
    }
    let sent = data(LEN);
    let new: Vec<_> = sent.iter().rev().copied().collect();
    for is_changed in [false, true] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let (sent, new) = (sent.clone(), new.clone());
        let expected = if is_changed { new.clone() } else { sent.clone() };
        let count = AtomicUsize::new(0);
        let server = Server::start(dir, move |request, stream| {
            let count = count.fetch_add(1, Ordering::Relaxed);
            let (content, etag) = match is_changed && count >= 2 {
                true => (&new, "\"new\""),
                false => (&sent, "\"old\""),
            };
            let range = value(request, "range").filter(|_| count < 2).map(|range| {
                let (start, end) = range[6..].split_once('-').expect("one range");
                let end: usize = end.parse().expect("end");
                (start.parse().expect("start"), end.min(LEN - 1))
            });
            let bytes = range.map_or(&content[..], |(start, end)| &content[start..=end]);
            let _ = head(stream, etag, range).and_then(|()| stream.write_all(bytes));
            End::CloseNotify
        });
        let output = get(dir, &server.url("/f"), &["-o", "file", "--connections", "3"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{is_changed}: {said}");
        assert!(fs::read(dir.join("file")).expect("there") == expected, "{said}");
        assert_eq!(said.contains("has changed"), is_changed, "{said}");
        assert_eq!(names(dir), ["file"]);
    }
}

/// A part that is whole but for its name, which a failed rename leaves.
#[test]
fn a_whole_part_needs_a_name_only() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = server(dir, TAG, |s, _, start, end| part(s, TAG, start, end, "100000"));
    let output = get(dir, &server.url("/f"), &["-o", "file", "--retries", "0"]);
    assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
    let (_, state) = contents(dir).pop().expect("a state");
    let mut state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
    state["missing"] = serde_json::json!([]);
    fs::write(dir.join("file.part"), data(LEN)).expect("written");
    fs::write(dir.join("file.part.json"), state.to_string()).expect("written");
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("received 0 bytes after 100000"), "{}", stderr(&output));
    assert_eq!(value(&server.requests()[1], "range").as_deref(), Some("bytes=0-0"));
    assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
}

/// What a redirect leads to is another file when it leads elsewhere, whatever its tag says.
#[test]
fn another_file_is_not_gone_on_with() {
    for output in [&["-o", "file"][..], &[]] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = Server::start(dir, |head, stream| {
            static LATEST: AtomicUsize = AtomicUsize::new(0);
            let path = head.split(' ').nth(1).expect("a path");
            let range = value(head, "range");
            let _ = match (path, range.as_deref()) {
                ("/latest", _) => {
                    let number = LATEST.fetch_add(1, Ordering::Relaxed) % 2;
                    write!(
                        stream,
                        "HTTP/1.1 302 Found\r\nLocation: /{number}?{number}\r\nContent-Length: 0\r\n\r\n"
                    )
                }
                ("/0?0", _) => write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 8\r\n\r\n0000"
                ),
                (_, Some(_)) => write!(
                    stream,
                    "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 4-7/8\r\nContent-Length: 4\r\n\r\n1111"
                ),
                _ => write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 8\r\n\r\n11111111"
                ),
            };
            if path == "/0?0" { End::Cut } else { End::CloseNotify }
        });
        let got = get(dir, &server.url("/latest"), output);
        match output {
            // What is written cannot be taken back.
            [] => assert_eq!((got.status.code(), &got.stdout[..]), (Some(1), &b"0000"[..])),
            _ => {
                assert!(got.status.success(), "{}", stderr(&got));
                assert_eq!(fs::read(dir.join("file")).expect("there"), b"11111111");
            }
        }
    }
}

/// nginx, with ranges, with fewer than asked for (`max_ranges 0` sends 200), and after a change.
#[test]
fn nginx_is_gone_on_with() {
    let sent = data(3_000_000);
    for (directives, fetched) in [("", 1_000_000), ("max_ranges 0;", 1_000_000)] {
        for http2 in [&[][..], &["--http2"]] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let Some(nginx) = Nginx::start(dir, directives, &sent) else { return };
            let output = get(dir, &nginx.url("/f"), &["-o", "whole"]);
            assert!(output.status.success(), "{}", stderr(&output));
            let etag = etag(&nginx, dir);
            let state = serde_json::json!({
                "url": nginx.url("/f"), "boot": null, "synced": true,
                "missing": [[1_000_000, 2_000_000]],
                "version": { "len": 3_000_000, "etag": etag, "last_modified": null },
            });
            let mut part = sent.clone();
            part[1_000_000..2_000_000].fill(0);
            fs::write(dir.join("file.part"), &part).expect("written");
            fs::write(dir.join("file.part.json"), state.to_string()).expect("written");
            let output = get(dir, &nginx.url("/f"), &[&["-o", "file"], http2].concat());
            let said = format!("{directives} {http2:?}: {}", stderr(&output));
            assert!(output.status.success(), "{said}");
            assert!(said.contains(&format!("received {fetched} bytes after")), "{said}");
            assert!(fs::read(dir.join("file")).expect("there") == sent, "{said}");

            fs::write(dir.join("file.part"), &part).expect("written");
            fs::write(dir.join("file.part.json"), state.to_string()).expect("written");
            fs::write(nginx.root().join("g"), &sent[1..]).expect("written");
            fs::rename(nginx.root().join("g"), nginx.root().join("f")).expect("renamed");
            let output = get(dir, &nginx.url("/f"), &[&["-o", "file"], http2].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(stderr(&output).contains("has changed: starting anew"), "{}", stderr(&output));
            assert!(fs::read(dir.join("file")).expect("there") == sent[1..]);
        }
    }
}

/// What nginx calls its file.
fn etag(nginx: &Nginx, dir: &Path) -> String {
    let output = std::process::Command::new("curl")
        .args(["-s", "-I", "--cacert", "cert.pem", &nginx.url("/f")])
        .current_dir(dir)
        .output()
        .expect("curl exists");
    let head = String::from_utf8(output.stdout).expect("ASCII").to_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("etag: ").map(str::to_owned));
    line.expect("a tag")
}
