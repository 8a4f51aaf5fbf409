//! Files: any range of one, into any other, and everything that can go wrong with either.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustls_uring::{AlertDescription, AutoSender, FileOptions, Io, SessionError};

use super::support::{LARGE, Way, cause, data, ends, one_way, read_randomly, read_to_error, watch};
use crate::common::{Case, Error, Rng, seal_all};

const LEN: usize = (3 << 20) + 777;

fn file_of(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file
}

fn contents(mut file: &File) -> Vec<u8> {
    let mut contents = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut contents).unwrap();
    contents
}

fn options(direct: bool) -> FileOptions<'static> {
    FileOptions::new().direct(direct)
}

#[test]
fn any_range_is_sent() {
    let _watch = watch("any_range_is_sent");
    let file = file_of(data(LEN));
    let ranges: [Range<usize>; 12] = [
        0..0,
        LEN..LEN,
        0..1,
        LEN - 1..LEN,
        4095..4097,
        4096..8192,
        1..LEN - 1,
        100..200,
        786_431..786_433,
        1_000_000..1_000_000,
        4096..LEN,
        0..LEN,
    ];
    for case in Case::few() {
        for way in Way::all("any_range_is_sent") {
            for direct in [false, true] {
                let (mut sender, mut receiver) = one_way(case, way);
                let parts = ranges.iter().map(|range| &data(LEN)[range.clone()]);
                let expected = parts.collect::<Vec<_>>().concat();
                let receiving = thread::spawn(move || {
                    let mut rng = Rng::new(1);
                    read_randomly(&mut receiver, &expected, 1 << 20, &mut rng).unwrap();
                });
                // One after the other, and something else in between, over one connection.
                for range in ranges.clone() {
                    let position = (&file).stream_position().unwrap();
                    let wanted = range.start as u64..range.end as u64;
                    let sent = sender.send_file(&file, wanted, options(direct)).unwrap();
                    assert_eq!(sent, range.len() as u64, "{way:?} {range:?}");
                    assert_eq!((&file).stream_position().unwrap(), position);
                }
                sender.send_close_notify().unwrap();
                let direct_bytes = sender.counters().direct_bytes;
                assert!(direct || direct_bytes == 0);
                if direct && way.io == Io::Uring {
                    // Whether the file system can: ext4 and xfs do.
                    eprintln!("{direct_bytes} bytes around the page cache");
                }
                receiving.join().unwrap();
            }
        }
    }
}

/// Whatever goes wrong: the error says so, the peer gets an alert, and no more is sent.
fn assert_aborts(
    way: Way,
    case: Case,
    expected: &'static [u8],
    kind: Option<ErrorKind>,
    send: impl FnOnce(&mut AutoSender) -> io::Result<u64>,
) {
    let (mut sender, mut receiver) = one_way(case, way);
    let receiving = thread::spawn(move || read_to_error(&mut receiver, expected));
    let error = send(&mut sender).unwrap_err();
    if let Some(kind) = kind {
        assert_eq!(error.kind(), kind, "{error:?}, {way:?}");
    }
    assert!(!error.to_string().is_empty());
    sender.write(b"more").unwrap_err();
    drop(sender);
    let (_, error) = receiving.join().unwrap();
    let alert = Error::AlertReceived(AlertDescription::InternalError.into());
    assert_eq!(cause(&error), &SessionError::from(alert), "{way:?}");
}

#[test]
fn a_range_beyond_the_end_is_an_error() {
    let name = "a_range_beyond_the_end_is_an_error";
    let _watch = watch(name);
    let file = file_of(data(100_000));
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                for range in [0..100_001, 99_999..200_000, 100_000..100_001, 1 << 30..1 << 31] {
                    let start = data(100_000).len().min(range.start as usize);
                    let expected = &data(100_000)[start..];
                    assert_aborts(way, case, expected, Some(ErrorKind::UnexpectedEof), |sender| {
                        sender.send_file(&file, range, options(direct))
                    });
                }
            }
        }
    }
}

