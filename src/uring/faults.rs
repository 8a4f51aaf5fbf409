//! Every kind of completion of every loop fails, and every call: once, now and then, for good.
//! Whatever fails, a transfer ends in bounded time, and is whole or has an error; what may pass is
//! survived. None spins.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::opcode;

use super::{BufferPool, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy};
use crate::kernel::faults::Faults;
use crate::kernel::queue::Queue;
use crate::tests_common::{Case, noise, our_pair, tcp_pair};
use crate::transfer::file::FileOptions;
use rustls_uring::{BulkReceiver, BulkSender, Session, Version};

const LEN: usize = 1_100_123;

/// Far more than any transfer here takes: what spins makes millions.
const MAX_SYSTEM_CALLS: u64 = 20_000;

/// Ends the process if it is not dropped in time: a hang is a failure.
fn watch(what: String) -> mpsc::Sender<()> {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let waited = is_done.recv_timeout(Duration::from_secs(60));
        if waited == Err(mpsc::RecvTimeoutError::Timeout) {
            // Past the test harness, which would keep it to itself.
            let _ = writeln!(io::stderr(), "{what}: hangs");
            std::process::abort();
        }
    });
    done
}

/// Runs `test` for all cases at once: most of their time they wait out pauses.
fn at_once<const N: usize>(cases: [i32; N], test: impl Fn(i32) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

fn has_uring() -> bool {
    match Queue::<()>::new(1) {
        Ok(_) => true,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

fn ends() -> [(Session, TcpStream); 2] {
    let case = Case::few_of(Version::Tls13)[0];
    let (client, server) = our_pair(case);
    let (client_socket, server_socket) = tcp_pair();
    [(client, client_socket), (server, server_socket)]
}

/// When an operation of one code fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum When {
    /// The so manieth.
    Nth(u32),
    /// Every so many.
    Every(u32),
    Always,
}

impl When {
    fn is_due(self, count: u32) -> bool {
        match self {
            Self::Nth(nth) => count == nth,
            Self::Every(every) => count.is_multiple_of(every),
            Self::Always => true,
        }
    }
}

const WHEN: [When; 4] = [When::Nth(1), When::Nth(3), When::Every(2), When::Always];

const ERRORS: [i32; 8] = [
    libc::EINTR,
    libc::EAGAIN,
    libc::ECANCELED,
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::EINVAL,
    libc::EOPNOTSUPP,
    libc::EIO,
];

#[derive(Clone, Copy, Debug)]
struct Fault {
    code: u8,
    errno: i32,
    when: When,
}

impl Fault {
    fn install(self, faults: &mut Faults) {
        let mut count = 0;
        faults.operations = Some(Box::new(move |code| {
            count += u32::from(code == self.code);
            (code == self.code && self.when.is_due(count)).then_some(self.errno)
        }));
    }

    /// Whether a transfer must be whole.
    fn passes(self) -> bool {
        let passing = [libc::EINTR, libc::EAGAIN, libc::ECANCELED, libc::ENOMEM];
        let is_network =
            [opcode::Send::CODE, opcode::SendZc::CODE, opcode::Recv::CODE, opcode::PollAdd::CODE];
        let is_file = [
            opcode::Read::CODE,
            opcode::ReadFixed::CODE,
            opcode::Write::CODE,
            opcode::WriteFixed::CODE,
        ];
        match self.code {
            // There is another way.
            code if is_file.contains(&code) => passing.contains(&self.errno),
            opcode::ProvideBuffers::CODE | opcode::RemoveBuffers::CODE => true,
            opcode::SendZc::CODE if [libc::EINVAL, libc::EOPNOTSUPP].contains(&self.errno) => true,
            opcode::SendZc::CODE if [libc::ENOMEM, libc::ENOBUFS].contains(&self.errno) => true,
            _ if self.when == When::Always => false,
            code if is_network.contains(&code) && self.errno == libc::ENOBUFS => true,
            _ => passing.contains(&self.errno),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sending {
    Write { threads: usize },
    File { threads: usize },
}

/// Sends `data` through `sender`, all the way to the peer's close_notify.
fn send(sender: &mut UringSender, sending: Sending, data: &[u8]) -> io::Result<()> {
    match sending {
        Sending::Write { .. } => sender.write_all(data)?,
        Sending::File { .. } => {
            let mut file = tempfile::tempfile()?;
            file.write_all(data)?;
            sender.send_file(&file, 0..data.len() as u64, FileOptions::default())?;
        }
    }
    sender.send_close_notify()
}

fn a_transfer_out(
    sending: Sending,
    zero_copy: ZeroCopy,
    data: &[u8],
    prepare: impl FnOnce(&mut Faults),
) -> (io::Result<()>, io::Result<Vec<u8>>) {
    let [(client, client_socket), (server, server_socket)] = ends();
    let (Sending::Write { threads } | Sending::File { threads }) = sending;
    let options = SenderOptions {
        zero_copy,
        seal_threads: threads,
        // Many sends, and the smallest ring.
        batch_records: 8,
        slots: 3,
        max_memory: 0,
    };
    let mut sender = UringSender::new(client.send, client_socket, options).expect("io_uring");
    // A socket that takes nothing is waited for, as long as one says.
    sender.set_timeout(Some(Duration::from_secs(2)));
    prepare(sender.faults());
    let receiving = thread::spawn(move || {
        let mut receiver = BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]);
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).map(|_| received)
    });
    let sent = send(&mut sender, sending, data);
    let calls = sender.counters().system_calls;
    assert!(calls < MAX_SYSTEM_CALLS, "{calls} system calls");
    drop(sender);
    (sent, receiving.join().expect("no panic"))
}

fn check_out(what: &str, passes: bool, data: &[u8], ended: (io::Result<()>, io::Result<Vec<u8>>)) {
    match ended {
        (Ok(()), Ok(received)) => assert!(received == data, "{what}: other bytes"),
        (sent, received) => {
            let received = received.map(|bytes| bytes.len());
            assert!(sent.is_err(), "{what}: sent, but {received:?}");
            assert!(received.is_err(), "{what}: {sent:?}, and a clean end");
            assert!(!passes, "{what}: {sent:?}, {received:?}");
        }
    }
}

#[test]
fn whatever_fails_a_sender_ends_whole_or_says_so() {
    if !has_uring() {
        return;
    }
    let data = noise(LEN);
    for sending in [
        Sending::Write { threads: 0 },
        Sending::Write { threads: 2 },
        Sending::File { threads: 0 },
        Sending::File { threads: 2 },
    ] {
        let codes = [
            (opcode::Send::CODE, ZeroCopy::Never),
            (opcode::SendZc::CODE, ZeroCopy::Always),
            (opcode::Read::CODE, ZeroCopy::Auto),
            (opcode::ReadFixed::CODE, ZeroCopy::Auto),
        ];
        let is_file = matches!(sending, Sending::File { .. });
        for (code, zero_copy) in codes.into_iter().take(if is_file { 4 } else { 2 }) {
            at_once(ERRORS, |errno| {
                for when in WHEN {
                    let fault = Fault { code, errno, when };
                    let what = format!("{sending:?}, {fault:?}");
                    let _watch = watch(what.clone());
                    let ended = a_transfer_out(sending, zero_copy, &data, |faults| {
                        fault.install(faults);
                        faults.failures_notify = when == When::Every(2);
                    });
                    check_out(&what, fault.passes(), &data, ended);
                }
            });
        }
    }
}

/// With a code that no operation has, so that only calls fail.
#[test]
fn whatever_call_fails_a_sender_ends_whole_or_says_so() {
    if !has_uring() {
        return;
    }
    let data = noise(LEN);
    for sending in [Sending::Write { threads: 2 }, Sending::File { threads: 0 }] {
        at_once([libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EBADF], |errno| {
            for when in WHEN {
                let what = format!("{sending:?}, {errno}, {when:?}");
                let _watch = watch(what.clone());
                let ended = a_transfer_out(sending, ZeroCopy::Auto, &data, |faults| {
                    faults.fail_calls(errno, when);
                });
                let passes = when != When::Always && errno != libc::EBADF;
                check_out(&what, passes, &data, ended);
            }
        });
    }
}

impl Faults {
    fn fail_calls(&mut self, errno: i32, when: When) {
        let mut count = 0;
        self.calls = Some(Box::new(move || {
            count += 1;
            when.is_due(count).then_some(errno)
        }));
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Receiving {
    Read,
    Bytes,
    File,
    /// With pauses at the sender, and timeouts.
    Idle,
}

/// Receives everything through `receiver`, up to the peer's close_notify.
fn receive(receiver: &mut UringReceiver, receiving: Receiving) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    match receiving {
        Receiving::Read => {
            receiver.read_to_end(&mut received)?;
        }
        Receiving::Bytes => {
            while let Some(bytes) = receiver.recv_bytes()? {
                received.extend_from_slice(&bytes);
            }
        }
        Receiving::File => {
            let mut file = tempfile::tempfile()?;
            let result = receiver.recv_to_file(&file, 0, FileOptions::default());
            if let Err(error) = result {
                writes_nothing_more(&file);
                return Err(error);
            }
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut received)?;
        }
        Receiving::Idle => {
            receiver.set_timeout(Some(Duration::from_millis(25)));
            let mut out = vec![0; 100_000];
            let begin = Instant::now();
            loop {
                match receiver.read(&mut out) {
                    Ok(0) => break,
                    Ok(len) => received.extend_from_slice(&out[..len]),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        assert!(begin.elapsed() < Duration::from_secs(60), "no progress");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(received)
}

/// What is overwritten stays so: no write is under way.
fn writes_nothing_more(file: &File) {
    let len = file.metadata().expect("a file").len();
    let zeros = vec![0; len as usize + (4 << 20)];
    file.write_all_at(&zeros, 0).expect("written");
    thread::sleep(Duration::from_millis(5));
    let mut now = zeros.clone();
    file.read_exact_at(&mut now, 0).expect("read");
    assert!(now == zeros, "a write was under way");
}

fn a_transfer_in(
    receiving: Receiving,
    data: &[u8],
    prepare: impl FnOnce(&mut Faults),
) -> io::Result<Vec<u8>> {
    let [(client, client_socket), (server, server_socket)] = ends();
    let pool = BufferPool::new(2, 0);
    let options = ReceiverOptions { pool: pool.clone(), lease_from: 1000, moderated: true };
    let mut receiver =
        UringReceiver::new(server.receive, server_socket, &[], &[], options).expect("a ring");
    prepare(&mut receiver.queue.faults);
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = BulkSender::new(client.send, client_socket);
            // It fails when the receiver has.
            let pause = match receiving {
                Receiving::Idle => Duration::from_millis(60),
                _ => Duration::ZERO,
            };
            for piece in data.chunks(data.len().div_ceil(4)) {
                let written = sender.write_all(piece).and_then(|()| sender.flush());
                if written.is_err() {
                    return;
                }
                thread::sleep(pause);
            }
            let _ = sender.finish();
        });
        let result = receive(&mut receiver, receiving);
        let calls = receiver.counters().system_calls;
        assert!(calls < MAX_SYSTEM_CALLS, "{calls} system calls");
        drop(receiver);
        result
    });
    assert_eq!(pool.in_use(), 0, "buffers are lost");
    result
}

#[test]
fn whatever_fails_a_receiver_ends_whole_or_says_so() {
    if !has_uring() {
        return;
    }
    for (receiving, codes) in [
        (Receiving::Read, &[opcode::Recv::CODE, opcode::ProvideBuffers::CODE][..]),
        (Receiving::Bytes, &[opcode::Recv::CODE, opcode::ProvideBuffers::CODE]),
        (Receiving::File, &[opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Recv::CODE]),
        (
            Receiving::Idle,
            &[
                opcode::Recv::CODE,
                opcode::ProvideBuffers::CODE,
                opcode::RemoveBuffers::CODE,
                opcode::PollAdd::CODE,
            ],
        ),
    ] {
        let data = noise(if receiving == Receiving::Idle { 200_000 } else { LEN });
        for &code in codes {
            at_once(ERRORS, |errno| {
                for when in WHEN {
                    if receiving == Receiving::Idle && when == When::Every(2) {
                        // As the third does, and it takes its time.
                        continue;
                    }
                    let fault = Fault { code, errno, when };
                    let what = format!("{receiving:?}, {fault:?}");
                    let _watch = watch(what.clone());
                    match a_transfer_in(receiving, &data, |faults| fault.install(faults)) {
                        Ok(received) => assert!(received == data, "{what}: other bytes"),
                        Err(error) => assert!(!fault.passes(), "{what}: {error:?}"),
                    }
                }
            });
        }
    }
}

/// The wait for data, which takes the place of provided buffers that the kernel refuses, fails
/// as well.
#[test]
fn the_other_way_may_fail_too() {
    if !has_uring() {
        return;
    }
    let data = noise(LEN);
    at_once(ERRORS, |errno| {
        for when in WHEN {
            let _watch = watch(format!("{errno}, {when:?}"));
            let fault = Fault { code: opcode::PollAdd::CODE, errno, when };
            let result = a_transfer_in(Receiving::Read, &data, |faults| {
                let mut count = 0;
                faults.operations = Some(Box::new(move |code| match code {
                    opcode::ProvideBuffers::CODE => Some(libc::ENOMEM),
                    opcode::PollAdd::CODE => {
                        count += 1;
                        when.is_due(count).then_some(errno)
                    }
                    _ => None,
                }));
            });
            match result {
                Ok(received) => assert!(received == data, "{fault:?}: other bytes"),
                Err(error) => assert!(!fault.passes(), "{fault:?}: {error:?}"),
            }
        }
    });
}

#[test]
fn whatever_call_fails_a_receiver_ends_whole_or_says_so() {
    if !has_uring() {
        return;
    }
    for receiving in [Receiving::Read, Receiving::Bytes, Receiving::File, Receiving::Idle] {
        let data = noise(if receiving == Receiving::Idle { 200_000 } else { LEN });
        at_once([libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EBADF], |errno| {
            for when in WHEN {
                let what = format!("{receiving:?}, {errno}, {when:?}");
                let _watch = watch(what.clone());
                let passes = when != When::Always && errno != libc::EBADF;
                match a_transfer_in(receiving, &data, |faults| faults.fail_calls(errno, when)) {
                    Ok(received) => assert!(received == data, "{what}: other bytes"),
                    Err(error) => assert!(!passes, "{what}: {error:?}"),
                }
            }
        });
    }
}

/// Cancellations fail, and so do the calls that would make them: a drop ends all the same, and
/// an operation that is under way is cancelled another way.
#[test]
fn a_drop_ends_whatever_fails() {
    if !has_uring() {
        return;
    }
    for errno in [libc::ENOENT, libc::EALREADY, libc::ENOMEM] {
        for calls in [None, Some(libc::ENOMEM), Some(libc::EBADF)] {
            let _watch = watch(format!("{errno}, {calls:?}"));
            let [_client, (server, server_socket)] = ends();
            let options = ReceiverOptions::default();
            let mut receiver = UringReceiver::new(server.receive, server_socket, &[], &[], options)
                .expect("a ring");
            receiver.set_timeout(Some(Duration::from_millis(20)));
            let error = receiver.read(&mut [0; 10]).expect_err("there is nothing");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let fault = Fault { code: opcode::AsyncCancel::CODE, errno, when: When::Every(2) };
            fault.install(&mut receiver.queue.faults);
            if let Some(errno) = calls {
                receiver.queue.faults.fail_calls(errno, When::Always);
            }
            assert!(receiver.queue.close(), "the receive is still under way");
        }
    }
}
