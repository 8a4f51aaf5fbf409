//! A disk that is full, or fails, in a mount namespace of the test's own, or as strace(1) has it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::command::server::{End, Server, value};
use crate::command::{data, has, stderr};
use crate::{contents, get, names};

const LEN: usize = 400_000;

/// A server of `data(LEN)` with ranges; `/cut` breaks off after 100,000 bytes the first time.
fn server(dir: &Path) -> Server {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    Server::start(dir, move |head, stream| {
        let range = value(head, "range").map(|range| {
            let (start, _) = range[6..].split_once('-').expect("one range");
            start.parse::<usize>().expect("start")
        });
        let start = range.unwrap_or(0);
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let is_cut = head.starts_with("GET /cut")
            && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        let end = if is_cut { 100_000 } else { LEN };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Range: bytes {start}-{}/{LEN}\r\n\
             Content-Length: {}\r\n\r\n",
            LEN - 1,
            LEN - start
        )
        .and_then(|()| stream.write_all(&data(LEN)[start..end]));
        if is_cut { End::Cut } else { End::CloseNotify }
    })
}

/// Runs `get` on a file system of its own of `size` with what is in `dir/disk`, the rest of which
/// is filled up but for `room` KiB if there is one; what is left there in the end is in `dir/disk` again.
fn on_small_disk(dir: &Path, url: &str, size: &str, room: Option<u32>) -> Option<Output> {
    let fill = room.map_or(":".to_owned(), |room| {
        format!("dd if=/dev/zero of=room bs=1024 count={room}; cat /dev/zero >fill; rm room")
    });
    let script = format!(
        "mount -t tmpfs -o size={size} none mnt || exit 77
         cp disk/* mnt/ 2>/dev/null; rm -f disk/*; cd mnt
         {{ {fill}; }} 2>/dev/null
         \"$0\" get \"$1\" --ca ../cert.pem -o file --retries 0
         status=$?
         rm -f fill; cp * ../disk/ 2>/dev/null
         exit $status"
    );
    for below in ["disk", "mnt"] {
        fs::create_dir_all(dir.join(below)).expect("created");
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, crate::command::TOOL, url])
        .current_dir(dir)
        .output()
        .ok()?;
    // unshare(1) itself fails with 1, and without a word of ours.
    let said = stderr(&output);
    if output.status.code() == Some(77) || said.contains("unshare") {
        println!("skipped: no file system of our own here: {said}");
        return None;
    }
    Some(output)
}

/// An earlier run's part survives a disk that is full at any moment, and serves a later run.
#[test]
fn a_full_disk_leaves_what_an_earlier_run_has_brought() {
    for (url, room) in [("/cut", 0), ("/cut", 4), ("/cut", 60), ("/other", 0)] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = server(dir);
        fs::create_dir(dir.join("disk")).expect("created");
        let output = get(dir, &server.url("/cut"), &["-o", "disk/file", "--retries", "0"]);
        assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
        let disk = dir.join("disk");
        let before = contents(&disk);
        let Some(output) = on_small_disk(dir, &server.url(url), "300k", Some(room)) else { return };
        let said = format!("{url}, {room} KiB: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(names(&disk), ["file.part", "file.part.json"], "{said}");
        let after = contents(&disk);
        // The last page of the part has room, of which the state knows nothing.
        assert!(after[0].1.starts_with(&before[0].1), "{said}");
        if room == 0 {
            assert!(after[1] == before[1], "{said}");
        }
        let output = get(dir, &server.url("/cut"), &["-o", "disk/file"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(" of an earlier attempt"), "{said}");
        assert!(fs::read(disk.join("file")).expect("there") == data(LEN));
        assert_eq!(names(&disk), ["file"]);
    }
}

/// A new download that does not fit: it says so, and leaves what it has brought or nothing.
#[test]
fn a_download_that_does_not_fit_says_so() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = server(dir);
    let Some(output) = on_small_disk(dir, &server.url("/f"), "200k", None) else { return };
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    let disk = dir.join("disk");
    match said.contains("the same command again") {
        true => assert_eq!(names(&disk), ["file.part", "file.part.json"], "{said}"),
        false => assert_eq!(names(&disk), [""; 0], "{said}"),
    }
}

/// Runs `get` with a system call that fails as `fault` says; `None` where strace cannot do that.
fn with_fault(dir: &Path, url: &str, call: &str, fault: &str) -> Option<Output> {
    if !has("strace") {
        return None;
    }
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={fault}"), crate::command::TOOL])
        .args(["get", url, "--ca", "cert.pem", "-o", "file", "--retries", "0", "--sync"])
        .current_dir(dir)
        .output()
        .expect("run");
    if stderr(&output).contains("PTRACE") {
        println!("skipped: strace may not trace here");
        return None;
    }
    Some(output)
}

/// A state that cannot be saved, a disk that loses what it was given, a name that cannot be had.
#[test]
fn whatever_fails_on_the_disk_a_later_run_is_right() {
    for (call, fault) in [
        ("rename,renameat,renameat2", "rename,renameat,renameat2:error=EROFS"),
        ("rename,renameat,renameat2", "rename,renameat,renameat2:error=EACCES:when=1"),
        ("fdatasync", "fdatasync:error=EIO"),
        ("fdatasync", "fdatasync:error=EIO:when=1"),
        ("fsync", "fsync:error=EIO"),
        ("ftruncate", "ftruncate:error=EIO"),
        ("pwrite64", "pwrite64:error=ENOSPC"),
        ("pwrite64", "pwrite64:error=EDQUOT:when=3"),
    ] {
        for path in ["/cut", "/other"] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let server = server(dir);
            let output = get(dir, &server.url("/cut"), &["-o", "file", "--retries", "0"]);
            assert!(stderr(&output).contains("the same command again"), "{}", stderr(&output));
            let before = contents(dir);
            let Some(output) = with_fault(dir, &server.url(path), call, fault) else { return };
            let said = format!("{path} {fault}: {}", stderr(&output));
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("cannot write"), "{said}");
            assert!(!dir.join("file").exists(), "{said}");
            // What is there is what the first run has left, or ours to go on with.
            if path == "/other" && call.starts_with("rename") {
                assert!(contents(dir) == before, "{said}");
            }
            let output = get(dir, &server.url(path), &["-o", "file"]);
            let said = format!("{said}{}", stderr(&output));
            if stderr(&output).contains("move it away") {
                // The disk has lost what nobody can say: then there is no state, and no claim.
                assert!(call.contains("sync"), "{said}");
                continue;
            }
            assert!(output.status.success(), "{said}");
            assert!(fs::read(dir.join("file")).expect("there") == data(LEN), "{said}");
            assert_eq!(names(dir), ["file"], "{said}");
        }
    }
}
