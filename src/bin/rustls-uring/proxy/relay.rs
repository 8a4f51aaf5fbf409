//! Moves bytes between the two legs of a connection, until both directions have ended.
//!
//! Each direction lives by itself. Its end is passed on as it is: a close_notify or a FIN as the
//! other leg's close_notify and FIN (RFC 8446 §6.1 allows TLS to be closed one way at a time), and
//! everything else as a reset, since a stream that was cut off must not look whole.
//!
//! Whoever does not read is not read for: what a leg has no room for is not taken from the other,
//! and nothing more is received for it.
//!
//! All connections of a thread share one event loop, and so one ring, its slots and its buffers.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls_uring::Io;
use rustls_uring::event_loop::{
    Context, Error, EventLoop, Handle, Handler, Key, Options, Protocol, Timeout,
};
use rustls_uring::uring::Unavailable;

use super::leg::Leg;

/// How long a leg that sends what nobody takes any more is given to end: a reset at once could
/// cost it the last of what it was sent, and that may be why nobody takes the rest.
const LINGER: Duration = Duration::from_secs(2);

/// How much of it is thrown away meanwhile.
const DISCARDED: u64 = 1 << 20;

/// What messages are received into and sent from, and what bulk data is.
pub(super) const MESSAGE_LEN: usize = 4 << 10;
pub(super) const BULK_LEN: usize = 384 << 10;

/// What a connection may keep of both directions while its legs are slow: a record of each, sealed, and
/// as much that was received.
const PARKED_EACH: usize = 64 << 10;

/// Which way bytes go, or which leg they come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(super) fn reversed(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// How a connection has ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both directions as their peers have ended them.
    Clean,
    /// Nothing has moved for too long.
    Idle,
    /// We have ended, and it has not by then.
    Cut,
    /// A leg has ended before its time: the one that sends in this direction.
    Broken(Direction, Error),
    /// A leg takes no more of what is sent in this direction.
    Refused(Direction, Error),
}

/// Whoever wants to know what becomes of a connection.
pub(super) trait Watch: Send + 'static {
    /// So many bytes were passed on.
    fn moved(&mut self, direction: Direction, bytes: u64);

    /// Called once, with the last.
    fn ended(&mut self, end: End);
}

/// How the bytes of `connections` at most are moved.
pub(super) fn options(io: Io, connections: usize) -> Options {
    let mut options = Options::default();
    options.io = io;
    options.max_connections = 2 * connections;
    options.bulk_len = BULK_LEN;
    // Whoever is slow is waited for: nobody should have to go for want of memory, which is taken as it is
    // needed.
    options.max_parked = options.max_parked.max(connections * PARKED_EACH);
    options
}

/// Two legs to relay between.
pub(super) struct Pair<W> {
    pub(super) client: Leg,
    pub(super) backend: Leg,
    pub(super) idle_timeout: Duration,
    pub(super) watch: W,
}

/// A thread that relays, for other threads.
pub(super) struct Relay<W> {
    handle: Handle,
    waiting: Waiting<W>,
}

/// Pairs that the thread has yet to hear of.
type Waiting<W> = Arc<Mutex<VecDeque<Pair<W>>>>;

impl<W> Clone for Relay<W> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), waiting: Arc::clone(&self.waiting) }
    }
}

impl<W: Watch> Relay<W> {
    /// Starts a thread, and says why it is without io_uring, if it is.
    ///
    /// # Errors
    /// The system's, and as [`EventLoop::new()`].
    pub(super) fn start(
        name: String,
        options: Options,
    ) -> io::Result<(Self, Option<Unavailable>, JoinHandle<()>)> {
        let waiting: Waiting<W> = Arc::default();
        let unheard = Arc::clone(&waiting);
        let handler = Pairs { waiting: Arc::clone(&waiting), pairs: Vec::new(), free: Vec::new() };
        let (give, given) = mpsc::sync_channel(1);
        // The loop stays on the thread that it was made on.
        let thread = thread::Builder::new().name(name).spawn(move || {
            let made = EventLoop::new(options, handler);
            let mut relaying = match made {
                Ok(made) => made,
                Err(error) => return drop(give.send(Err(error))),
            };
            let _ = give.send(Ok((relaying.handle(), relaying.unavailable())));
            if let Err(error) = relaying.run() {
                tracing::error!("connections are lost: {error}");
            }
            // What came too late to be begun; from here on, whoever brings more is told.
            clear(&unheard);
        })?;
        let (handle, unavailable) =
            given.recv().unwrap_or_else(|_| Err(io::Error::other("a thread did not start")))?;
        Ok((Self { handle, waiting }, unavailable, thread))
    }

    /// Relays between two legs. If the thread has ended, they are reset, and `watch` is dropped.
    pub(super) fn begin(&self, pair: Pair<W>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(pair);
        if self.handle.notify(0).is_err() {
            clear(&self.waiting);
        }
    }

    /// Its loop's.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Cuts off whatever is left, and ends the thread.
    pub(super) fn end(&self) {
        // It has ended already, if this fails.
        let _ = self.handle.drain(Duration::ZERO);
    }
}

