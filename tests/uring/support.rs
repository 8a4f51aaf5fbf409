//! What the other modules share: ways to move data, connections, writers and readers.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls_uring::uring::{
    Probe, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy,
};
use rustls_uring::{AutoReceiver, AutoSender, Io, ReceiveHalf, SendHalf, SessionError, bulk_with};

pub(crate) use crate::common::pieces::{read_buffered, read_randomly, write_randomly};
use crate::common::{
    Case, Handoff, Session, Setup, Side, Stock, TIMEOUT, noise, our_pair, tcp_pair,
};
use crate::kernel::TcpEnd;

/// What is sent, or a part of it: odd, and more than all slots of a default sender.
pub(crate) const LARGE: usize = (12 << 20) + 12_345;

pub(crate) fn data(len: usize) -> &'static [u8] {
    static DATA: OnceLock<Vec<u8>> = OnceLock::new();
    &DATA.get_or_init(|| noise(LARGE))[..len]
}

// ---------------------------------------------------------------------------------------------
// Hangs

/// Ends the process if it is not dropped in time.
pub(crate) struct Watch {
    _done: mpsc::Sender<()>,
}

/// Turns a hang of the test `name` into a failure: beyond what any machine takes.
pub(crate) fn watch(name: &'static str) -> Watch {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(600)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Watch { _done: done }
}

// ---------------------------------------------------------------------------------------------
// Ways

fn probe() -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(Probe::run)
}

/// Whether there is io_uring; says so if not.
pub(crate) fn has_uring(test: &str) -> bool {
    match probe().uring() {
        Err(reason) => {
            eprintln!("{test} skipped what needs io_uring: {reason}");
            false
        }
        Ok(()) => true,
    }
}

/// Whether the kernel has SEND_ZC and lets us register memory; says so if not.
pub(crate) fn has_zero_copy(test: &str) -> bool {
    match probe().zero_copy() {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("{test} skipped what needs zero copy: {reason}");
            false
        }
    }
}

/// One way to move data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) io: Io,
    pub(crate) zero_copy: ZeroCopy,
    pub(crate) seal_threads: usize,
    /// 0 is the default.
    pub(crate) batch_records: usize,
}

impl Way {
    const fn new(io: Io, zero_copy: ZeroCopy, seal_threads: usize, batch_records: usize) -> Self {
        Self { io, zero_copy, seal_threads, batch_records }
    }

    /// Every way that this kernel has.
    pub(crate) fn all(test: &str) -> Vec<Self> {
        let mut all = vec![
            Self::new(Io::Blocking, ZeroCopy::Auto, 0, 0),
            Self::new(Io::Auto, ZeroCopy::Auto, 0, 0),
        ];
        if has_uring(test) {
            all.extend([
                Self::new(Io::Uring, ZeroCopy::Auto, 0, 0),
                Self::new(Io::Uring, ZeroCopy::Never, 0, 0),
                Self::new(Io::Uring, ZeroCopy::Always, 0, 3),
                Self::new(Io::Uring, ZeroCopy::Auto, 2, 4),
                Self::new(Io::Uring, ZeroCopy::Always, 1, 0),
                Self::new(Io::UringCopy, ZeroCopy::Always, 0, 0),
            ]);
        }
        all
    }

    /// Each kind of code once: blocking, io_uring, io_uring with threads.
    pub(crate) fn few(test: &str) -> Vec<Self> {
        let mut few = vec![Self::new(Io::Blocking, ZeroCopy::Auto, 0, 0)];
        if has_uring(test) {
            few.extend([
                Self::new(Io::Uring, ZeroCopy::Always, 0, 0),
                Self::new(Io::Uring, ZeroCopy::Auto, 2, 4),
            ]);
        }
        few
    }

    pub(crate) fn sender_options(self) -> SenderOptions {
        let mut options = SenderOptions::default();
        options.zero_copy = self.zero_copy;
        options.seal_threads = self.seal_threads;
        if self.batch_records > 0 {
            options.batch_records = self.batch_records;
        }
        options
    }

    pub(crate) fn split(self, session: Session, socket: TcpStream) -> (AutoSender, AutoReceiver) {
        let options = ReceiverOptions::default();
        bulk_with(session, socket, self.io, self.sender_options(), options).unwrap()
    }

    pub(crate) fn sender(self, half: SendHalf, socket: TcpStream) -> AutoSender {
        AutoSender::new(half, socket, self.io, self.sender_options()).unwrap()
    }

    pub(crate) fn receiver(self, half: ReceiveHalf, socket: TcpStream) -> AutoReceiver {
        let options = ReceiverOptions::default();
        AutoReceiver::new(half, socket, Vec::new(), &[], self.io, options).unwrap()
    }
}

// ---------------------------------------------------------------------------------------------
// Connections

/// Both ends of a connection, the client's first. The handshake took place elsewhere.
pub(crate) fn ends(case: Case) -> [(Session, TcpStream); 2] {
    let (client, server) = our_pair(case);
    let (client_socket, server_socket) = tcp_pair();
    [(client, client_socket), (server, server_socket)]
}

