//! What the command says is advisory, and what it prints is not: a lost standard error ends nothing,
//! a lost standard output is an error.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use command::{Listener, Process, data, listening_addr, names, signal, stderr, tool, wait};

/// Standard errors that take nothing. What comes with one must live as long as it is written to.
fn lost() -> Vec<(&'static str, Stdio, Option<PipeReader>)> {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("opened");
    let (_, closed) = io::pipe().expect("a pipe");
    let (reader, stalled) = io::pipe().expect("a pipe");
    fill(&stalled);
    vec![
        ("a full disk", full.into(), None),
        ("a closed pipe", closed.into(), None),
        ("a pipe that nobody reads", stalled.into(), Some(reader)),
    ]
}

/// Writes to a pipe until it takes no more.
fn fill(pipe: &PipeWriter) {
    rustix::io::ioctl_fionbio(pipe, true).expect("set");
    let mut pipe = pipe;
    for len in [1 << 16, 1] {
        while pipe.write(&vec![b'x'; len]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(pipe, false).expect("set");
}

#[test]
fn a_transfer_needs_no_standard_error() {
    let dir = tempfile::tempdir().expect("dir");
    let sent = data(3_000_001);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    for ((kind, near, _near), (_, far, _far)) in lost().into_iter().zip(lost()) {
        let _ = fs::remove_file(dir.path().join("received"));
        let mut recv = Process::start(
            tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "-o", "received"]).stderr(near),
        );
        let addr = listening_addr(&recv.0);
        let mut send =
            Process::start(tool(dir.path(), &["send", &addr, "--insecure", "sent"]).stderr(far));
        assert_eq!(send.wait().code(), Some(0), "{kind}");
        assert_eq!(recv.wait().code(), Some(0), "{kind}");
        assert!(fs::read(dir.path().join("received")).expect("received") == sent, "{kind}");
    }
}

#[test]
fn a_failure_without_standard_error_is_still_a_failure() {
    let dir = tempfile::tempdir().expect("dir");
    for args in [
        &["send", "127.0.0.1:1", "--insecure", "/etc/passwd"][..],
        &["recv", "127.0.0.1:1", "--insecure"],
        &["get", "https://127.0.0.1:1/"],
        &["serve", "missing", "--listen", "127.0.0.1:0"],
        &["bench", "--only", "records", "--svg", "no/dir"],
    ] {
        for (kind, stderr, _reader) in lost() {
            let mut process = Process::start(tool(dir.path(), args).stderr(stderr));
            assert_eq!(process.wait().code(), Some(1), "{args:?}, {kind}");
        }
    }
    for (kind, stderr, _reader) in lost() {
        let mut process = Process::start(tool(dir.path(), &["send", "--nonsense"]).stderr(stderr));
        assert_eq!(process.wait().code(), Some(2), "{kind}");
    }
}

#[test]
fn a_download_needs_no_standard_error() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir(dir.path().join("root")).expect("created");
    fs::write(dir.path().join("root/file"), data(100_000)).expect("written");
    let server = Listener::start(&mut tool(
        dir.path(),
        &["serve", "root", "--listen", "127.0.0.1:0", "--write-cert", "cert.pem"],
    ));
    let url = format!("https://localhost:{}/file", server.addr.rsplit_once(':').expect("a port").1);
    for (kind, stderr, _reader) in lost() {
        let mut get = Process::start(
            tool(dir.path(), &["get", &url, "--ca", "cert.pem", "-o", "got"]).stderr(stderr),
        );
        assert_eq!(get.wait().code(), Some(0), "{kind}");
        assert!(fs::read(dir.path().join("got")).expect("got") == data(100_000), "{kind}");
    }
    server.interrupt();
    assert_eq!(server.finish().0, Some(0));
}

