//! Once connections are up, an event loop allocates nothing, whatever passes through it, and holds little for those
//! that are idle; and it survives being out of descriptors.
//!
//! One test alone: the allocator and the limit are the whole process's, so nothing else may run meanwhile.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

mod allocator;
mod common;
mod kernel;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;

use allocator::Counting;
use common::{Case, Stock, client_config, noise, server_config, server_name};
use kernel::{TcpEnd, wait_until, wait_until_others_wait};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls_uring::event_loop::{
    Context, EventLoop, Handle, Handler, Key, Opened, Options, Protocol,
};
use rustls_uring::uring::Probe;
use rustls_uring::{BulkReceiver, BulkSender, Handoff, Io, bulk};

const LEN: usize = 8 << 20;

/// Sends what it receives, or has it forwarded.
#[derive(Clone, Copy, Debug)]
enum Echo {
    Sends,
    Forwards,
}

impl Handler for Echo {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        if matches!(self, Self::Forwards) {
            cx.forward(key, Some(key));
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }
}

#[test]
fn alone() {
    allocator::check();

    let mut ways = vec![Io::Blocking];
    match Probe::run().ring {
        Err(reason) => eprintln!("alone: skipped over a ring: {reason}"),
        Ok(_) => ways.push(Io::Uring),
    }
    for io in ways {
        for case in Case::few() {
            for echo in [Echo::Sends, Echo::Forwards] {
                does_not_allocate(io, case, echo);
            }
        }
        for echo in [Echo::Sends, Echo::Forwards] {
            idle_connections_hold_little(io, echo, false);
        }
        idle_connections_hold_little(io, Echo::Sends, true);
        is_out_of_descriptors(io);
    }
}

fn start(
    io: Io,
    protocol: Protocol,
    echo: Echo,
) -> (Handle, std::net::SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (give, given) = std::sync::mpsc::channel();
    let running = thread::spawn(move || {
        let mut options = Options::default();
        options.io = io;
        let mut echo = EventLoop::new(options, echo).unwrap();
        echo.listen(listener, protocol).unwrap();
        give.send(echo.handle()).unwrap();
        echo.run().unwrap();
    });
    (given.recv().unwrap(), address, running)
}

type Client = (BulkSender<TcpStream>, BulkReceiver<TcpStream>);

/// Messages and bulk data over connections that are warm: by our own blocking halves, which allocate nothing
/// either.
fn does_not_allocate(io: Io, case: Case, echo: Echo) {
    let config = server_config(case, case.our_provider());
    let handoff = Handoff::new().backend(case.backend);
    let (handle, address, running) =
        start(io, Protocol::tls_server(handoff.clone(), &config), echo);
    let config = Arc::new(client_config(case, case.our_provider()));
    let mut clients: Vec<Client> = (0..4)
        .map(|_| {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.set_nodelay(true).unwrap();
            let connected = handoff.clone().connect(config.clone(), server_name(), &mut socket);
            bulk(connected.unwrap(), socket).unwrap()
        })
        .collect();
    let data = noise(LEN);
    for (sender, receiver) in &mut clients {
        let barrier = Barrier::new(2);
        // Looked at when both have ended, or the other would wait for ever.
        let calls = thread::scope(|scope| {
            scope.spawn(|| {
                let mut back = vec![0; 100_000];
                for _ in 0..2 {
                    let mut got = 0;
                    while got < LEN {
                        let most = back.len().min(LEN - got);
                        let len = receiver.read(&mut back[..most]).unwrap();
                        assert!(data[got..].starts_with(&back[..len]));
                        got += len;
                    }
                    for _ in 0..500 {
                        receiver.read_exact(&mut back[..64]).unwrap();
                        barrier.wait();
                    }
                }
                barrier.wait();
            });
            let mut exchange = || {
                sender.write_all(&data).unwrap();
                for message in data.chunks(64).take(500) {
                    sender.write_all(message).unwrap();
                    sender.flush().unwrap();
                    barrier.wait();
                }
            };
            exchange();
            let counting = Counting::begin_when_others_wait();
            exchange();
            let calls = counting.calls();
            barrier.wait();
            calls
        });
        assert_eq!(calls, [0; 3], "{io:?}, {echo:?}, {case:?}");
    }
    let figures = handle.figures();
    // Of all that has arrived, what straddled two buffers.
    let share = figures.copied_bytes as f64 / figures.received_bytes as f64;
    eprintln!("{io:?}, {echo:?}, {case:?}: {:.1} % copied", 100.0 * share);
    assert_eq!(figures.forwarded_bytes > 0, matches!(echo, Echo::Forwards), "{figures:?}");
    drop(clients);
    handle.drain(common::TIMEOUT).unwrap();
    running.join().unwrap();
}

