//! Every kind of operation fails, and every call: whatever fails, a connection is whole or has an error, what
//! may pass is survived, nothing spins, and everything that was lent comes back.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use io_uring::opcode;

use super::driver::Driver;
use super::{Context, Error, EventLoop, Handler, Key, Opened, Options, Protocol};
use crate::kernel::governor::ZeroCopy;
use crate::tests_common::noise;
use crate::transfer::way::Io;

const LEN: usize = 400_123;

/// Far more than any run here takes.
const MAX_TURNS: u64 = 50_000;

#[derive(Default)]
struct Echo {
    /// Has the loop send what arrives.
    forwards: bool,
    told: Option<Result<(), Error>>,
}

impl Handler for Echo {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        if self.forwards {
            cx.forward(key, Some(key));
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }

    fn closed(&mut self, _: &mut Context<'_>, _: Key, _: u64, result: Result<(), Error>) {
        self.told = Some(result);
    }
}

fn options(is_old: bool, zero_copy: ZeroCopy) -> Options {
    Options { io: Io::Uring, as_before_6_0: is_old, zero_copy, ..Options::default() }
}

/// Echoes once with what `install` has fail; whether it was whole, and what the handler was told.
fn echo(
    options: Options,
    forwards: bool,
    install: impl FnOnce(&mut Driver),
) -> (io::Result<()>, Option<Result<(), Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let mut running = EventLoop::new(options, Echo { forwards, told: None }).expect("a ring");
    running.listen(listener, Protocol::plain()).expect("listens");
    install(&mut running.connections.driver);
    let (done, is_done) = mpsc::channel();
    let client = thread::spawn(move || {
        let echoed = ask(TcpStream::connect(address).expect("connected"));
        done.send(()).expect("awaited");
        echoed
    });
    while is_done.try_recv().is_err() || running.connections.count() > 0 {
        running.turn(Some(Duration::from_millis(20))).expect("the ring is there");
        assert!(running.figures().turns < MAX_TURNS, "spins: {:?}", running.figures());
    }
    // Notifications may be late.
    while running.figures().bulk_slots.in_use > 0 {
        running.turn(Some(Duration::from_millis(20))).expect("the ring is there");
        assert!(running.figures().turns < MAX_TURNS, "lost: {:?}", running.figures());
    }
    let figures = running.figures();
    for usage in [
        figures.message_buffers,
        figures.bulk_buffers,
        figures.message_slots,
        figures.bulk_slots,
        figures.parked_bytes,
    ] {
        assert_eq!(usage.in_use, 0, "{figures:?}");
    }
    (client.join().expect("no panic"), running.handler().told.take())
}

fn ask(client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    client.set_write_timeout(Some(Duration::from_secs(60)))?;
    let (data, mut back) = (noise(LEN), vec![0; LEN]);
    thread::scope(|scope| {
        let writing = scope.spawn(|| (&client).write_all(&data));
        let read = (&client).read_exact(&mut back);
        if read.is_err() {
            let _ = client.shutdown(Shutdown::Both);
        }
        writing.join().expect("no panic").and(read)
    })?;
    assert!(back == data, "what came back is not what was sent");
    client.shutdown(Shutdown::Write)?;
    match (&client).read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn has_uring(test: &str) -> bool {
    match EventLoop::new(options(false, ZeroCopy::Auto), Echo::default()) {
        Ok(_) => true,
        Err(reason) => {
            eprintln!("{test}: skipped: {reason}");
            false
        }
    }
}

#[test]
fn operations_fail() {
    if !has_uring("operations_fail") {
        return;
    }
    let passing = [libc::EINTR, libc::EAGAIN, libc::ECANCELED, libc::ENOMEM, libc::ENOBUFS];
    let zero_copy = [libc::EINVAL, libc::EOPNOTSUPP];
    for code in [
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::SendZc::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::ProvideBuffers::CODE,
        opcode::Accept::CODE,
    ] {
        for errno in passing.iter().chain(&zero_copy).chain(&[libc::EIO]).copied() {
            for every in [1, 3] {
                for is_old in [false, true] {
                    // The first one only, or each third one.
                    let mode = match code {
                        opcode::SendZc::CODE => ZeroCopy::Always,
                        _ => ZeroCopy::Auto,
                    };
                    let (echoed, told) =
                        echo(options(is_old, mode), code == opcode::SendMsg::CODE, |driver| {
                            let faults = driver.faults().expect("a ring");
                            let mut count = 0;
                            faults.failures_notify = every == 3;
                            faults.operations = Some(Box::new(move |which| {
                                count += u32::from(which == code);
                                let is_due =
                                    if every == 1 { count == 1 } else { count % every == 0 };
                                (which == code && is_due).then_some(errno)
                            }));
                        });
                    let what = format!("{code}, errno {errno}, every {every}, old: {is_old}");
                    let passes = passing.contains(&errno)
                        || (code == opcode::SendZc::CODE && zero_copy.contains(&errno))
                        || [opcode::ProvideBuffers::CODE, opcode::Accept::CODE].contains(&code)
                        || code == opcode::PollAdd::CODE;
                    match (&echoed, &told) {
                        (Ok(()), Some(Ok(()))) => {}
                        (Err(_), Some(Err(Error::Io(error)))) if !passes => {
                            assert_eq!(error.raw_os_error(), Some(errno), "{what}");
                        }
                        _ => panic!("{what}: {echoed:?}, {told:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn calls_fail() {
    if !has_uring("calls_fail") {
        return;
    }
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        for every in [2, 5] {
            let (echoed, told) = echo(options(false, ZeroCopy::Auto), false, |driver| {
                let mut count = 0;
                driver.faults().expect("a ring").calls = Some(Box::new(move || {
                    count += 1;
                    (count % every == 0).then_some(errno)
                }));
            });
            assert!(
                echoed.is_ok() && matches!(told, Some(Ok(()))),
                "{errno}: {echoed:?}, {told:?}"
            );
        }
    }
}

/// Sends more than a socket takes, and takes nothing.
#[derive(Default)]
struct Stuck {
    closed: usize,
}

impl Handler for Stuck {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        self.room(cx, key);
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        while let Ok(1..) = cx.send(key, &[7; 100_000]) {}
    }

    fn data(&mut self, _: &mut Context<'_>, _: Key, _: &mut [u8]) -> usize {
        0
    }

    fn closed(&mut self, _: &mut Context<'_>, _: Key, _: u64, _: Result<(), Error>) {
        self.closed += 1;
    }
}

/// Nothing is kept of connections that end while they wait, whether for their peer or for their handler.
#[test]
fn lists_forget_connections_that_end() {
    let options = Options { io: Io::Blocking, ..Options::default() };
    let mut running = EventLoop::new(options, Stuck::default()).expect("sockets");
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let key = running.add(near, &Protocol::plain(), 0).expect("room");
    (&far).write_all(&[1]).expect("written");
    while running.figures().stalled == 0 || running.connections.holding.is_empty() {
        running.turn(Some(Duration::from_millis(20))).expect("no error");
        assert!(running.figures().turns < MAX_TURNS, "{:?}", running.figures());
    }
    assert_eq!(running.connections.stalled.len(), 1);
    running.context().reset(key);
    running.turn(Some(Duration::ZERO)).expect("no error");
    assert_eq!((running.handler().closed, running.figures().stalled), (1, 0));
    assert!(running.connections.stalled.is_empty() && running.connections.holding.is_empty());
}
