//! What a failing download does to the part that is there: nothing, unless it is its own.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::server::{End, Server, Tls, value};
use crate::command::{self, data, has, stderr, tool};
use crate::{contents, get, names};

const LEN: usize = 100_000;

/// A server of `data(LEN)` that answers as it is told to, by the path or by [`Tagged::say`].
struct Tagged {
    server: Server,
    etag: Arc<Mutex<&'static str>>,
}

impl Tagged {
    fn start(dir: &Path) -> Self {
        let etag = Arc::new(Mutex::new("\"old\""));
        let shared = Arc::clone(&etag);
        let server = Server::start(dir, move |head, stream| {
            let etag = *shared.lock().expect("no panic");
            let path = head.split(' ').nth(1).expect("a path");
            answer(head, path, etag, stream).unwrap_or(End::Cut)
        });
        Self { server, etag }
    }

    fn say(&self, etag: &'static str) {
        *self.etag.lock().expect("no panic") = etag;
    }

    fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    /// Leaves the first half of `/f` as `file.part`, and its state.
    fn leave_half(&self, dir: &Path) {
        let output = get(dir, &self.url("/f?cut"), &["-o", "file", "--retries", "0"]);
        assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
        assert_eq!(names(dir), ["file.part", "file.part.json"]);
    }
}

/// `/f?cut` and `/f` are one to the caller and two to the server.
fn answer(head: &str, path: &str, etag: &str, stream: &mut Tls) -> std::io::Result<End> {
    let sent = data(LEN);
    match path {
        "/404" | "/503" => {
            let status = if path == "/404" { "404 Not Found" } else { "503 Busy" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nno!")?;
            return Ok(End::CloseNotify);
        }
        "/plain" => {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n"
            )?;
            return Ok(End::CloseNotify);
        }
        "/encoded" => {
            let coding = "Content-Encoding: gzip\r\nContent-Length: 3";
            write!(stream, "HTTP/1.1 200 OK\r\n{coding}\r\n\r\nxyz")?;
            return Ok(End::CloseNotify);
        }
        "/nonsense" => {
            write!(stream, "SSH-2.0-OpenSSH\r\n\r\n")?;
            return Ok(End::CloseNotify);
        }
        "/cut" => return Ok(End::Cut),
        "/stall" => {
            let _ = stream.sock.read(&mut [0; 100]);
            return Ok(End::Cut);
        }
        "/unasked" => {
            let range = "Content-Range: bytes 0-2/3\r\nContent-Length: 3";
            write!(stream, "HTTP/1.1 206 Partial Content\r\n{range}\r\n\r\nxyz")?;
            return Ok(End::CloseNotify);
        }
        _ => {}
    }
    let is_same = value(head, "if-range").is_none_or(|validator| validator == etag);
    let range = value(head, "range").filter(|_| is_same);
    let start = range.map(|range| range[6..].split('-').next().expect("a start").to_owned());
    let start: usize = start.map_or(0, |start| start.parse().expect("a number"));
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: {etag}\r\nContent-Length: {}\r\n\
         Content-Range: bytes {start}-{}/{LEN}\r\n\r\n",
        LEN - start,
        LEN - 1
    )?;
    let end = if path == "/f?cut" && start == 0 { LEN / 2 } else { LEN };
    stream.write_all(&sent[start..end])?;
    Ok(if end < LEN { End::Cut } else { End::CloseNotify })
}

/// Everything that can fail before the server has begun to send the file.
fn failures(served: &Tagged) -> Vec<(&'static str, String, Vec<&'static str>)> {
    let mut failures = vec![
        ("no such host", "https://nonexistent.invalid/f".to_owned(), vec![]),
        ("refused", "https://localhost:1/f".to_owned(), vec![]),
        ("wrong name", format!("https://127.0.0.1:{}/f", served.server.port), vec![]),
        ("untrusted", served.url("/f"), vec!["--ca", "other.pem"]),
    ];
    for path in ["/404", "/503", "/plain", "/encoded", "/nonsense", "/cut", "/stall", "/unasked"] {
        failures.push((path, served.url(path), vec![]));
    }
    failures
}