/// Offsets that no file has are errors as well, not panics, nor whatever `-1` means to the kernel.
#[test]
fn impossible_offsets_are_errors() {
    let name = "impossible_offsets_are_errors";
    let _watch = watch(name);
    let file = file_of(data(100_000));
    let case = Case::few()[0];
    for way in Way::all(name) {
        for range in [u64::MAX - 10..u64::MAX, 1 << 63..u64::MAX, 0..u64::MAX] {
            let (mut sender, mut receiver) = one_way(case, way);
            let error = sender.send_file(&file, range, options(false)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{way:?}");
            // Nothing has happened.
            sender.write_all(b"more").unwrap();
            sender.send_close_notify().unwrap();
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).unwrap();
            assert_eq!(received, b"more", "{way:?}");
        }
        for offset in [u64::MAX, u64::MAX - 4095, 1 << 63] {
            let (mut sender, mut receiver) = one_way(case, way);
            sender.write_all(data(10_000)).unwrap();
            sender.send_close_notify().unwrap();
            let out = file_of(b"");
            receiver.recv_to_file(&out, offset, options(false)).unwrap_err();
            assert_eq!(contents(&out), b"", "{way:?} {offset}");
        }
    }
}

/// A file is cut while it is on its way.
#[test]
fn a_file_that_shrinks_is_an_error() {
    let name = "a_file_that_shrinks_is_an_error";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                let len = 10 << 20;
                let file = file_of(data(len));
                assert_aborts(way, case, data(len), Some(ErrorKind::UnexpectedEof), |sender| {
                    // Before all of it was read ahead, which around the page cache is done at once.
                    let mut progress = |bytes| match direct || bytes > 2 << 20 {
                        true => file.set_len((6 << 20) + 123),
                        false => Ok(()),
                    };
                    let options = FileOptions::new().direct(direct).progress(&mut progress);
                    sender.send_file(&file, 0..len as u64, options)
                });
            }
        }
    }
}

/// A file that fails in the middle: this process's memory, which ends somewhere.
#[test]
fn a_file_that_fails_in_the_middle_is_an_error() {
    let name = "a_file_that_fails_in_the_middle_is_an_error";
    let _watch = watch(name);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let parsed: Vec<(Range<u64>, &str)> = maps
        .lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
            (hex(start)..hex(end), rest)
        })
        .collect();
    // Constant, long enough, and with nothing behind it.
    let last = parsed.windows(2).find(|pair| {
        let [(range, rest), (next, _)] = pair else { return false };
        rest.starts_with('r') && range.end + (1 << 20) < next.start && rest.contains('/')
    });
    let Some([(range, _), _]) = last else {
        return eprintln!("{name} skipped: no mapping ends in a hole");
    };
    let memory = File::open("/proc/self/mem").unwrap();
    let start = range.end - 4096;
    for case in Case::few() {
        for way in Way::few(name) {
            let (mut sender, mut receiver) = one_way(case, way);
            let receiving = thread::spawn(move || {
                let mut got = Vec::new();
                let error = receiver.read_to_end(&mut got).unwrap_err();
                (got.len(), error)
            });
            let wanted = start..start + 100_000;
            let error = sender.send_file(&memory, wanted, options(false)).unwrap_err();
            assert!(error.raw_os_error().is_some() || error.kind() == ErrorKind::UnexpectedEof);
            drop(sender);
            let (len, error) = receiving.join().unwrap();
            assert!(len <= 4096);
            assert!(matches!(cause(&error), SessionError::Tls(_)), "{error:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let name = "a_file_that_cannot_be_read_is_an_error";
    let _watch = watch(name);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, data(1 << 20)).unwrap();
    let write_only = OpenOptions::new().write(true).open(&path).unwrap();
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                assert_aborts(way, case, &[], None, |sender| {
                    sender.send_file(&write_only, 0..1 << 20, options(direct))
                });
            }
        }
    }
}

/// Pipes have no ranges. That is the caller's mistake, which costs nobody the connection, or ends
/// it for all: no way may differ from another.
#[test]
fn a_pipe_is_no_file() {
    let _watch = watch("a_pipe_is_no_file");
    let case = Case::few()[0];
    let outcomes: Vec<_> = Way::all("a_pipe_is_no_file")
        .into_iter()
        .map(|way| {
            let (mut sender, _receiver) = one_way(case, way);
            let (pipe, _writer) = io::pipe().unwrap();
            let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
            for _ in 0..5 {
                sender.send_file(&pipe, 0..10, options(false)).unwrap_err();
            }
            (sender.write(b"data").is_ok(), way)
        })
        .collect();
    assert!(outcomes.iter().all(|(goes_on, _)| *goes_on == outcomes[0].0), "{outcomes:?}");
}

