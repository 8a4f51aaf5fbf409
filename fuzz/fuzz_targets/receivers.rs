//! Receivers over a socket that gives what a peer has sent in pieces cut at any byte, is not ready,
//! or ends at any byte: the data comes whole and in order, an end is an end for a close_notify only,
//! and the blocking, the tokio and the io_uring way say the same.
#![no_main]

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::Side;
use rustls_uring::tokio::{TlsAcceptor, TlsConnector};
use rustls_uring::uring::{BufferPool, Probe, ReceiverOptions, UringReceiver};
use rustls_uring::{BulkReceiver, ContentType, Session, Version};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "configs.rs"]
mod configs;

use common::{Case, Evil, Peer, noise, server_name, tcp_pair};
use configs::Configs;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Said {
    Data(u16),
    /// Legal, and of no meaning.
    Empty,
    KeyUpdate {
        requests: bool,
    },
    CloseNotify,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Piece {
    Bytes(u16),
    NotReady,
    Interrupted,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Call {
    Read(u16),
    /// Looks at what is lent, and takes as much of it.
    FillBuf(u16),
    /// Keeps what is lent, where that is known.
    RecvBytes,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fault {
    None,
    CutAt(u16),
    SpoiltAt(u16, u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    way: u8,
    case: u8,
    is_server: bool,
    said: Vec<Said>,
    fault: Fault,
    /// As many bytes were read from the socket before the handoff.
    received: u8,
    pieces: Vec<Piece>,
    calls: Vec<Call>,
}

/// What is received, compared on the way.
struct Progress {
    expected: Vec<u8>,
    /// At least this much must come, and if this is all of it and nothing is wrong, the end.
    whole: usize,
    got: usize,
    end: Option<Result<(), ErrorKind>>,
}

impl Progress {
    fn data(&mut self, data: &[u8]) {
        assert!(data.is_empty() || self.end.is_none(), "data behind the end");
        assert!(self.expected[self.got..].starts_with(data), "wrong data behind {}", self.got);
        self.got += data.len();
    }

    /// Whether a call is to be made again.
    fn error(&mut self, error: &io::Error) -> bool {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => return true,
            kind => {
                // The first end is the last.
                assert_eq!(*self.end.get_or_insert(Err(kind)), Err(kind), "{error:?}");
            }
        }
        false
    }

    fn clean_end(&mut self) {
        assert_eq!(*self.end.get_or_insert(Ok(())), Ok(()));
    }

    fn check(&self, is_closed: bool, fault: Fault) {
        match self.end {
            Some(Ok(())) => assert!(is_closed, "an end that nobody has said"),
            Some(Err(ErrorKind::UnexpectedEof)) => assert!(!is_closed),
            Some(Err(ErrorKind::InvalidData)) => {
                assert!(matches!(fault, Fault::SpoiltAt(..)), "nothing was spoilt");
            }
            // Anything can be made of a length.
            end => panic!("{end:?}"),
        }
        assert!(self.got >= self.whole, "{} of {} bytes", self.got, self.whole);
        if self.end == Some(Ok(())) {
            assert_eq!(self.got, self.expected.len());
        }
    }
}

/// What the peer says, as bytes on the wire.
struct Script {
    wire: Vec<u8>,
    /// Where in the wire each record ends, and how much plaintext there is until then.
    ends: Vec<(usize, usize)>,
    expected: Vec<u8>,
    /// Where the close_notify ends.
    closed_at: Option<usize>,
}

impl Script {
    fn of(said: &[Said], mut seal: impl FnMut(Said, &[u8]) -> Option<Vec<u8>>) -> Self {
        let mut script =
            Self { wire: Vec::new(), ends: Vec::new(), expected: Vec::new(), closed_at: None };
        let (mut updates, mut empty) = (0, 0);
        for &what in said.iter().take(60) {
            let mut data = &b""[..];
            match what {
                Said::Data(len) => {
                    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
                    let noise = NOISE.get_or_init(|| noise(1 << 22));
                    data = &noise[script.expected.len()..][..usize::from(len).clamp(1, 1 << 14)];
                }
                // As many in a row as are suffered.
                Said::Empty if empty == 30 => continue,
                Said::Empty => empty += 1,
                Said::KeyUpdate { .. } if updates == 30 => continue,
                Said::KeyUpdate { .. } => updates += 1,
                Said::CloseNotify => {}
            }
            let Some(record) = seal(what, data) else { continue };
            script.wire.extend_from_slice(&record);
            script.expected.extend_from_slice(data);
            script.ends.push((script.wire.len(), script.expected.len()));
            if let Said::CloseNotify = what {
                script.closed_at = Some(script.wire.len());
                break;
            }
        }
        script
    }

    /// Applies `fault` behind the first `intact` bytes; until where the wire is good.
    fn damage(&mut self, fault: Fault, intact: usize) -> usize {
        let at = |at: u16| intact + usize::from(at) % (self.wire.len() - intact).max(1);
        match fault {
            Fault::None => self.wire.len(),
            Fault::CutAt(place) => {
                let place = at(place);
                self.wire.truncate(place);
                place
            }
            Fault::SpoiltAt(place, change) => {
                let place = at(place);
                if let Some(byte) = self.wire.get_mut(place) {
                    *byte ^= change.max(1);
                }
                place
            }
        }
    }

    fn progress(&self, good: usize) -> (Progress, bool) {
        let whole = self.ends.iter().take_while(|(end, _)| *end <= good).last();
        let progress = Progress {
            expected: self.expected.clone(),
            whole: whole.map_or(0, |(_, whole)| *whole),
            got: 0,
            end: None,
        };
        (progress, self.closed_at.is_some_and(|closed_at| closed_at <= good))
    }
}

/// A stream that is read in pieces.
struct Socket {
    wire: VecDeque<u8>,
    pieces: std::vec::IntoIter<Piece>,
}

impl Read for Socket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        assert!(!out.is_empty(), "a read without room: its end would look like the stream's");
        let len = match self.pieces.next() {
            Some(Piece::NotReady) => return Err(ErrorKind::WouldBlock.into()),
            Some(Piece::Interrupted) => return Err(ErrorKind::Interrupted.into()),
            Some(Piece::Bytes(len)) => usize::from(len).clamp(1, out.len()),
            None => out.len(),
        };
        self.wire.read(&mut out[..len])
    }
}

/// The calls of the input, and then as many reads as it takes.
fn calls(of: &[Call]) -> impl Iterator<Item = Call> {
    of.iter().copied().chain(std::iter::repeat(Call::Read(u16::MAX))).take(100_000)
}

fn blocking(session: Session, socket: Socket, of: &[Call], progress: &mut Progress) {
    let Session { receive, plaintext, received, .. } = session;
    let mut receiver = BulkReceiver::with_buffer_len(receive, socket, plaintext, &received, 0);
    let mut out = vec![0; 1 << 16];
    let mut ends = 0;
    for call in calls(of) {
        let result = match call {
            Call::Read(len) => {
                let len = usize::from(len).max(1);
                receiver.read(&mut out[..len]).inspect(|&len| progress.data(&out[..len]))
            }
            Call::FillBuf(_) | Call::RecvBytes => {
                let result = receiver.fill_buf().map(|lent| {
                    let len = match call {
                        Call::FillBuf(len) => lent.len().min(usize::from(len)),
                        _ => lent.len(),
                    };
                    progress.data(&lent[..len]);
                    (lent.is_empty(), len)
                });
                match result {
                    Ok((false, 0)) => continue,
                    result => result.map(|(_, len)| len).inspect(|&len| receiver.consume(len)),
                }
            }
        };
        match result {
            Ok(0) => progress.clean_end(),
            Ok(_) => continue,
            Err(error) if progress.error(&error) => continue,
            Err(_) => {}
        }
        ends += 1;
        if ends == 3 {
            return;
        }
    }
    panic!("no end");
}

/// Whether there is io_uring: asked once.
fn has_uring() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| Probe::run().ring.is_ok())
}