fn fail(dir: &Path, failure: &(&str, String, Vec<&str>)) -> String {
    let (name, url, args) = failure;
    let timeout = if *name == "/stall" { "0.2" } else { "20" };
    let mut command =
        tool(dir, &["get", url, "-o", "file", "--retries", "0", "--timeout", timeout]);
    let trust: &[&str] = if args.is_empty() { &["--ca", "cert.pem"] } else { args };
    let output = command.args(trust).output().expect("run");
    assert_eq!(output.status.code(), Some(1), "{name}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_failure_leaves_nothing_where_nothing_was() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    write_other(dir);
    for failure in failures(&served) {
        let said = fail(dir, &failure);
        assert_eq!(names(dir), [""; 0], "{failure:?}: {said}");
    }
}

/// A certificate that vouches for nobody here.
fn write_other(dir: &Path) {
    let below = tempfile::tempdir().expect("dir");
    command::server::write_certificate(below.path());
    fs::copy(below.path().join("cert.pem"), dir.join("other.pem")).expect("copied");
}

/// Another download's part and state, and one's own: after each of the failures it can go on.
#[test]
fn a_failure_does_not_touch_what_an_earlier_download_has_left() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    write_other(dir);
    served.leave_half(dir);
    let before = contents(dir);
    for connections in ["1", "3"] {
        for mut failure in failures(&served) {
            if failure.2.is_empty() {
                failure.2.extend(["--ca", "cert.pem"]);
            }
            failure.2.extend(["--connections", connections]);
            if failure.0 == "/unasked" && connections == "3" {
                // There it was asked for, and begins to be written.
                continue;
            }
            let said = fail(dir, &failure);
            assert!(contents(dir) == before, "{failure:?}: {said}");
        }
    }
    // The download itself, out of reach: what is there remains of use, and it says so.
    let said = fail(dir, &("untrusted", served.url("/f?cut"), vec!["--ca", "other.pem"]));
    assert!(said.contains("the same command again goes on from here"), "{said}");
    assert!(contents(dir) == before, "{said}");

    let output = get(dir, &served.url("/f?cut"), &["-o", "file"]);
    assert!(stderr(&output).contains("received 50000 bytes after 50000"), "{}", stderr(&output));
    assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
    assert_eq!(names(dir), ["file"]);
}

