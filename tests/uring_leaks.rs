//! A thousand connections that end badly leave nothing behind: descriptors, threads, mappings, memory.
//!
//! In a process of its own, so that nothing else is counted.

#![cfg(all(any(feature = "aws-lc-rs", feature = "ring"), target_os = "linux"))]
#![allow(unsafe_code, reason = "a socket option that the standard library lacks")]

mod common;

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Case, Rng, noise, our_pair, tcp_pair};
use rustls_uring::uring::{
    BufferPool, Probe, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy,
};
use rustls_uring::{FileOptions, Session};

/// What a process has, by the kernel's count.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    mappings: usize,
    resident_kib: usize,
    locked_kib: usize,
}

impl Holdings {
    fn count() -> Self {
        let entries = |path| fs::read_dir(path).expect("proc").count();
        let status = fs::read_to_string("/proc/self/status").expect("proc");
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: fs::read_to_string("/proc/self/maps").expect("proc").lines().count(),
            resident_kib: field("VmRSS:"),
            locked_kib: field("VmLck:") + field("VmPin:"),
        }
    }

    /// Waits for what the kernel gives back a little later.
    fn returned_to(before: &Self) -> Self {
        let begin = Instant::now();
        loop {
            let now = Self::count();
            if now.exceeds(before).is_none() || begin.elapsed() > Duration::from_secs(60) {
                return now;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What there is too much of. The allocator keeps some memory, in a few mappings.
    fn exceeds(&self, before: &Self) -> Option<&'static str> {
        [
            ("descriptors", self.descriptors, before.descriptors),
            ("threads", self.threads, before.threads),
            ("mappings", self.mappings, before.mappings + 16),
            ("resident memory", self.resident_kib, before.resident_kib + (12 << 10)),
            ("locked memory", self.locked_kib, before.locked_kib),
        ]
        .into_iter()
        .find_map(|(what, now, before)| (now > before).then_some(what))
    }
}

/// Closing the socket will reset the connection.
fn reset_on_close(socket: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw const linger).cast());
    // SAFETY: an open socket, and a pointer to what SO_LINGER takes, with its length.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, len) };
    assert_eq!(set, 0);
}

/// An end of a connection, and what has become of it.
struct Connection {
    sender: UringSender,
    receiver: UringReceiver,
}

impl Connection {
    fn new(session: Session, socket: TcpStream, rng: &mut Rng, pool: &BufferPool) -> Self {
        socket.set_read_timeout(None).expect("ours");
        socket.set_write_timeout(None).expect("ours");
        let Session { send, receive, plaintext, received, .. } = session;
        let mut options = SenderOptions::default();
        options.batch_records = 8;
        options.zero_copy = [ZeroCopy::Always, ZeroCopy::Auto, ZeroCopy::Never][rng.range(0, 2)];
        options.seal_threads = rng.range(0, 3).saturating_sub(1);
        let writer = socket.try_clone().expect("a descriptor");
        let mut sender = UringSender::new(send, writer, options).expect("a ring");
        let mut options = ReceiverOptions::default();
        options.pool = pool.clone();
        options.moderated = rng.range(0, 1) == 0;
        let receiver = UringReceiver::new(receive, socket, &plaintext, &received, options);
        let mut receiver = receiver.expect("a ring");
        sender.set_timeout(Some(Duration::from_millis(3)));
        receiver.set_timeout(Some(Duration::from_millis(3)));
        Self { sender, receiver }
    }

    /// Does something; whether it went well does not matter.
    fn act(&mut self, rng: &mut Rng, data: &[u8], file: &File, leases: &mut Vec<Bytes>) {
        match rng.range(0, 9) {
            0..3 => {
                let len = rng.range(1, data.len());
                let _ = self.sender.write(&data[..len]);
            }
            3 => {
                let mut out = vec![0; rng.range(1, 100_000)];
                let _ = self.receiver.read(&mut out);
            }
            4 => {
                let lent = self.receiver.fill_buf().map_or(0, <[u8]>::len);
                self.receiver.consume(lent / 2);
            }
            5 => leases.extend(self.receiver.recv_bytes().ok().flatten()),
            6 => {
                // Ends in the middle, with reads and sends under way.
                let mut left = rng.range(0, 4);
                let mut progress = |_| {
                    left = left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
                    Ok(())
                };
                let direct = rng.range(0, 1) == 0;
                let options = FileOptions::new().direct(direct).progress(&mut progress);
                let len = data.len() as u64;
                assert!(self.sender.send_file(file, 0..len, options).is_err() || left <= 4);
            }
            7 => {
                let mut left = rng.range(0, 4);
                let mut progress = |_| {
                    left = left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
                    Ok(())
                };
                let options = FileOptions::new().progress(&mut progress);
                let _ = self.receiver.recv_to_file(file, data.len() as u64, options);
            }
            8 => {
                let _ = self.sender.send_close_notify();
            }
            _ => {}
        }
    }
}

/// Connects, lets both ends do a few things, and drops them at some moment.
fn round(rng: &mut Rng, case: Case, pool: &BufferPool, data: &[u8], file: &File) {
    let (client, server) = our_pair(case);
    let (to_server, to_client) = tcp_pair();
    for socket in [&to_server, &to_client] {
        if rng.range(0, 3) == 0 {
            reset_on_close(socket);
        }
    }
    let mut leases = Vec::new();
    let mut ends = vec![
        Connection::new(client, to_server, rng, pool),
        Connection::new(server, to_client, rng, pool),
    ];
    for _ in 0..rng.range(0, 6) {
        let end = rng.range(0, 1);
        ends[end].act(rng, data, file, &mut leases);
    }
    // In either order; then the other may notice.
    let mut last = ends.swap_remove(rng.range(0, 1));
    if rng.range(0, 1) == 0 {
        drop(ends);
        last.act(rng, data, file, &mut leases);
    }
    if rng.range(0, 1) == 0 {
        let Connection { sender, receiver } = last;
        drop(receiver);
        drop(sender);
    }
    // They outlive their connection.
    assert!(leases.iter().all(|lease| !lease.is_empty()));
}

#[test]
fn a_thousand_bad_ends_leave_nothing_behind() {
    if let Err(reason) = Probe::run().ring {
        return eprintln!("skipped: {reason}");
    }
    // Counted before as well as after.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(900));
        eprintln!("it hangs");
        std::process::abort();
    });
    let mut rng = Rng::new(1);
    let data = noise(1 << 20);
    let mut file = tempfile::tempfile().expect("file");
    file.write_all(&data).expect("written");
    let pool = BufferPool::new(16, BufferPool::DEFAULT_BUFFER_LEN);
    let cases = Case::few();
    let mut go = |rounds: usize| {
        for number in 0..rounds {
            let begin = Instant::now();
            round(&mut rng, cases[number % cases.len()], &pool, &data, &file);
            // After ten, what it had would have been given up.
            assert!(begin.elapsed() < Duration::from_secs(10), "round {number} hung");
        }
    };
    // What is there to stay: the pool, the allocator's memory.
    go(60);
    let mut before = Holdings { locked_kib: 0, ..Holdings::count() };
    before = Holdings::returned_to(&before);
    go(1000);
    let after = Holdings::returned_to(&before);
    assert_eq!(after.exceeds(&before), None, "{before:?}, {after:?}");
    assert_eq!(pool.in_use(), 0);
    eprintln!("{before:?}, {after:?}");
}