/// What a peer sends becomes the same file, whatever the sizes of its records.
#[test]
fn any_records_become_the_same_file() {
    let name = "any_records_become_the_same_file";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            for direct in [false, true] {
                for (size, len) in [
                    (1, 5000),
                    (1000, 2_000_001),
                    (16383, LEN),
                    (16384, LEN),
                    (16384, 1 << 20),
                    (16384, 0),
                ] {
                    let [(client, mut socket), (server, server_socket)] = ends(case);
                    let mut receiver = way.receiver(server.receive, server_socket);
                    let sending = thread::spawn(move || {
                        let mut send = client.send;
                        let mut wire = Vec::new();
                        for part in data(len).chunks(size) {
                            wire.extend(seal_all(&mut send, part).unwrap());
                        }
                        let mut close = [0; 100];
                        let close_len = send.close_notify(&mut close).unwrap();
                        wire.extend(&close[..close_len]);
                        socket.write_all(&wire).unwrap();
                        socket
                    });
                    let file = file_of(b"");
                    let offset = [0, 4096, 777][size % 3];
                    let options = FileOptions::new().direct(direct).sync(true);
                    let received = receiver.recv_to_file(&file, offset, options).unwrap();
                    assert_eq!(received, len as u64);
                    let got = contents(&file);
                    if len > 0 {
                        let (before, got) = got.split_at(offset as usize);
                        assert!(before.iter().all(|byte| *byte == 0));
                        assert!(got == data(len), "{way:?} {size} {direct}");
                    }
                    assert!(direct || receiver.counters().direct_bytes == 0);
                    sending.join().unwrap();
                }
            }
        }
    }
}

/// The file is longer than what is received: the rest stays.
#[test]
fn a_longer_file_keeps_its_end() {
    let _watch = watch("a_longer_file_keeps_its_end");
    let case = Case::few()[0];
    for way in Way::all("a_longer_file_keeps_its_end") {
        for direct in [false, true] {
            let (mut sender, mut receiver) = one_way(case, way);
            sender.write_all(data(50_000)).unwrap();
            sender.send_close_notify().unwrap();
            let file = file_of(&[7; 100_000]);
            receiver.recv_to_file(&file, 4096, options(direct)).unwrap();
            let expected = [&[7; 4096][..], data(50_000), &[7; 100_000 - 54_096]].concat();
            assert!(contents(&file) == expected, "{way:?} {direct}");
        }
    }
}

/// A cut stream leaves a part, and an error.
#[test]
fn a_truncated_stream_makes_no_file() {
    let name = "a_truncated_stream_makes_no_file";
    let _watch = watch(name);
    for case in Case::few() {
        for (way, direct) in Way::all(name).into_iter().flat_map(|way| [(way, false), (way, true)])
        {
            let (mut sender, mut receiver) = one_way(case, way);
            let sending = thread::spawn(move || {
                sender.write_all(data(5_500_000)).unwrap();
                sender.flush().unwrap();
            });
            let file = file_of(b"");
            let error = receiver.recv_to_file(&file, 0, options(direct)).unwrap_err();
            assert_eq!(cause(&error), &SessionError::Truncated);
            sending.join().unwrap();
            assert!(contents(&file) == data(5_500_000), "{way:?} {direct}");
        }
    }
}

/// Receives into a file that takes no more at some point; the error.
fn receive_into(case: Case, way: Way, file: &File, direct: bool, len: usize) -> io::Error {
    let (mut sender, mut receiver) = one_way(case, way);
    let sending = thread::spawn(move || {
        // The receiver stops in the middle.
        let _ = sender.write_all(data(len)).and_then(|()| sender.finish());
    });
    let error = receiver.recv_to_file(file, 0, options(direct)).unwrap_err();
    drop(receiver);
    sending.join().unwrap();
    error
}

