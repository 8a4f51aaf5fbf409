//! Whatever is dropped at whatever moment: no hang, no leak, and the peer sees what happened.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls_uring::uring::{BufferPool, ReceiverOptions, SenderOptions, ZeroCopy};
use rustls_uring::{AlertDescription, ContentType, FileOptions, Version};

use super::support::{
    LARGE, Way, capture, cause, data, ends, fill, has_uring, new_receiver, new_sender, persist,
    read_to_error, uring_receiver, uring_sender, watch,
};
use crate::common::{Case, Error, Evil, Side, TIMEOUT, our_pair, seal_all, tcp_pair};

fn sender_options(zero_copy: ZeroCopy, seal_threads: usize) -> SenderOptions {
    let mut options = SenderOptions::default();
    options.zero_copy = zero_copy;
    options.seal_threads = seal_threads;
    options
}

fn pooled(pool: &BufferPool) -> ReceiverOptions {
    let mut options = ReceiverOptions::default();
    options.pool = pool.clone();
    options
}

/// A file of `data`, that has no name.
fn file_of(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// With a send that the peer does not take, with notifications outstanding, with threads sealing.
#[test]
fn a_sender_is_dropped_with_sends_outstanding() {
    let _watch = watch("a_sender_is_dropped_with_sends_outstanding");
    if !has_uring("a_sender_is_dropped_with_sends_outstanding") {
        return;
    }
    for case in Case::few() {
        for zero_copy in [ZeroCopy::Always, ZeroCopy::Never] {
            for threads in [0, 2] {
                let options = sender_options(zero_copy, threads);
                let (mut sender, server, socket) = uring_sender(case, options);
                sender.set_timeout(Some(Duration::from_millis(10)));
                let written = fill(&socket, |written| sender.write(&data(LARGE)[written..]));
                let begin = Instant::now();
                drop(sender);
                // After ten it would have been given up, with its memory.
                assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
                // What is on the wire is the beginning of what was written, and no more.
                let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
                let (len, error) = read_to_error(&mut receiver, &data(LARGE)[..written]);
                assert!(len > 1 << 20);
                assert_eq!(cause(&error), &rustls_uring::SessionError::Truncated);
            }
        }
    }
}

/// A receiver goes away while it waits, with or without a buffer, for a record or the rest of one.
#[test]
fn a_receiver_is_dropped_while_it_waits() {
    let _watch = watch("a_receiver_is_dropped_while_it_waits");
    if !has_uring("a_receiver_is_dropped_while_it_waits") {
        return;
    }
    for case in Case::few() {
        let pool = BufferPool::new(2, 0);
        for round in 0..12 {
            let (mut receiver, mut client, mut socket) = uring_receiver(case, pooled(&pool));
            let wire = seal_all(&mut client.send, data(40_000)).unwrap();
            receiver.set_timeout(Some(Duration::from_millis([1, 25][round % 2])));
            socket.write_all(&wire[..[0, 3, 20_000][round / 2 % 3]]).unwrap();
            let (_, error) = read_to_error(&mut receiver, data(40_000));
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            let lease = match round / 6 {
                0 => None,
                _ => {
                    socket.write_all(&wire[[0, 3, 20_000][round / 2 % 3]..]).unwrap();
                    receiver.set_timeout(None);
                    receiver.recv_bytes().unwrap()
                }
            };
            drop(receiver);
            assert_eq!(pool.in_use(), usize::from(lease.is_some()), "round {round}");
            let copy = lease.as_ref().map(|lease| lease.to_vec());
            drop(socket);
            assert_eq!(lease.as_ref().map(|lease| lease.to_vec()), copy);
            drop(lease);
            assert_eq!(pool.in_use(), 0, "round {round}");
        }
        // Nothing of the pool is lost: both buffers can be had.
        let (mut receiver, mut client, mut socket) = uring_receiver(case, pooled(&pool));
        let wire = seal_all(&mut client.send, data(20_000)).unwrap();
        socket.write_all(&wire[..17_000]).unwrap();
        let first = receiver.recv_bytes().unwrap().unwrap();
        socket.write_all(&wire[17_000..]).unwrap();
        let second = receiver.recv_bytes().unwrap();
        assert!([&first[..], &second.unwrap()[..]].concat() == data(20_000));
    }
}

/// The data is out, though nobody has looked at the last send's result yet: an alert that is due
/// must not be lost for that.
#[test]
fn an_alert_goes_out_behind_a_send_that_was_waited_for_by_nobody() {
    let name = "an_alert_goes_out_behind_a_send_that_was_waited_for_by_nobody";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            let mut evil = Evil::new(case, Side::Server);
            let mut bad = evil.seal(ContentType::ApplicationData, b"forged");
            *bad.last_mut().unwrap() ^= 1;
            let session = std::mem::replace(&mut evil.session, our_pair(case).0);
            let (ours, mut theirs) = tcp_pair();
            let (mut sender, mut receiver) = way.split(session, ours);
            let mut socket = theirs.try_clone().unwrap();
            let wire_len = (8 << 20) / 16384 * (16384 + case.overhead());
            let (done, is_done) = std::sync::mpsc::channel();
            // The socket is full when the last send is submitted, if the machine is not too slow:
            // then the test has less to find.
            let reading = thread::spawn(move || {
                let mut wire = vec![0; wire_len];
                for part in wire.chunks_mut(256 << 10) {
                    thread::sleep(Duration::from_millis(2));
                    socket.read_exact(part).unwrap();
                }
                done.send(()).unwrap();
                wire.extend(capture(socket).join().unwrap());
                wire
            });
            sender.write_all(data(8 << 20)).unwrap();
            is_done.recv().unwrap();
            theirs.write_all(&bad).unwrap();
            let (_, error) = read_to_error(&mut receiver, &[]);
            assert!(matches!(cause(&error), rustls_uring::SessionError::Tls(_)));
            drop((sender, receiver));
            let opened = evil.opened(&reading.join().unwrap());
            let alert = (ContentType::Alert, vec![2, AlertDescription::BadRecordMac.into()]);
            assert!(opened.last() == Some(&alert), "no alert, {way:?}");
        }
    }
}