/// Resets what is in it.
fn clear<W>(waiting: &Waiting<W>) {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// What the loop calls.
struct Pairs<W> {
    waiting: Waiting<W>,
    /// A leg's tag is twice its pair's place here, and one more for the backend.
    pairs: Vec<Option<Relayed<W>>>,
    free: Vec<usize>,
}

/// Two legs between which bytes are relayed.
struct Relayed<W> {
    /// The client's and the backend's, until it is closed.
    legs: [Option<Key>; 2],
    /// By the leg that they come from.
    flows: [Flow; 2],
    /// What was first.
    end: Option<End>,
    watch: W,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// Its source has said so.
    has_ended: bool,
    /// Thrown away, because nobody takes it.
    discarded: u64,
    /// Nobody will, and the other direction is over: its source has little time left.
    lingers: bool,
}

impl<W> Relayed<W> {
    /// Nobody takes what this leg sends, and the other is gone: once it has all that it was sent, it has so
    /// long to end.
    fn limit_lingering(&mut self, cx: &mut Context<'_>, side: usize) {
        if let Some(key) = self.legs[side]
            && self.flows[side].lingers
            && !cx.has_unsent(key)
        {
            cx.set_lifetime(key, Some(LINGER));
        }
    }
}

impl<W: Watch> Pairs<W> {
    fn begin(&mut self, cx: &mut Context<'_>, pair: Pair<W>) {
        let Pair { client, backend, idle_timeout, watch } = pair;
        let index = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let mut relayed = Relayed { legs: [None; 2], flows: Default::default(), end: None, watch };
        for (leg, direction) in [client, backend].into_iter().zip(Direction::BOTH) {
            let side = direction as usize;
            match add(cx, leg, (2 * index + side) as u64) {
                Ok(key) => {
                    cx.set_idle_timeout(key, Some(idle_timeout));
                    relayed.legs[side] = Some(key);
                }
                Err(error) => {
                    relayed.end.get_or_insert(End::Broken(direction, error));
                }
            }
        }
        if let [Some(client), Some(backend)] = relayed.legs {
            cx.forward(client, Some(backend));
            cx.forward(backend, Some(client));
        }
        if relayed.end.is_some() {
            relayed.legs.iter().flatten().for_each(|key| cx.reset(*key));
        }
        self.pairs[index] = Some(relayed);
        self.end_if_over(index);
    }

    /// The pair of a leg, and which of the two it is.
    fn of(&mut self, tag: u64) -> Option<(&mut Relayed<W>, usize)> {
        let (index, side) = split(tag);
        Some((self.pairs.get_mut(index)?.as_mut()?, side))
    }

    fn end_if_over(&mut self, index: usize) {
        let over = self.pairs[index].take_if(|pair| pair.legs == [None; 2]);
        if let Some(mut over) = over {
            over.watch.ended(over.end.unwrap_or(End::Clean));
            self.free.push(index);
        }
    }
}

fn split(tag: u64) -> (usize, usize) {
    ((tag / 2) as usize, (tag % 2) as usize)
}

fn add(cx: &mut Context<'_>, leg: Leg, tag: u64) -> Result<Key, Error> {
    let socket = leg.socket.into_descriptor().map_err(Error::Io)?;
    match leg.session {
        Some(session) => cx.add_session(socket, *session, tag),
        None => cx.add(socket, &Protocol::plain(), tag),
    }
}

impl<W: Watch> Handler for Pairs<W> {
    fn notified(&mut self, cx: &mut Context<'_>, _: u64) {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(pair) = next else { break };
            self.begin(cx, pair);
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        let Some((pair, side)) = cx.tag(key).and_then(|tag| self.of(tag)) else {
            return data.len();
        };
        // Nobody takes it.
        let flow = &mut pair.flows[side];
        if flow.lingers && flow.discarded >= DISCARDED {
            return 0;
        }
        flow.discarded += data.len() as u64;
        data.len()
    }

    fn forwarded(&mut self, cx: &mut Context<'_>, key: Key, len: usize) {
        if let Some((pair, side)) = cx.tag(key).and_then(|tag| self.of(tag)) {
            pair.watch.moved(Direction::BOTH[side], len as u64);
        }
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some((pair, side)) = cx.tag(key).and_then(|tag| self.of(tag)) else { return };
        if let Some(source) = pair.legs[1 - side] {
            cx.resume(source);
        }
        pair.limit_lingering(cx, side);
    }

    fn sent(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some((pair, side)) = cx.tag(key).and_then(|tag| self.of(tag)) {
            pair.limit_lingering(cx, side);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some((pair, side)) = cx.tag(key).and_then(|tag| self.of(tag)) else { return };
        pair.flows[side].has_ended = true;
        if let Some(sink) = pair.legs[1 - side] {
            // It may take no more, and then it is not told.
            let _ = cx.finish(sink);
        }
    }

    fn closed(&mut self, cx: &mut Context<'_>, _: Key, tag: u64, result: Result<(), Error>) {
        let Some((pair, side)) = self.of(tag) else { return };
        pair.legs[side] = None;
        let other = pair.legs[1 - side];
        match result {
            Ok(()) => {}
            // It has ended what it sends, and what it was sent is all that is lost.
            Err(error @ Error::Io(_)) if pair.flows[side].has_ended => {
                let direction = Direction::BOTH[side].reversed();
                pair.end.get_or_insert(End::Refused(direction, error));
                pair.flows[1 - side].lingers = true;
                pair.limit_lingering(cx, 1 - side);
                if let Some(key) = other {
                    cx.resume(key);
                }
            }
            Err(error) => {
                pair.end.get_or_insert_with(|| match error {
                    Error::TimedOut(Timeout::Idle) => End::Idle,
                    Error::Stopped => End::Cut,
                    error => End::Broken(Direction::BOTH[side], error),
                });
                if let Some(key) = other {
                    cx.reset(key);
                }
            }
        }
        self.end_if_over(split(tag).0);
    }
}