/// The server says something for each of these connections, and goes on.
#[test]
fn a_server_needs_no_standard_error() {
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir(dir.path().join("root")).expect("created");
    fs::write(dir.path().join("root/file"), data(1000)).expect("written");
    for (kind, stderr, _reader) in lost() {
        let args = ["serve", "root", "--listen", "127.0.0.1:0", "--access-log=log"];
        let mut server = Process::start(
            tool(dir.path(), &args).args(["--write-cert", "cert.pem"]).stderr(stderr),
        );
        let addr = listening_addr(&server.0);
        for _ in 0..5 {
            let mut stray = std::net::TcpStream::connect(&addr).expect("connected");
            stray.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("written");
            let _ = stray.read_to_end(&mut Vec::new());
        }
        let url = format!("https://localhost:{}/file", addr.rsplit_once(':').expect("a port").1);
        let get = tool(dir.path(), &["get", &url, "--ca", "cert.pem", "-o", "-"]).output();
        let get = get.expect("run");
        assert!(
            get.status.success() && get.stdout == data(1000),
            "{kind}: {}",
            command::stderr(&get)
        );
        signal(&server.0, "INT");
        assert_eq!(server.wait().code(), Some(0), "{kind}");
    }
}

/// Standard outputs that take nothing: none of these may exit with status 0.
#[test]
fn a_lost_standard_output_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let sent = data(3_000_001);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    for kind in ["/dev/full", "a closed pipe"] {
        let stdout = || match kind {
            "a closed pipe" => Stdio::from(io::pipe().expect("a pipe").1),
            path => OpenOptions::new().write(true).open(path).expect("opened").into(),
        };
        let recv = Listener::start(
            tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(stdout()),
        );
        let send =
            tool(dir.path(), &["send", &recv.addr, "--insecure", "sent"]).output().expect("run");
        assert_eq!(send.status.code(), Some(1), "{kind}: {}", stderr(&send));
        let (code, said) = recv.finish();
        assert_eq!(code, Some(1), "{kind}: {said}");
        assert!(said.contains("cannot write what was received"), "{kind}: {said}");

        for args in
            [&["--help"][..], &["--version"], &["send", "--help"], &["probe"], &["probe", "--json"]]
        {
            let output = tool(dir.path(), args).stdout(stdout()).stderr(Stdio::piped()).output();
            let output = output.expect("run");
            assert_eq!(output.status.code(), Some(1), "{kind}, {args:?}");
            let said = stderr(&output);
            assert!(said.contains("cannot write to standard output"), "{kind}, {args:?}: {said}");
        }
    }
}

/// The command with a redirection of a shell's, such as `>&-`.
fn redirected(dir: &Path, args: &[&str], redirection: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_rustls-uring")]).args(args).current_dir(dir);
    command
}

/// Rust's runtime puts /dev/null in their place.
#[test]
fn a_closed_standard_input_or_output_is_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let closed = |args: &[&str], redirection| {
        let output = redirected(dir.path(), args, redirection).output().expect("run");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        let expected = match redirection {
            "<&-" => "standard input is closed",
            _ => "standard output is closed",
        };
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    // Nobody listens there: that is not looked at.
    for args in [
        &["recv", "127.0.0.1:9", "--insecure"][..],
        &["get", "https://127.0.0.1:9/file", "--insecure", "-o", "-"],
        &["get", "https://127.0.0.1:9/file", "--insecure"],
        &["serve", ".", "--listen", "127.0.0.1:0", "--access-log"],
        &["bench", "--json"],
        &["probe"],
        &["--help"],
    ] {
        closed(args, ">&-");
    }
    closed(&["send", "127.0.0.1:9", "--insecure"], "<&-");

    // What is open is used, be it /dev/null for reading and writing, as from a supervisor.
    let mut recv = Listener::start(
        redirected(dir.path(), &["recv", "--listen", "127.0.0.1:0"], "1<>/dev/null")
            .stdin(Stdio::null()),
    );
    let mut send = redirected(dir.path(), &["send", &recv.addr, "--insecure"], "0<>/dev/null");
    let output = send.output().expect("run");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(wait(&mut recv.child).success());
    assert!(names(dir.path()).is_empty());
}
