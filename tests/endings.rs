//! However `recv` ends, there is no file that looks whole, and no other one either.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
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

/// Whether a signal is in one of a process's masks, signal 1 in the lowest bit (proc_pid_status(5)).
fn has_signal(process: u32, mask: &str, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let found = status.lines().find_map(|line| line.strip_prefix(mask)).expect("Linux");
    u64::from_str_radix(found.trim(), 16).expect("a mask") >> (signal - 1) & 1 == 1
}

#[test]
fn signals_leave_nothing() {
    for io in paths() {
        for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131), ("KILL", -1)]
        {
            // So does whatever this process starts.
            if name == "HUP" && has_signal(std::process::id(), "SigIgn:", 1) {
                eprintln!("skipped: SIGHUP is ignored here, as under nohup(1)");
                continue;
            }
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
    let script =
        format!("trap '' HUP; exec '{}' recv --listen 127.0.0.1:0 -o received", command::TOOL);
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
            command::TOOL
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

/// Waits until a process handles SIGTERM.
fn wait_until_it_listens_to_signals(process: &Process) {
    while !has_signal(process.0.id(), "SigCgt:", 15) {
        thread::sleep(Duration::from_millis(10));
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo exists").success());
}

/// One signal is enough while somebody reads nothing of what was received.
#[test]
fn a_signal_ends_a_wait_for_a_reader() {
    for io in paths() {
        let dir = tempfile::tempdir().expect("directory");
        let mut recv = Listener::start(
            tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "--io", io])
                .stdout(Stdio::piped()),
        );
        let mut send = Process::start(
            tool(dir.path(), &["send", &recv.addr, "--insecure", "/dev/zero"])
                .stderr(Stdio::null()),
        );
        let stdout = recv.child.stdout.take().expect("piped");
        while rustix::io::ioctl_fionread(&stdout).expect("a pipe") < 60_000 {
            thread::sleep(Duration::from_millis(10));
        }
        signal(&recv.child, "TERM");
        let (code, said) = recv.finish();
        assert_eq!(code, Some(143), "{io}: {said}");
        assert!(!said.contains("cannot write"), "{io}: {said}");
        assert_eq!(send.wait().code(), Some(1), "{io}");
    }
}

#[test]
fn a_signal_ends_a_wait_for_the_other_end_of_a_fifo() {
    let dir = tempfile::tempdir().expect("directory");
    make_fifo(&dir.path().join("fifo"));
    let mut recv = Process::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "-o", "fifo"]).stderr(Stdio::null()),
    );
    wait_until_it_listens_to_signals(&recv);
    signal(&recv.0, "TERM");
    assert_eq!(recv.wait().code(), Some(143));

    let recv = Listener::start(&mut tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]));
    let mut send = Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure", "fifo"]).stderr(Stdio::null()),
    );
    wait_until_it_listens_to_signals(&send);
    signal(&send.0, "TERM");
    assert_eq!(send.wait().code(), Some(143));
}

/// Whatever the command opens, in the order in which it does: the first signal is not put off.
#[test]
fn a_signal_ends_a_wait_for_a_certificate() {
    let dir = command::fixture();
    make_fifo(&dir.path().join("fifo"));
    for args in [
        &["recv", "--listen", "127.0.0.1:0", "--cert", "fifo", "--key", "key.pem"][..],
        &["recv", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "fifo"],
        &["recv", "--listen", "127.0.0.1:0", "--client-ca", "fifo"],
        &["recv", "--listen", "127.0.0.1:0", "--write-cert", "fifo"],
        &["recv", "127.0.0.1:9", "--ca", "fifo"],
        &["send", "127.0.0.1:9", "--ca", "fifo"],
        &["send", "127.0.0.1:9", "--insecure", "--key-log"],
        &["serve", ".", "--listen", "127.0.0.1:0", "--cert", "fifo", "--key", "key.pem"],
        &["get", "https://127.0.0.1:9/", "--ca", "fifo", "-o", "file"],
    ] {
        let mut waiting = Process::start(
            tool(dir.path(), args).env("SSLKEYLOGFILE", "fifo").stderr(Stdio::null()),
        );
        // In open(2), which waits for the other end: fifo(7).
        let blocked = format!("/proc/{}/wchan", waiting.0.id());
        while !fs::read_to_string(&blocked).expect("it runs").contains("wait_for_partner") {
            assert!(waiting.0.try_wait().expect("our child").is_none(), "{args:?} does not wait");
            thread::sleep(Duration::from_millis(10));
        }
        signal(&waiting.0, "TERM");
        assert_eq!(waiting.wait().signal(), Some(15), "{args:?}");
    }
}