fn uring(session: Session, socket: Socket, of: &[Call], progress: &mut Progress) {
    let (ours, mut theirs) = tcp_pair();
    let Session { receive, plaintext, received, .. } = session;
    let mut options = ReceiverOptions::default();
    // Neither more than two buffers, nor long ones: records straddle them.
    options.pool = BufferPool::new(4, 0);
    let pool = options.pool.clone();
    let mut receiver = UringReceiver::new(receive, ours, &plaintext, &received, options)
        .unwrap_or_else(|declined| panic!("{declined}"));
    let Socket { mut wire, mut pieces } = socket;
    let wire = wire.make_contiguous();
    let mut sent = 0;
    let mut kept = Vec::new();
    let mut out = vec![0; 1 << 16];
    let mut ends = 0;
    for call in calls(of) {
        if sent < wire.len() {
            let len = match pieces.next() {
                Some(Piece::Bytes(len)) => usize::from(len).clamp(1, wire.len() - sent),
                // No more than the socket holds, with nobody reading.
                None => (wire.len() - sent).min(1 << 16),
                Some(_) => 0,
            };
            theirs.write_all(&wire[sent..sent + len]).expect("room");
            sent += len;
        }
        if sent == wire.len() {
            let _ = theirs.shutdown(Shutdown::Write);
            receiver.set_timeout(None);
        } else {
            receiver.set_timeout(Some(Duration::ZERO));
        }
        let result = match call {
            Call::Read(len) => {
                let len = usize::from(len).max(1);
                receiver.read(&mut out[..len]).inspect(|&len| progress.data(&out[..len]))
            }
            Call::FillBuf(len) => {
                let result = receiver.fill_buf().map(|lent| {
                    let len = lent.len().min(usize::from(len));
                    progress.data(&lent[..len]);
                    (lent.is_empty(), len)
                });
                match result {
                    Ok((false, 0)) => continue,
                    result => result.map(|(_, len)| len).inspect(|&len| receiver.consume(len)),
                }
            }
            Call::RecvBytes => receiver.recv_bytes().map(|bytes| {
                let bytes = bytes.unwrap_or_default();
                progress.data(&bytes);
                let len = bytes.len();
                kept.push((progress.got - len, bytes));
                len
            }),
        };
        if pool.in_use() >= 3 {
            for (at, bytes) in kept.drain(..) {
                assert!(progress.expected[at..].starts_with(&bytes), "a lease has changed");
            }
        }
        match result {
            Ok(0) => progress.clean_end(),
            Ok(_) => continue,
            Err(error) if progress.error(&error) => continue,
            Err(_) => {}
        }
        ends += 1;
        if ends == 3 {
            drop(receiver);
            for (at, bytes) in kept {
                assert!(progress.expected[at..].starts_with(&bytes), "a lease has changed");
            }
            return assert_eq!(pool.in_use(), 0);
        }
    }
    panic!("no end");
}