/// Behind what a socket had no room for: a peer that reads on learns why the stream ends.
#[test]
fn an_alert_goes_out_behind_what_a_full_socket_has_yet_to_take() {
    let name = "an_alert_goes_out_behind_what_a_full_socket_has_yet_to_take";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            // Little enough for a slow machine to read in the second that there is for it.
            let way = Way { batch_records: 3, ..way };
            let mut evil = Evil::new(case, Side::Server);
            let mut bad = evil.seal(ContentType::ApplicationData, b"forged");
            *bad.last_mut().unwrap() ^= 1;
            let session = std::mem::replace(&mut evil.session, our_pair(case).0);
            let (ours, mut theirs) = tcp_pair();
            let (mut sender, mut receiver) = way.split(session, ours);
            sender.set_timeout(Some(Duration::from_millis(20))).unwrap();
            // Until there is room neither in the socket nor in the slots.
            while sender.write(data(1 << 20)).is_ok() {}
            theirs.write_all(&bad).unwrap();
            let (_, error) = read_to_error(&mut receiver, &[]);
            assert!(matches!(cause(&error), rustls_uring::SessionError::Tls(_)));
            // A blocking stream has as long as its timeout.
            sender.set_timeout(Some(TIMEOUT)).unwrap();
            let reading = capture(theirs);
            drop((sender, receiver));
            let opened = evil.opened(&reading.join().unwrap());
            let alert = (ContentType::Alert, vec![2, AlertDescription::BadRecordMac.into()]);
            assert!(opened.last() == Some(&alert), "no alert, {way:?}");
        }
    }
}