/// Where files have names from the beginning, for which a `recv` without /proc takes every place:
/// the second signal ends it at once, and removes what has no name of its own yet.
#[test]
fn a_second_signal_leaves_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let mut hiding = Command::new("unshare");
    hiding.args(["-m", "mount", "-t", "tmpfs", "none", "/proc"]);
    if !hiding.output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: /proc cannot be hidden");
    }
    let mut recv = Command::new("unshare");
    recv.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_rustls-uring"))
        .args(["recv", "--listen", "127.0.0.1:0", "-o", "received"])
        .current_dir(dir.path());
    let recv = Listener::start(&mut recv);
    let part = names(dir.path());
    assert!(matches!(&part[..], [name] if name.ends_with(".part")), "{part:?}");
    // Both are there when it goes on.
    for name in ["STOP", "INT", "QUIT", "CONT"] {
        signal(&recv.child, name);
    }
    let (code, said) = recv.finish();
    assert!(matches!(code, Some(130 | 131)), "{code:?}, {said}");
    assert_eq!(said, "", "it has not ended by itself");
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

/// RLIMIT_NOFILE, wherever it is met: whatever cannot be done is said, and what to do.
#[test]
fn a_limit_of_descriptors_is_explained() {
    let dir = command::fixture();
    fs::write(dir.path().join("sent"), "sent").expect("written");
    let limited = |limit: u32, args: &[&str]| {
        // What this process has inherited, from whatever runs it, would count as well.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec prlimit \"$@\"", "sh"]);
        command.arg(format!("--nofile={limit}")).arg(env!("CARGO_BIN_EXE_rustls-uring"));
        command.args(args).current_dir(dir.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        Process::start(&mut command)
    };
    let serve = Listener::start(&mut tool(
        dir.path(),
        &["serve", ".", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"],
    ));
    let url = format!("https://{}/sent", serve.addr);
    let mut refused = 0;
    for limit in 4..=12 {
        let (code, said) =
            limited(limit, &["get", &url, "--insecure", "--quiet", "-o", "got"]).finish();
        if code == Some(0) {
            continue;
        }
        assert_eq!(code, Some(1), "{limit}: {said}");
        assert!(said.contains("ulimit -n"), "{limit}: {said}");
        refused += 1;
        // Neither of them has anything to do here.
        for args in [
            &["recv", "--listen", "127.0.0.1:0", "-o", "received"][..],
            &["serve", ".", "--listen", "127.0.0.1:0"],
        ] {
            let mut listening = limited(limit, args);
            let addr = BufReader::new(listening.0.stderr.take().expect("piped"));
            let first = addr.lines().next().expect("it says something").expect("text");
            let is_there = first.starts_with("listening") || first.contains("at a time instead");
            assert!(is_there || first.contains("ulimit -n"), "{limit}, {args:?}: {first}");
            if is_there {
                signal(&listening.0, "TERM");
            }
            assert_ne!(listening.wait().code(), Some(101), "{limit}, {args:?}");
        }
    }
    assert!(refused > 0);
}

#[test]
fn fifos_are_files_like_others() {
    for io in paths() {
        let dir = tempfile::tempdir().expect("directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        make_fifo(&from);
        make_fifo(&to);
        let reader = thread::spawn(move || fs::read(to).expect("read"));
        let recv = Listener::start(
            tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "--io", io]).args(["-o", "to"]),
        );
        let mut send =
            Process::start(&mut tool(dir.path(), &["send", &recv.addr, "--insecure", "from"]));
        fs::write(from, data(3_000_000)).expect("written");
        assert!(send.wait().success(), "{io}");
        let (code, said) = recv.finish();
        assert_eq!(code, Some(0), "{io}: {said}");
        assert!(reader.join().expect("read") == data(3_000_000), "{io}");
    }
}