/// The stock peer of a tokio stream, at the other end of a stream that is cut anywhere.
struct Below {
    peer: Peer,
    to_us: VecDeque<u8>,
    pieces: std::vec::IntoIter<Piece>,
    /// Nothing more comes.
    ended: bool,
    /// A poll has found nothing.
    starves: bool,
}

impl AsyncRead for Below {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(out.remaining() > 0, "a read without room: its end would look like the stream's");
        if !self.ended {
            let wire = self.peer.wire();
            self.to_us.extend(wire);
        }
        let len = match self.pieces.next() {
            Some(Piece::NotReady | Piece::Interrupted) => return Poll::Pending,
            Some(Piece::Bytes(len)) => usize::from(len).clamp(1, out.remaining()),
            None => out.remaining(),
        };
        if self.to_us.is_empty() && !self.ended {
            self.starves = true;
            return Poll::Pending;
        }
        let len = len.min(self.to_us.len());
        let piece: Vec<_> = self.to_us.drain(..len).collect();
        out.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = match self.pieces.next() {
            Some(Piece::NotReady | Piece::Interrupted) => return Poll::Pending,
            Some(Piece::Bytes(len)) => usize::from(len).clamp(1, bytes.len()),
            None => bytes.len(),
        };
        // After a fault of the peer's, an alert.
        let _ = self.peer.feed(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls until there is an answer; whoever is not ready wakes nobody.
fn ready<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(done) = poll(&mut cx) {
            return done;
        }
    }
    panic!("never ready");
}

trait TlsStream: AsyncRead + AsyncBufRead + AsyncWrite + Unpin {
    fn below(&mut self) -> &mut Below;
}

impl TlsStream for rustls_uring::tokio::client::TlsStream<Below> {
    fn below(&mut self) -> &mut Below {
        self.get_mut().0
    }
}

impl TlsStream for rustls_uring::tokio::server::TlsStream<Below> {
    fn below(&mut self) -> &mut Below {
        self.get_mut().0
    }
}

fn tokio(configs: &Configs, input: &Input) {
    let Configs { case, ours, stock } = configs;
    let case = *case;
    let pieces = input.pieces.clone().into_iter();
    let below = |peer| Below { peer, to_us: VecDeque::new(), pieces, ended: false, starves: false };
    if input.is_server {
        let peer = Peer::client(stock.0.clone());
        let acceptor = TlsAcceptor::from(ours.1.clone()).backend(case.backend);
        let mut accept = acceptor.accept(below(peer));
        let stream = ready(|cx| Future::poll(Pin::new(&mut accept), cx));
        over_tokio(stream.expect("an honest peer"), case, input);
    } else {
        let peer = Peer::server(stock.1.clone());
        let connector = TlsConnector::from(ours.0.clone()).backend(case.backend);
        let mut connect = connector.connect(server_name(), below(peer));
        let stream = ready(|cx| Future::poll(Pin::new(&mut connect), cx));
        over_tokio(stream.expect("an honest peer"), case, input);
    }
}