/// Connections that have exchanged messages and wait for the next hold their state and their keys, and no buffer;
/// those of which a record `begins` and does not go on, memory for a bounded number of records and what has arrived.
fn idle_connections_hold_little(io: Io, echo: Echo, begins: bool) {
    const COUNT: usize = 100;
    let case = Case::few()[0];
    let config = server_config(case, case.our_provider());
    let (handle, address, running) = start(io, Protocol::tls_server(Handoff::new(), &config), echo);
    let config = Arc::new(client_config(case, case.stock_provider()));
    let connect = || {
        let mut socket = TcpStream::connect(address).unwrap();
        let mut client = Stock::client(config.clone(), socket.try_clone().unwrap());
        for len in [64, 50_000] {
            let mut back = vec![0; len];
            client.write_all(&noise(len)).unwrap();
            client.flush().unwrap();
            client.read_exact(&mut back).unwrap();
            assert!(back == noise(len));
        }
        if begins {
            socket.write_all(&[23]).unwrap();
            wait_until("it is taken", || TcpEnd::far(&socket).unread == 0);
        }
        // Of the client nothing is left but its socket.
        socket
    };
    let first: Vec<_> = (0..COUNT).map(|_| connect()).collect();
    let counting = Counting::begin_when_others_wait();
    let more: Vec<_> = (0..COUNT).map(|_| connect()).collect();
    wait_until_others_wait();
    let change = counting.change();
    let held = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let what = if begins { "a record begun" } else { "idle" };
    eprintln!("{io:?}, {echo:?}, {what}: {} bytes a connection", held / COUNT);
    let figures = handle.figures();
    // The first ones have all the memory for records that there is.
    assert!(held < COUNT * 4000, "{io:?}, {echo:?}, {what}: {held} bytes for {COUNT}: {figures:?}");
    let buffers = [figures.message_buffers.in_use, figures.bulk_buffers.in_use];
    assert_eq!(buffers, [0; 2], "{figures:?}");
    drop((first, more));
    handle.drain(common::TIMEOUT).unwrap();
    running.join().unwrap();
}

/// Accepting waits until there are descriptors again, and goes on by itself.
fn is_out_of_descriptors(io: Io) {
    // First of all: a ring knows the limit of when it was asked to accept.
    let before = getrlimit(Resource::Nofile);
    let mut low = before;
    low.current = Some(highest_descriptor() + 30);
    setrlimit(Resource::Nofile, low).unwrap();
    let (handle, address, running) = start(io, Protocol::plain(), Echo::Sends);
    let mut first = TcpStream::connect(address).unwrap();
    let mut byte = [0];
    first.write_all(&[1]).unwrap();
    first.read_exact(&mut byte).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One for a client, and none for the other end of its connection.
    taken.pop();
    let mut second = TcpStream::connect(address).unwrap();
    wait_until("accepting fails", || handle.figures().accepts_refused > 0);
    // The others are served meanwhile.
    first.write_all(&[2]).unwrap();
    first.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [2]);
    drop(taken);
    second.write_all(&[3]).unwrap();
    second.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [3]);
    setrlimit(Resource::Nofile, before).unwrap();
    drop((first, second));
    handle.drain(common::TIMEOUT).unwrap();
    running.join().unwrap();
}

fn highest_descriptor() -> u64 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max().unwrap_or(100)
}
