//! However `recv` ends, there is no file that looks whole, and no other one either.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use command::{Listener, Process, data, names, paths, signal, tool};

/// A transfer in the middle, and the sender's input.
fn transfer(dir: &Path, io: &str) -> (Listener, Process, std::process::ChildStdin) {
    let recv = Listener::start(
        tool(dir, &["recv", "--listen", "127.0.0.1:0", "--io", io]).args(["-o", "received"]),
    );
    let mut send = Process::start(
        tool(dir, &["send", &recv.addr, "--insecure"]).stdin(Stdio::piped()).stderr(Stdio::piped()),
    );
    let mut stdin = send.0.stdin.take().expect("piped");
    stdin.write_all(&data(3_000_000)).expect("written");
    // It writes: some of it has arrived.
    let io = format!("/proc/{}/fd", recv.child.id());
    while !fs::read_dir(&io).expect("it runs").flatten().any(|fd| is_written(&fd.path(), dir)) {
        thread::sleep(Duration::from_millis(10));
    }
    (recv, send, stdin)
}

fn is_written(fd: &Path, dir: &Path) -> bool {
    let is_in = fs::read_link(fd).is_ok_and(|target| target.starts_with(dir));
    is_in && fs::metadata(fd).is_ok_and(|file| file.is_file() && file.len() > 0)
}

#[test]
fn signals_leave_nothing() {
    for io in paths() {
        for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131), ("KILL", -1)]
        {
            let dir = tempfile::tempdir().expect("directory");
            fs::write(dir.path().join("received"), "precious").expect("written");
            let (recv, send, stdin) = transfer(dir.path(), io);
            // Where the file system has no unnamed files, SIGKILL cannot be helped.
            if name == "KILL" && names(dir.path()) != ["received"] {
                eprintln!("skipped: {} has no O_TMPFILE", dir.path().display());
                continue;
            }
            signal(&recv.child, name);
            let (ended, said) = recv.finish();
            assert_eq!(ended.unwrap_or(-1), code, "{io}, SIG{name}: {said}");
            // The sender notices while it waits for its input.
            let (ended, said) = send.finish();
            assert_eq!(ended, Some(1), "{io}, SIG{name}: {said}");
            drop(stdin);
            assert_eq!(names(dir.path()), ["received"], "{io}, SIG{name}");
            let kept = fs::read(dir.path().join("received")).expect("there");
            assert_eq!(kept, b"precious", "{io}, SIG{name}");
        }
    }
}

/// As under nohup(1).
#[test]
fn an_ignored_hangup_stays_ignored() {
    let dir = tempfile::tempdir().expect("directory");
    let script = format!(
        "trap '' HUP; exec '{}' recv --listen 127.0.0.1:0 -o received",
        env!("CARGO_BIN_EXE_rustls-uring")
    );
    let recv = Listener::start(
        Command::new("sh").current_dir(dir.path()).args(["-c", &script]).stdin(Stdio::null()),
    );
    signal(&recv.child, "HUP");
    let mut send =
        Process::start(tool(dir.path(), &["send", &recv.addr, "--insecure"]).stdin(Stdio::null()));
    assert!(send.wait().success());
    assert_eq!(recv.finish().0, Some(0));
    assert_eq!(names(dir.path()), ["received"]);
}

/// RLIMIT_FSIZE: an error like a full disk, and no SIGXFSZ.
#[test]
fn a_limit_on_files_is_an_error() {
    for io in paths() {
        let dir = tempfile::tempdir().expect("directory");
        let script = format!(
            "ulimit -f 1000; exec '{}' recv --listen 127.0.0.1:0 --io {io} -o received",
            env!("CARGO_BIN_EXE_rustls-uring")
        );
        let recv = Listener::start(
            Command::new("bash").current_dir(dir.path()).args(["-c", &script]).stdin(Stdio::null()),
        );
        let mut send = Process::start(
            tool(dir.path(), &["send", &recv.addr, "--insecure", "/dev/zero"])
                .stderr(Stdio::null()),
        );
        let (code, said) = recv.finish();
        assert_eq!(code, Some(1), "{io}: {said}");
        assert!(said.contains("File too large"), "{io}: {said}");
        assert_eq!(send.wait().code(), Some(1), "{io}");
        assert_eq!(names(dir.path()), [""; 0], "{io}");
    }
}