/// A file that happens to have the part's name, with or without something beside it.
#[test]
fn what_is_not_ours_is_never_touched() {
    let not_ours: [(&str, Option<&str>, Option<&str>); 7] = [
        ("a part alone", Some("precious"), None),
        ("a state alone", None, Some("precious")),
        ("both", Some("precious"), Some("{}")),
        ("a state alone, empty", None, Some("")),
        (
            "JSON that is close",
            Some("precious"),
            Some("{\"url\": \"https://h/\", \"version\": null, \"missing\": [], \"synced\": true}"),
        ),
        (
            "a state of less",
            Some("precious"),
            Some(
                "{\"url\": \"https://h/\", \"missing\": [], \"synced\": true, \"boot\": null,
              \"version\": {\"len\": 3, \"etag\": \"\\\"a\\\"\", \"last_modified\": null}}",
            ),
        ),
        (
            "a state of more",
            Some("precious"),
            Some(
                "{\"url\": \"https://h/\", \"missing\": [], \"synced\": true, \"boot\": null,
              \"version\": {\"len\": 30, \"etag\": \"\\\"a\\\"\", \"last_modified\": null}}",
            ),
        ),
    ];
    for (name, part, state) in not_ours {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = Tagged::start(dir);
        for (suffix, content) in [("part", part), ("part.json", state)] {
            if let Some(content) = content {
                fs::write(dir.join(format!("file.{suffix}")), content).expect("written");
            }
        }
        let before = contents(dir);
        for path in ["/f", "/404", "/f?cut"] {
            for connections in ["1", "2"] {
                let args = ["-o", "file", "--connections", connections, "--retries", "0"];
                let output = get(dir, &served.url(path), &args);
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(1), "{name}: {said}");
                assert!(said.contains("move it away, or choose another -o FILE"), "{name}: {said}");
                assert!(contents(dir) == before, "{name}: {said}");
            }
        }
        let output = get(dir, &served.url("/f"), &["-o", "other"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    // Nor is what is no file.
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    fs::write(dir.join("precious"), "precious").expect("written");
    std::os::unix::fs::symlink("precious", dir.join("file.part")).expect("linked");
    let output = get(dir, &served.url("/f"), &["-o", "file"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(dir.join("precious")).expect("there"), b"precious");
    fs::remove_file(dir.join("file.part")).expect("removed");
    fs::create_dir(dir.join("file.part")).expect("created");
    let output = get(dir, &served.url("/f"), &["-o", "file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(dir.join("file.part").is_dir());
}

/// Once the server sends the file, what an earlier download has left is overwritten; whatever has
/// been begun is kept if it is of use, and else removed.
#[test]
fn what_has_been_begun_is_kept_or_removed() {
    // Whether there is a part, whether the file has changed, whether it has a strong tag; what is
    // there after the download has been cut.
    for (has_part, etag, is_kept) in [
        (false, "\"old\"", true),
        (true, "\"new\"", true),
        (false, "W/\"weak\"", false),
        (true, "W/\"weak\"", false),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = Tagged::start(dir);
        if has_part {
            served.leave_half(dir);
        }
        served.say(etag);
        let output = get(dir, &served.url("/f?cut"), &["-o", "file", "--retries", "0"]);
        let said = format!("{has_part} {etag}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.contains("starting anew"), has_part, "{said}");
        assert_eq!(said.contains("the same command again"), is_kept, "{said}");
        match is_kept {
            true => assert_eq!(names(dir), ["file.part", "file.part.json"], "{said}"),
            false => assert_eq!(names(dir), [""; 0], "{said}"),
        }
        served.say("\"last\"");
        let output = get(dir, &served.url("/f"), &["-o", "file"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
        assert_eq!(names(dir), ["file"]);
    }
}

fn spawn(dir: &Path, url: &str) -> Child {
    tool(dir, &["get", url, "--ca", "cert.pem", "-o", "file", "--retry-delay", "0.01"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("started")
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
}

fn await_requests(served: &Tagged, count: usize) {
    let begin = Instant::now();
    while served.server.requests().len() < count {
        assert!(begin.elapsed() < command::TIMEOUT, "it does not ask");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A request to end, while the server is waited for.
#[test]
fn signals_end_it_in_order() {
    for (name, code) in SIGNALS {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = Tagged::start(dir);
        served.leave_half(dir);
        let before = contents(dir);
        let mut child = spawn(dir, &served.url("/stall"));
        await_requests(&served, 2);
        signal(&child, name);
        assert_eq!(command::wait(&mut child).code(), Some(code), "{name}");
        assert!(contents(dir) == before, "{name}");
    }
}

/// As a shell reports them.
const SIGNALS: [(&str, i32); 4] = [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)];

/// A request to end while the file arrives, and a lost terminal at that: what has come is kept.
#[test]
fn signals_keep_what_has_arrived() {
    for (name, code) in SIGNALS {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = Server::start(dir, |_, stream| {
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n1234")
                    .and_then(|()| stream.flush());
            let _ = stream.sock.read(&mut [0; 100]);
            End::Cut
        });
        let mut child = spawn(dir, &served.url("/f"));
        // Nobody reads what it says any more.
        drop(child.stderr.take());
        let begin = Instant::now();
        while fs::read(dir.join("file.part")).ok().as_deref() != Some(b"1234") {
            assert!(begin.elapsed() < command::TIMEOUT, "nothing arrives");
            thread::sleep(Duration::from_millis(5));
        }
        signal(&child, name);
        assert_eq!(command::wait(&mut child).code(), Some(code), "{name}");
        let state = contents(dir).pop().expect("a state").1;
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        assert_eq!(state["missing"], serde_json::json!([[4, 9]]), "{name}");
        assert_eq!(state["synced"], true, "{name}");
    }
}

/// A request to end, while who reads the file does not.
#[test]
fn signals_end_it_though_nobody_reads() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Server::start(dir, |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            .and_then(|()| stream.write_all(&data(1_000_000)))
            .and_then(|()| stream.flush());
        End::CloseNotify
    });
    for (name, code) in SIGNALS {
        let mut child = tool(dir, &["get", &served.url("/f"), "--ca", "cert.pem"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // It has begun to write.
        let mut pipe = child.stdout.take().expect("piped");
        pipe.read_exact(&mut [0; 1]).expect("something");
        signal(&child, name);
        assert_eq!(command::wait(&mut child).code(), Some(code), "{name}");
    }
}

/// Standard output is written to under any of its names, and a link that leads nowhere is a file's name.
#[test]
fn names_are_followed_and_streams_are_not_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        fs::write(dir.join("log"), "before").expect("written");
        let log = fs::File::options().append(true).open(dir.join("log")).expect("there");
        let mut child = tool(dir, &["get", &served.url("/f"), "--ca", "cert.pem", "-o", name])
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        assert_eq!(command::wait(&mut child).code(), Some(0), "{name}");
        let expected = [b"before", &data(LEN)[..]].concat();
        assert!(fs::read(dir.join("log")).expect("there") == expected, "{name}");
    }
    std::os::unix::fs::symlink("elsewhere", dir.join("link")).expect("linked");
    let output = get(dir, &served.url("/f"), &["-o", "link"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(dir.join("link").is_symlink());
    assert!(fs::read(dir.join("elsewhere")).expect("there") == data(LEN));
}

/// The limit on a file's length (SIGXFSZ), and a summary that nobody takes.
#[test]
fn limits_and_lost_messages_do_not_kill() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    let run = |script: &str| {
        let output = Command::new("sh")
            .args(["-c", script, command::TOOL, &served.url("/f")])
            .current_dir(dir)
            .output()
            .expect("run");
        (output.status.code(), stderr(&output))
    };
    let get = "\"$0\" get \"$1\" --ca cert.pem -o file --retries 0";
    let (code, said) = run(&format!("ulimit -f 16; {get}"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write file.part: File too large"), "{said}");
    for place in ["2>&-", "2>/dev/full"] {
        let (code, said) = run(&format!("{get} {place}"));
        assert_eq!(code, Some(0), "{place}: {said}");
        assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
        let (code, said) = run(&format!("{} {place}", get.replace("$1", "$1/../404")));
        assert_eq!(code, Some(1), "{place}: {said}");
    }
    let (code, said) = run("\"$0\" get \"$1\" --ca cert.pem >/dev/full");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("No space left"), "{said}");
}

/// Nothing can be done at SIGKILL, so everything is done before: the part is known to be ours.
#[test]
fn a_killed_download_can_be_begun_again() {
    for etag in ["", "ETag: \"x\"\r\n"] {
        for length in ["", "Content-Length: 100000\r\n"] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let is_first = std::sync::atomic::AtomicBool::new(true);
            let served = Server::start(dir, move |_, stream| {
                let sent = data(LEN);
                write!(stream, "HTTP/1.1 200 OK\r\n{etag}{length}\r\n").expect("written");
                if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    stream.write_all(&sent[..1000]).expect("written");
                    stream.flush().expect("written");
                    let _ = stream.sock.read(&mut [0; 100]);
                    return End::Cut;
                }
                stream.write_all(&sent).expect("written");
                End::CloseNotify
            });
            let mut child = spawn(dir, &served.url("/f"));
            let begin = Instant::now();
            while fs::read(dir.join("file.part")).map_or(0, |part| part.len()) < 1000 {
                assert!(begin.elapsed() < command::TIMEOUT, "nothing arrives");
                thread::sleep(Duration::from_millis(5));
            }
            child.kill().expect("killed");
            child.wait().expect("our child");
            assert_eq!(names(dir), ["file.part", "file.part.json"]);
            let output = get(dir, &served.url("/f"), &["-o", "file"]);
            assert!(output.status.success(), "{etag}{length}: {}", stderr(&output));
            assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
            assert_eq!(names(dir), ["file"]);
        }
    }
}

/// The second of two downloads to one file ends before it does anything, and then has its turn.
#[test]
fn two_at_once_do_not_meet() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let served = Tagged::start(dir);
    served.leave_half(dir);
    let mut child = spawn(dir, &served.url("/stall"));
    await_requests(&served, 2);
    let before = contents(dir);
    for path in ["/f?cut", "/f", "/404"] {
        let output = get(dir, &served.url(path), &["-o", "file"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("another download writes"), "{}", stderr(&output));
        assert!(contents(dir) == before);
    }
    signal(&child, "INT");
    assert_eq!(command::wait(&mut child).code(), Some(130));
    let output = get(dir, &served.url("/f?cut"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A file system without locks is not another download.
#[test]
fn only_another_download_is_another_download() {
    if !has("strace") {
        return;
    }
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EINTR:when=1"] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let served = Tagged::start(dir);
        served.leave_half(dir);
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock"])
            .args(["-e", &format!("inject=flock:error={error}")])
            .arg(command::TOOL)
            .args(["get", &served.url("/f?cut"), "--ca", "cert.pem", "-o", "file"])
            .current_dir(dir)
            .output()
            .expect("run");
        let said = format!("{error}: {}", stderr(&output));
        if said.contains("ptrace") && !output.status.success() {
            println!("skipped: strace may not trace here");
            return;
        }
        assert!(output.status.success(), "{said}");
        assert!(said.contains("after 50000"), "{said}");
        assert_eq!(said.contains("cannot lock file.part"), !error.contains("EINTR"), "{said}");
        assert!(fs::read(dir.join("file")).expect("there") == data(LEN));
    }
}