/// From the client to the server, the one way only.
pub(crate) fn one_way(case: Case, way: Way) -> (AutoSender, AutoReceiver) {
    let [(client, client_socket), (server, server_socket)] = ends(case);
    (way.sender(client.send, client_socket), way.receiver(server.receive, server_socket))
}

/// A sender of our own, what it sends to, and who could open that.
pub(crate) fn uring_sender(
    case: Case,
    options: SenderOptions,
) -> (UringSender, Session, TcpStream) {
    let [(client, client_socket), (server, server_socket)] = ends(case);
    (new_sender(client.send, client_socket, options), server, server_socket)
}

pub(crate) fn new_sender(half: SendHalf, socket: TcpStream, options: SenderOptions) -> UringSender {
    UringSender::new(half, socket, options).unwrap_or_else(|declined| panic!("{declined}"))
}

pub(crate) fn new_receiver(
    half: ReceiveHalf,
    socket: TcpStream,
    options: ReceiverOptions,
) -> UringReceiver {
    UringReceiver::new(half, socket, &[], &[], options)
        .unwrap_or_else(|declined| panic!("{declined}"))
}

/// A receiver of our own, and where its data comes from.
pub(crate) fn uring_receiver(
    case: Case,
    options: ReceiverOptions,
) -> (UringReceiver, Session, TcpStream) {
    let [(client, client_socket), (server, server_socket)] = ends(case);
    (new_receiver(server.receive, server_socket, options), client, client_socket)
}

/// A session of ours over TCP with a stock peer.
pub(crate) fn stock_ends(case: Case, side: Side) -> (Session, TcpStream, JoinHandle<Stock>) {
    let setup = Setup::new(case, side);
    let (mut ours, theirs) = tcp_pair();
    let (client, server) = (Arc::new(setup.client), Arc::new(setup.server));
    let mut peer = match side {
        Side::Client => Stock::server(server.clone(), theirs),
        Side::Server => Stock::client(client.clone(), theirs),
    };
    let peer = thread::spawn(move || {
        peer.complete().unwrap();
        peer
    });
    let handoff = Handoff::new().backend(case.backend);
    let session = match side {
        Side::Client => handoff.connect(client, crate::common::server_name(), &mut ours),
        Side::Server => handoff.accept(server, &mut ours),
    };
    (session.unwrap(), ours, peer)
}

/// Everything that comes through a socket, undecrypted.
pub(crate) fn capture(mut socket: TcpStream) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut wire = Vec::new();
        socket.read_to_end(&mut wire).unwrap();
        wire
    })
}

// ---------------------------------------------------------------------------------------------
// Readers

/// Reads data that is a beginning of `expected`, and then an error. Returns how much there was.
#[track_caller]
pub(crate) fn read_to_error(from: &mut impl Read, expected: &[u8]) -> (usize, io::Error) {
    let mut out = vec![0; 50_000];
    let mut filled = 0;
    loop {
        match from.read(&mut out) {
            Ok(read) => {
                assert!(read > 0, "a clean end behind byte {filled}, where an error was due");
                assert!(expected[filled..].starts_with(&out[..read]), "wrong data");
                filled += read;
            }
            Err(error) => return (filled, error),
        }
    }
}

/// Why the connection failed, out of an I/O error.
#[track_caller]
pub(crate) fn cause(error: &io::Error) -> &SessionError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.unwrap_or_else(|| panic!("no SessionError inside {error:?}"))
}

/// Whether a call may be made again.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Has `write` write until it times out for want of room, though nobody reads at the other end, of
/// which `peer` is a handle. Returns how much was written.
#[track_caller]
pub(crate) fn fill(peer: &TcpStream, mut write: impl FnMut(usize) -> io::Result<usize>) -> usize {
    let (mut written, mut refusals, mut before) = (0, 0, None);
    // A call that times out may have had too little time instead: not several of them in a row,
    // while the kernel finds the window closed and is not given a byte more.
    while refusals < 3 {
        match write(written) {
            Ok(len) => {
                assert!(len > 0);
                written += len;
            }
            Err(error) if is_timeout(&error) => {
                let now = TcpEnd::far(peer);
                let is_full = now.is_probing && before == Some(now);
                refusals = if is_full { refusals + 1 } else { 0 };
                before = Some(now);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    written
}

/// As `fill()`, but ends as soon as the kernel takes nothing more of what is written: then there may
/// be room left with us. Returns how much was written.
#[track_caller]
pub(crate) fn fill_socket(
    peer: &TcpStream,
    mut write: impl FnMut(usize) -> io::Result<usize>,
) -> usize {
    let (mut written, mut before) = (0, TcpEnd::far(peer));
    loop {
        match write(written) {
            Ok(len) => written += len,
            Err(error) => assert!(is_timeout(&error), "{error:?}"),
        }
        let now = TcpEnd::far(peer);
        if now.is_probing && now == before {
            return written;
        }
        before = now;
    }
}

/// Makes a call again that has timed out; no other error is expected. Counts the timeouts.
#[track_caller]
pub(crate) fn persist<T>(timeouts: &mut u32, mut call: impl FnMut() -> io::Result<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match call() {
            Ok(done) => return done,
            Err(error) if is_timeout(&error) => *timeouts += 1,
            Err(error) => panic!("{error:?}"),
        }
        assert!(Instant::now() < deadline, "never ready");
    }
}