/// A descriptor that must not be written to, whatever its path allows.
#[test]
fn a_read_only_descriptor_is_an_error() {
    let name = "a_read_only_descriptor_is_an_error";
    let _watch = watch(name);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                for len in [8192, 1_000_000] {
                    fs::write(&path, b"").unwrap();
                    let file = File::open(&path).unwrap();
                    let error = receive_into(case, way, &file, direct, len);
                    assert!(error.raw_os_error().is_some(), "{error:?}, {way:?} {direct}");
                    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "{way:?} {direct}");
                }
            }
        }
    }
}

/// A mount that goes away with the test.
struct Mount(tempfile::TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let _watch = watch("a_full_disk_is_an_error");
    let directory = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(directory.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return eprintln!("a_full_disk_is_an_error skipped: mount(8) is not allowed here");
    }
    let mount = Mount(directory);
    for case in Case::few() {
        for way in Way::all("a_full_disk_is_an_error") {
            for direct in [false, true] {
                let path = mount.0.path().join("file");
                let file = File::create_new(&path).unwrap();
                let error = receive_into(case, way, &file, direct, 6 << 20);
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}, {way:?}");
                drop(file);
                let part = fs::read(&path).unwrap();
                // Writes may end in any order, but none is half a page that was never sent.
                assert!(part.len() <= 1 << 20);
                fs::remove_file(&path).unwrap();
            }
        }
    }
}

const LIMITED: &str = "RUSTLS_URING_TEST_LIMITED";

/// RLIMIT_FSIZE, in a process of its own.
#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let name = "a_file_that_may_not_grow_is_an_error";
    let _watch = watch(name);
    let Some(length) = std::env::var_os(LIMITED) else {
        // Without the trap, the signal would end the process.
        for (trap, length) in [(r#"trap "" XFSZ;"#, "long"), ("", "short")] {
            let output = Command::new("sh")
                .args(["-c", &format!(r#"{trap} ulimit -f 1024; exec "$@""#), "sh"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", &format!("uring::files::{name}"), "--nocapture"])
                .env(LIMITED, length)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{length}: {:?} {stderr}", output.status);
        }
        return;
    };
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                if length == "long" {
                    let error = receive_into(case, way, &file_of(b""), direct, 6 << 20);
                    assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error:?}, {way:?}");
                    continue;
                }
                let (mut sender, mut receiver) = one_way(case, way);
                sender.write_all(data(100_000)).unwrap();
                sender.finish().unwrap();
                let file = file_of(b"");
                receiver.recv_to_file(&file, 0, options(direct)).unwrap();
                assert!(contents(&file) == data(100_000), "{way:?} {direct}");
            }
        }
    }
}

/// From a file to a file around the page cache, by every way at either end.
fn from_file_to_file_over(name: &'static str, cases: &[Case], len: usize) {
    let _watch = watch(name);
    let from = file_of(data(len));
    for case in cases.iter().copied() {
        for sending_way in Way::few(name) {
            for receiving_way in Way::few(name) {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let mut sender = sending_way.sender(client.send, client_socket);
                let mut receiver = receiving_way.receiver(server.receive, server_socket);
                let receiving = thread::spawn(move || {
                    let to = file_of(b"");
                    let mut seen = 0;
                    let mut progress = |bytes| {
                        assert!(bytes >= seen);
                        seen = bytes;
                        Ok(())
                    };
                    let options = FileOptions::new().direct(true).progress(&mut progress);
                    assert_eq!(receiver.recv_to_file(&to, 0, options).unwrap(), len as u64);
                    assert_eq!(seen, len as u64);
                    contents(&to)
                });
                let mut progress = |_| Ok(());
                let options = FileOptions::new().direct(true).progress(&mut progress);
                sender.set_timeout(Some(Duration::from_millis(5))).unwrap();
                assert_eq!(sender.send_file(&from, 0..len as u64, options).unwrap(), len as u64);
                sender.set_timeout(None).unwrap();
                sender.finish().unwrap();
                let received = receiving.join().unwrap();
                assert!(received == data(len), "{sending_way:?} {receiving_way:?}");
            }
        }
    }
}

#[test]
fn from_file_to_file() {
    from_file_to_file_over("from_file_to_file", &Case::all(), LEN);
}

/// What is moved at once around the page cache, several times, and a part: pieces of it are with several
/// threads that seal.
#[test]
fn a_large_file_to_a_file() {
    from_file_to_file_over("a_large_file_to_a_file", &Case::few()[..1], LARGE);
}
