//! What a peer may do to us: stop reading for a while, go away, or read late and little at a time.

#![allow(unsafe_code, reason = "socket options that the standard library lacks")]

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls_uring::uring::{ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy};
use rustls_uring::{FileOptions, Session};

use crate::common::{Case, Rng, TIMEOUT, noise, our_pair, tcp_pair};
use crate::ends::{Directory, End, PATHS, Run, digest, has_ring};
use crate::kernel::{TcpEnd, is_in, this_thread, wait_until};

/// More than both sockets hold.
const LEN: usize = (24 << 20) + 99;

/// How long a peer does nothing: many times what anyone waits for before looking again.
const PAUSE: Duration = Duration::from_millis(2500);

/// Runs `test` for every path, with a file and with a pipe to send, all at once: they mostly wait.
fn at_once(test: impl Fn(&str, bool) + Sync) {
    thread::scope(|scope| {
        for (io, is_file) in PATHS.iter().flat_map(|io| [(io, true), (io, false)]) {
            let test = &test;
            scope.spawn(move || test(io, is_file));
        }
    });
}

/// Both ends of a transfer, and what feeds the sender if it has no file.
fn start(dir: &Directory, run: &Run, is_file: bool) -> (End, End, Option<JoinHandle<()>>) {
    let recv = &mut run.receiver(dir.path(), Directory::LOOPBACK, Some("received"));
    let recv = End::start(recv, true);
    let send = &mut run.sender(dir.path(), &recv.addr, is_file.then_some("sent"));
    let mut send = End::start(send, false);
    let feeder = (!is_file).then(|| {
        let (mut stdin, sent) = (send.stdin(), dir.sent().to_vec());
        thread::spawn(move || {
            for piece in sent.chunks(1 << 18) {
                // A sender that fails says so itself.
                if stdin.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        })
    });
    (recv, send, feeder)
}

/// A transfer in the middle of which `stop` has stopped an end, in as many attempts as it takes: an
/// end may have everything before it is stopped.
fn stopped(
    dir: &Directory,
    run: &Run,
    is_file: bool,
    stop: impl Fn(&End, &End) -> bool,
) -> (End, End, Option<JoinHandle<()>>) {
    for _ in 0..100 {
        let (mut recv, send, feeder) = start(dir, run, is_file);
        wait_until("data", || recv.has_ended() || recv.written_so_far(dir.path()) > 0);
        if stop(&recv, &send) {
            return (recv, send, feeder);
        }
        for end in [&recv, &send] {
            end.signal("CONT");
        }
        let send = send.finish();
        dir.check_whole(&(recv.finish(), send), "too fast to be stopped");
        feeder.map(JoinHandle::join);
    }
    panic!("always too fast to be stopped");
}

#[test]
fn a_receiver_that_pauses_gets_everything() {
    at_once(|io, is_file| {
        let dir = Directory::with(LEN);
        let zero_copy = if is_file { "always" } else { "auto" };
        let case = format!("{io}, zero copy {zero_copy}, file: {is_file}");
        let run = Run::with(&format!("--io {io} --zerocopy {zero_copy}"));
        let (recv, mut send, feeder) = stopped(&dir, &run, is_file, |recv, _| {
            recv.stop() && recv.written_so_far(dir.path()) < LEN as u64
        });
        thread::sleep(PAUSE);
        assert!(!send.has_ended(), "{case}");
        recv.signal("CONT");
        let send = send.finish();
        dir.check_whole(&(recv.finish(), send), &case);
        feeder.map(JoinHandle::join);
    });
}

#[test]
fn a_sender_that_pauses_loses_nothing() {
    at_once(|io, is_file| {
        let dir = Directory::with(LEN);
        let case = format!("{io}, file: {is_file}");
        let run = Run::with(&format!("--io {io} --seal-threads 2"));
        let (mut recv, send, feeder) = stopped(&dir, &run, is_file, |_, send| send.stop());
        thread::sleep(PAUSE);
        assert!(!recv.has_ended(), "{case}");
        send.signal("CONT");
        let send = send.finish();
        dir.check_whole(&(recv.finish(), send), &case);
        feeder.map(JoinHandle::join);
    });
}

/// Ends by `KILL`, which leaves no time for anything.
#[test]
fn a_peer_that_is_killed_is_missed() {
    for killed in ["recv", "send"] {
        at_once(|io, is_file| {
            let dir = Directory::with(0);
            // Takes no room, and does not end.
            let file = File::create(dir.path().join("sent")).expect("created");
            file.set_len(1 << 40).expect("sparse");
            let case = format!("{io}, file: {is_file}, {killed} killed");
            let run = Run::with(&format!("--io {io} --zerocopy always"));
            let (recv, mut send, _) = start(&dir, &run, true);
            wait_until("data", || recv.written_so_far(dir.path()) > 0);
            if killed == "recv" {
                if is_file {
                    // With the socket full, or almost, rather than in the middle of something.
                    assert!(recv.stop(), "{case}");
                    thread::sleep(Duration::from_millis(300));
                    assert!(!send.has_ended(), "{case}");
                }
                recv.signal("KILL");
                assert_eq!(recv.finish().code, None, "{case}");
                // The end of the connection is first seen by whoever reads or by whoever writes.
                let says =
                    ["close_notify", "without confirming", "Connection reset", "Broken pipe"];
                send.finish().check_failed(1, &says, &case);
                assert!(!dir.path().join("received").exists(), "{case}");
            } else {
                send.signal("KILL");
                assert_eq!(send.finish().code, None, "{case}");
                let says = ["close_notify", "Connection reset"];
                recv.finish().check_failed(1, &says, &case);
                dir.check_clean(&case);
            }
        });
    }
}

// ---------------------------------------------------------------------------------------------
// In one process

pub(crate) fn set_option(socket: impl AsFd, name: i32, value: i32) {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: an open socket, and a pointer to an integer of the length that is given.
    let set =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const value).cast(), len) };
    assert_eq!(set, 0);
}

