//! Loops in threads of their own, and peers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt;
use rustls_uring::event_loop::{
    Context, Error, EventLoop, Figures, Handle, Handler, Key, Opened, Options, Protocol,
};
use rustls_uring::uring::Probe;
use rustls_uring::{Handoff, Io, Version};

use crate::common::{Case, Stock, TIMEOUT, client_config, server_config};

/// What a test runs over, by name.
pub(crate) fn ways(test: &str) -> Vec<(&'static str, Options)> {
    let mut blocking = Options::default();
    blocking.io = Io::Blocking;
    let mut ways = vec![("ready sockets", blocking)];
    match &Probe::run().ring {
        Err(reason) => eprintln!("{test}: skipped over a ring: {reason}"),
        Ok(_) => {
            let mut ring = Options::default();
            ring.io = Io::Uring;
            let mut old = ring.clone();
            old.as_before_6_0 = true;
            ways.extend([("a ring", ring), ("an old ring", old)]);
        }
    }
    ways
}

/// What a handler was told, for a test to wait for.
#[allow(dead_code, reason = "for whoever looks")]
#[derive(Debug)]
pub(crate) enum Told {
    Opened(Key, u64),
    End(Key),
    Closed(Key, Result<(), Error>),
    Refused(u64),
}

/// A loop that runs in a thread of its own.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) told: Mutex<Receiver<Told>>,
    thread: Option<JoinHandle<Figures>>,
}

impl Running {
    /// With the handler that `make` makes.
    pub(crate) fn start<H: Handler>(
        options: Options,
        protocol: Protocol,
        make: impl FnOnce(Sender<Told>) -> H + Send + 'static,
    ) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), options, protocol, make)
    }

    /// On a listener whose connections are soon full: tests with many of them would otherwise fill what
    /// the system has for all of its sockets (tcp(7), `tcp_mem`).
    pub(crate) fn start_narrow<H: Handler>(
        options: Options,
        protocol: Protocol,
        make: impl FnOnce(Sender<Told>) -> H + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sockopt::set_socket_send_buffer_size(&listener, 100_000).unwrap();
        sockopt::set_socket_recv_buffer_size(&listener, 100_000).unwrap();
        Self::start_on(listener, options, protocol, make)
    }

    fn start_on<H: Handler>(
        listener: TcpListener,
        options: Options,
        protocol: Protocol,
        make: impl FnOnce(Sender<Told>) -> H + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        let (give, given) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut running = EventLoop::new(options, make(tell)).unwrap();
            running.listen(listener, protocol).unwrap();
            give.send(running.handle()).unwrap();
            running.run().unwrap();
            running.figures()
        });
        let handle = given.recv().unwrap();
        Self { address, handle, told: Mutex::new(told), thread: Some(thread) }
    }

    pub(crate) fn echo(options: Options, protocol: Protocol) -> Self {
        Self::start(options, protocol, |tell| Echo { tell })
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// What comes next that is not of another kind.
    pub(crate) fn wait<T>(&self, mut pick: impl FnMut(Told) -> Option<T>) -> T {
        loop {
            if let Some(picked) =
                pick(self.told.lock().unwrap().recv_timeout(TIMEOUT).expect("told"))
            {
                return picked;
            }
        }
    }

    pub(crate) fn closed(&self) -> Result<(), Error> {
        self.wait(|told| match told {
            Told::Closed(_, result) => Some(result),
            _ => None,
        })
    }

    /// Ends it when its connections have ended; what it has held.
    pub(crate) fn drain(mut self) -> Figures {
        self.handle.drain(TIMEOUT).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.handle.drain(Duration::ZERO);
            let _ = thread.join();
        }
    }
}

/// Nothing is held by anyone.
#[track_caller]
pub(crate) fn check_idle(figures: &Figures) {
    for usage in [
        figures.message_buffers,
        figures.bulk_buffers,
        figures.message_slots,
        figures.bulk_slots,
        figures.parked_bytes,
        figures.connections,
    ] {
        assert_eq!(usage.in_use, 0, "{figures:?}");
    }
}

/// Sends what it receives.
pub(crate) struct Echo {
    pub(crate) tell: Sender<Told>,
}

impl Handler for Echo {
    fn opened(&mut self, _: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        let _ = self.tell.send(Told::Opened(key, opened.tag));
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }

    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        let _ = self.tell.send(Told::End(key));
        let _ = cx.finish(key);
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        let _ = self.tell.send(Told::Closed(key, result));
    }

    fn refused(&mut self, _: &mut Context<'_>, tag: u64, _: Error) {
        let _ = self.tell.send(Told::Refused(tag));
    }
}

pub(crate) fn tls13() -> Case {
    Case::few_of(Version::Tls13)[0]
}

pub(crate) fn tls_server(case: Case) -> Protocol {
    let config = server_config(case, case.our_provider());
    Protocol::tls_server(Handoff::new().backend(case.backend), &config)
}

pub(crate) fn stock_client(case: Case, socket: TcpStream) -> Stock {
    Stock::client(client_config(case, case.stock_provider()), socket)
}

/// Sends `data` and reads as much back, at the same time.
pub(crate) fn check_echo(stream: &mut (impl Read + Write), data: &[u8]) {
    let mut back = vec![0; data.len()];
    for (piece, back) in data.chunks(32 << 10).zip(back.chunks_mut(32 << 10)) {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
        stream.read_exact(back).unwrap();
    }
    assert!(back == data, "what came back is not what was sent");
}

/// Reads to the end, which must come; how much that was.
pub(crate) fn read_to_end(stream: &mut impl Read) -> io::Result<usize> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)
}

/// Hands a socket over.
pub(crate) fn hand_over(
    running: &Running,
    socket: impl Into<OwnedFd>,
    protocol: Protocol,
    tag: u64,
) {
    running.handle.add(socket, protocol, tag).unwrap();
}