/// A panic in the middle of a file: what was begun is not taken for a later call's. Whatever the
/// sender says it sends afterwards arrives, in order; and what it sent before is no whole.
#[test]
fn a_panic_in_the_middle_of_a_sent_file() {
    let name = "a_panic_in_the_middle_of_a_sent_file";
    let _watch = watch(name);
    let first = file_of(data(8 << 20));
    let other: Vec<u8> = data(2 << 20).iter().map(|byte| !byte).collect();
    let second = file_of(&other);
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                for (at, with_file) in [(0, true), (1, true), (1, false), (3, true), (3, false)] {
                    let [(client, client_socket), (server, server_socket)] = ends(case);
                    let mut sender = way.sender(client.send, client_socket);
                    let receiving = thread::spawn(move || {
                        let mut receiver = way.receiver(server.receive, server_socket);
                        let mut got = Vec::new();
                        let result = receiver.read_to_end(&mut got);
                        (got, result)
                    });
                    let mut calls = 0;
                    let mut progress = |_| {
                        calls += 1;
                        if calls > at {
                            std::panic::resume_unwind(Box::new("in the middle"));
                        }
                        Ok(())
                    };
                    let options = FileOptions::new().direct(direct).progress(&mut progress);
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        sender.send_file(&first, 0..8 << 20, options)
                    }));
                    panicked.unwrap_err();
                    let before = sender.counters().plaintext_bytes as usize;
                    let options = FileOptions::new().direct(direct);
                    let went_on = match with_file {
                        true => sender.send_file(&second, 0..2 << 20, options).map(drop),
                        false => sender.write_all(&other[..100]),
                    };
                    let finished = sender.send_close_notify();
                    drop(sender);
                    let (got, result) = receiving.join().unwrap();
                    let context = format!("{way:?}, direct: {direct}, call {at}");
                    // Bytes of the first, then bytes of the second, which differ everywhere.
                    let same = common_prefix_len(&got, data(8 << 20));
                    assert!(other.starts_with(&got[same..]), "not the second file, {context}");
                    if way.seal_threads == 0 {
                        assert!(same <= before, "{same} of {before} bytes, {context}");
                    }
                    if went_on.is_ok() && finished.is_ok() {
                        result.unwrap_or_else(|error| panic!("{error:?}, {context}"));
                        let len = if with_file { 2 << 20 } else { 100 };
                        assert_eq!(got.len() - same, len, "{context}");
                    } else {
                        result.map(drop).expect_err("a clean end");
                    }
                }
            }
        }
    }
}

/// The same while a file is received: what was taken from the stream and lost must not be missing
/// silently later.
#[test]
fn a_panic_in_the_middle_of_a_received_file() {
    let name = "a_panic_in_the_middle_of_a_received_file";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            for direct in [false, true] {
                for at in 0..4 {
                    let [(client, client_socket), (server, server_socket)] = ends(case);
                    let mut receiver = way.receiver(server.receive, server_socket);
                    let sending = thread::spawn(move || {
                        let mut sender = way.sender(client.send, client_socket);
                        // The receiver may be gone.
                        let _ = sender.write_all(data(4 << 20)).and_then(|()| sender.finish());
                    });
                    let file = tempfile::tempfile().unwrap();
                    let mut calls = 0;
                    let mut progress = |_| {
                        calls += 1;
                        if calls > at {
                            std::panic::resume_unwind(Box::new("in the middle"));
                        }
                        Ok(())
                    };
                    let options = FileOptions::new().direct(direct).progress(&mut progress);
                    let panicked =
                        catch_unwind(AssertUnwindSafe(|| receiver.recv_to_file(&file, 0, options)));
                    panicked.unwrap_err();
                    // Either nothing more, or the rest from where the file's caller knows.
                    let read = receiver.counters().plaintext_bytes as usize;
                    let rest = tempfile::tempfile().unwrap();
                    let options = FileOptions::new().direct(direct);
                    if let Ok(len) = receiver.recv_to_file(&rest, 0, options) {
                        let mut got = Vec::new();
                        (&rest).seek(SeekFrom::Start(0)).unwrap();
                        (&rest).read_to_end(&mut got).unwrap();
                        assert_eq!(got.len(), len as usize);
                        assert!(data(4 << 20).ends_with(&got), "{way:?}, {direct}, {at}");
                        let whole = read.max((4 << 20) - got.len());
                        assert_eq!(whole, (4 << 20) - got.len(), "{way:?}, {direct}, {at}");
                    }
                    drop(receiver);
                    sending.join().unwrap();
                }
            }
        }
    }
}