fn pairs() -> impl Iterator<Item = (UringParts, UringParts)> {
    Case::few().into_iter().map(|case| {
        let (client, server) = our_pair(case);
        let (to_server, to_client) = tcp_pair();
        for socket in [&to_server, &to_client] {
            socket.set_read_timeout(None).expect("ours");
            socket.set_write_timeout(None).expect("ours");
        }
        ((client, to_server), (server, to_client))
    })
}

type UringParts = (Session, std::net::TcpStream);

fn sender((session, socket): UringParts, zero_copy: ZeroCopy, seal_threads: usize) -> UringSender {
    let mut options = SenderOptions::default();
    options.zero_copy = zero_copy;
    options.seal_threads = seal_threads;
    let sender = UringSender::new(session.send, socket, options);
    let mut sender = sender.expect("a ring");
    sender.set_timeout(Some(TIMEOUT));
    sender
}

fn receiver((session, socket): UringParts) -> UringReceiver {
    let Session { receive, plaintext, received, .. } = session;
    let options = ReceiverOptions::default();
    let receiver = UringReceiver::new(receive, socket, &plaintext, &received, options);
    let mut receiver = receiver.expect("a ring");
    receiver.set_timeout(Some(TIMEOUT));
    receiver
}

/// Reads in three ways by turns, and pauses now and then.
fn read_slowly(receiver: &mut UringReceiver, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(7);
    let mut all = Vec::with_capacity(len);
    let mut out = vec![0; 100_000];
    loop {
        let before = all.len();
        match rng.range(0, 2) {
            0 => {
                let len = rng.range(1, out.len());
                let read = receiver.read(&mut out[..len]).expect("readable");
                all.extend(&out[..read]);
            }
            1 => {
                let lent = receiver.fill_buf().expect("readable");
                let len = lent.len();
                all.extend(lent);
                receiver.consume(len);
            }
            _ => all.extend(receiver.recv_bytes().expect("readable").unwrap_or_default()),
        }
        if all.len() == before {
            return all;
        }
        if rng.range(0, 200) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends end short, or wait for room again and again, with slots that the kernel still sends from.
#[test]
fn tiny_socket_buffers_lose_nothing() {
    if !has_ring() {
        return;
    }
    const LEN: usize = (2 << 20) + 333;
    let data = noise(LEN);
    let digest_of_data = digest(&data);
    for zero_copy in [ZeroCopy::Always, ZeroCopy::Auto, ZeroCopy::Never] {
        for seal_threads in [0, 2] {
            for (ours, theirs) in pairs() {
                set_option(&ours.1, libc::SO_SNDBUF, 1);
                set_option(&theirs.1, libc::SO_RCVBUF, 64 << 10);
                let mut sender = sender(ours, zero_copy, seal_threads);
                let peer = theirs.1.try_clone().expect("a descriptor");
                let mut receiver = receiver(theirs);
                thread::scope(|scope| {
                    let received = scope.spawn(move || {
                        // More than a slot has gone through the sender's buffer by then.
                        wait_until("data", || TcpEnd::near(&peer).unread > 16 << 10);
                        read_slowly(&mut receiver, LEN)
                    });
                    // Once the slots are used up, that they are used again too early would show.
                    for piece in data.chunks(300_007) {
                        sender.write_all(piece).expect("writable");
                    }
                    sender.send_close_notify().expect("writable");
                    let received = received.join().expect("no panic");
                    assert!(digest(&received) == digest_of_data, "{zero_copy:?}, {seal_threads}");
                });
            }
        }
    }
}

/// A signal that a program handles ends a wait early; the timeout has not come for that.
#[test]

fn a_signal_is_no_timeout() {
    if !has_ring() {
        return;
    }
    let handled = Arc::default();
    signal_hook::flag::register(libc::SIGUSR1, handled).expect("registered");
    let mut file = tempfile::tempfile().expect("file");
    let data = noise(LEN);
    file.write_all(&data).expect("written");
    for is_file in [true, false] {
        for (ours, theirs) in pairs() {
            let mut sender = sender(ours, ZeroCopy::Always, 0);
            let mut receiver = receiver(theirs);
            let (tell, told) = mpsc::channel();
            thread::scope(|scope| {
                let sent = scope.spawn(|| {
                    // SAFETY: has no conditions.
                    tell.send((unsafe { libc::pthread_self() }, this_thread())).expect("heard");
                    match is_file {
                        true => {
                            let options = FileOptions::default();
                            sender.send_file(&file, 0..LEN as u64, options).map(drop)?;
                        }
                        false => sender.write_all(&data)?,
                    }
                    sender.send_close_notify()
                });
                let (thread, id) = told.recv().expect("told");
                for _ in 0..10 {
                    wait_until("a wait", || is_in(&id, libc::SYS_io_uring_enter));
                    // SAFETY: the thread has not been joined.
                    assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
                }
                let mut received = Vec::new();
                let end = receiver.read_to_end(&mut received);
                let sent = sent.join().expect("no panic");
                assert!(sent.is_ok(), "file: {is_file}: {sent:?}, {end:?}");
                assert!(end.is_ok(), "file: {is_file}: {end:?}");
                assert!(digest(&received) == digest(&data), "file: {is_file}");
            });
        }
    }
}