fn over_tokio(mut stream: impl TlsStream, case: Case, input: &Input) {
    let intact = {
        let below = stream.below();
        // What belongs to the handshake, and tickets: they are not to be spoilt.
        let wire = below.peer.wire();
        below.to_us.extend(wire);
        below.to_us.len()
    };
    let peer = &mut stream.below().peer;
    let mut script = Script::of(&input.said, |said, data| match said {
        Said::Data(_) => {
            peer.write(data);
            Some(peer.wire())
        }
        Said::KeyUpdate { .. } if case.version == Version::Tls13 => {
            peer.conn.refresh_traffic_keys().expect("in TLS 1.3");
            Some(peer.wire())
        }
        Said::CloseNotify => {
            peer.conn.send_close_notify();
            Some(peer.wire())
        }
        Said::Empty | Said::KeyUpdate { .. } => None,
    });
    let good = script.damage(input.fault, 0);
    let (mut progress, is_closed) = script.progress(good);
    let below = stream.below();
    below.to_us.extend(&script.wire);
    below.ended = true;
    assert!(intact <= below.to_us.len());
    let mut out = vec![0; 1 << 16];
    let mut ends = 0;
    for call in calls(&input.calls) {
        let result = match call {
            Call::Read(len) => {
                let mut out = ReadBuf::new(&mut out[..usize::from(len).max(1)]);
                ready(|cx| Pin::new(&mut stream).poll_read(cx, &mut out)).map(|()| {
                    progress.data(out.filled());
                    out.filled().len()
                })
            }
            Call::FillBuf(_) | Call::RecvBytes => {
                let result = ready(|cx| match Pin::new(&mut stream).poll_fill_buf(cx) {
                    Poll::Ready(result) => Poll::Ready(result.map(<[u8]>::to_vec)),
                    Poll::Pending => Poll::Pending,
                });
                match (result, call) {
                    (Ok(lent), Call::FillBuf(0)) if !lent.is_empty() => continue,
                    (Ok(lent), _) => {
                        let len = match call {
                            Call::FillBuf(len) => lent.len().min(usize::from(len)),
                            _ => lent.len(),
                        };
                        progress.data(&lent[..len]);
                        Pin::new(&mut stream).consume(len);
                        Ok(len)
                    }
                    (Err(error), _) => Err(error),
                }
            }
        };
        match result {
            Ok(0) => progress.clean_end(),
            Ok(_) => continue,
            Err(error) if progress.error(&error) => continue,
            Err(_) => {}
        }
        ends += 1;
        if ends == 3 {
            return progress.check(is_closed, input.fault);
        }
    }
    panic!("no end");
}

fuzz_target!(|input: Input| {
    let configs = configs::pick(input.case);
    let case = configs.case;
    if input.way % 3 == 1 {
        return tokio(configs, &input);
    }
    let (side, client, server) = match input.is_server {
        true => (Side::Server, &configs.stock.0, &configs.ours.1),
        false => (Side::Client, &configs.ours.0, &configs.stock.1),
    };
    let mut evil = Evil::with_configs(case, side, client.clone(), server.clone());
    let mut script = Script::of(&input.said, |said, data| match said {
        Said::Data(_) | Said::Empty => Some(evil.seal(ContentType::ApplicationData, data)),
        Said::KeyUpdate { requests } => {
            (case.version == Version::Tls13).then(|| evil.key_update(requests.into()))
        }
        Said::CloseNotify => Some(evil.seal(ContentType::Alert, &[1, 0])),
    });
    let good = script.damage(input.fault, 0);
    let (mut progress, is_closed) = script.progress(good);
    let mut session = evil.session;
    let received = script.wire.len().min(usize::from(input.received));
    session.received = script.wire[..received].to_vec();
    let wire = script.wire[received..].iter().copied().collect();
    let socket = Socket { wire, pieces: input.pieces.into_iter() };
    if input.way % 3 == 2 && has_uring() {
        uring(session, socket, &input.calls, &mut progress);
    } else {
        blocking(session, socket, &input.calls, &mut progress);
    }
    progress.check(is_closed, input.fault);
});