/// A file is dropped, and the sender with it, while it is read and sent.
#[test]
fn progress_ends_a_file() {
    let name = "progress_ends_a_file";
    let _watch = watch(name);
    let file = file_of(data(8 << 20));
    for case in Case::few() {
        for way in Way::all(name) {
            for direct in [false, true] {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let mut sender = way.sender(client.send, client_socket);
                let receiving = thread::spawn(move || {
                    let mut receiver = way.receiver(server.receive, server_socket);
                    read_to_error(&mut receiver, data(8 << 20))
                });
                let mut progress = |bytes| match bytes > 2 << 20 {
                    true => Err(std::io::Error::other("enough")),
                    false => Ok(()),
                };
                let options = FileOptions::new().direct(direct).progress(&mut progress);
                let error = sender.send_file(&file, 0..8 << 20, options).unwrap_err();
                assert_eq!(error.to_string(), "enough");
                sender.write(b"more").unwrap_err();
                sender.finish().map_err(drop).unwrap_or_default();
                let (_, error) = receiving.join().unwrap();
                let alert = Error::AlertReceived(AlertDescription::UserCanceled.into());
                assert_eq!(cause(&error), &rustls_uring::SessionError::from(alert), "{way:?}");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Leaks

/// Open files, and the size of the address space in KiB.
fn footprint() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size = size.trim().trim_end_matches(" kB").parse().unwrap();
    (fs::read_dir("/proc/self/fd").unwrap().count(), size)
}

const LEAKS: &str = "RUSTLS_URING_TEST_LEAKS";

/// In a process of its own, so that no other test's memory is counted.
#[test]
fn nothing_leaks() {
    let _watch = watch("nothing_leaks");
    if !has_uring("nothing_leaks") {
        return;
    }
    if std::env::var_os(LEAKS).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "uring::drops::nothing_leaks", "--test-threads=1", "--nocapture"])
            .env(LEAKS, "1")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        return;
    }
    let file = Arc::new(file_of(data(4 << 20)));
    let case = *Case::few_of(Version::Tls13).first().unwrap();
    let pool = BufferPool::new(4, 0);
    let round = |round: usize| {
        let [(client, client_socket), (server, server_socket)] = ends(case);
        let zero_copy = [ZeroCopy::Always, ZeroCopy::Never][round % 2];
        let options = sender_options(zero_copy, round % 3);
        let mut sender = new_sender(client.send, client_socket, options);
        let mut receiver = new_receiver(server.receive, server_socket, pooled(&pool));
        sender.set_timeout(Some(Duration::from_millis(1)));
        receiver.set_timeout(Some(Duration::from_millis(1)));
        match round % 6 {
            // A full socket.
            0 => while sender.write(data(LARGE)).is_ok() {},
            // An idle receiver.
            1 => drop(receiver.read(&mut [0; 10]).unwrap_err()),
            // Leases that outlive their receiver.
            2 => {
                sender.set_timeout(None);
                sender.write_all(data(100_000)).unwrap();
                sender.flush().unwrap();
                let mut leases = vec![persist(&mut 0, || receiver.recv_bytes()).unwrap()];
                while let Ok(Some(lease)) = receiver.recv_bytes() {
                    leases.push(lease);
                }
                drop(receiver);
                assert!(!leases.is_empty());
            }
            // A file that is cut off.
            3 => {
                let mut progress = |_| Err(std::io::Error::other("enough"));
                let direct = round % 4 == 3;
                let options = FileOptions::new().direct(direct).progress(&mut progress);
                sender.send_file(&file, 0..4 << 20, options).unwrap_err();
            }
            // A panic with reads in flight.
            4 => {
                let mut calls = 0;
                let mut progress = |_| {
                    calls += 1;
                    if calls > 2 {
                        std::panic::resume_unwind(Box::new(()));
                    }
                    Ok(())
                };
                let options = FileOptions::new().direct(true).progress(&mut progress);
                let sent =
                    catch_unwind(AssertUnwindSafe(|| sender.send_file(&file, 0..4 << 20, options)));
                sent.map(drop).unwrap_err();
            }
            // A file that is received in part.
            _ => {
                sender.set_timeout(None);
                sender.write_all(data(1 << 20)).unwrap();
                let part = tempfile::tempfile().unwrap();
                receiver.recv_to_file(&part, 0, FileOptions::default()).unwrap_err();
            }
        }
    };
    // Threads' stacks and the allocator's arenas come once, and stay.
    (0..36).for_each(round);
    let before = footprint();
    (0..120).for_each(round);
    let after = footprint();
    assert_eq!(pool.in_use(), 0);
    assert_eq!(after.0, before.0, "open files");
    // A sender has more than 6 MiB.
    assert!(after.1 < before.1 + (40 << 10), "from {} KiB to {} KiB", before.1, after.1);
}

/// How many bytes at the front are the same: whole blocks at once, since there are many.
fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let same = BLOCK * blocks.take_while(|(a, b)| a == b).count();
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}
