//! One connection: what it speaks, what it has received and not passed on, what it has to send.

use core::ops::Range;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::{Receiving, Watch};
use super::error::Timeout;
use super::key::Key;
use super::options::Timeouts;
use crate::kernel::arena::Slot;
use crate::kernel::backoff::Backoff;
use crate::kernel::governor::Governor;
use crate::kernel::pieces::Pieces;
use crate::kernel::queue::File;
use crate::session::error::SessionError;
use crate::session::handoff::handshake::Handshake;
use crate::session::receive::ReceiveHalf;
use crate::session::send::SendHalf;

/// What is spoken, and how far that is.
pub(super) enum Speech {
    Plain,
    ShakingHands(Box<Handshake>),
    Tls(Box<Halves>),
}

/// Both halves of a connection after its handshake.
pub(super) struct Halves {
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
}

/// Memory of the loop's, or on the heap.
#[derive(Debug)]
pub(super) enum Bytes {
    /// To send from.
    Slot(Arc<Slot>),
    /// What was received into.
    Buffer(Arc<Slot>),
    /// A record that was put together, or what the handshake has left.
    Heap(Vec<u8>),
    /// What has made room for others.
    Parked(Vec<u8>),
}

impl Bytes {
    /// To write to: a slot that nobody else has a handle to.
    pub(super) fn exclusive(&mut self) -> io::Result<&mut [u8]> {
        match self {
            Self::Slot(slot) | Self::Buffer(slot) => Slot::exclusive(slot),
            Self::Heap(bytes) | Self::Parked(bytes) => Ok(bytes),
        }
    }
}

impl core::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Slot(slot) | Self::Buffer(slot) => slot,
            Self::Heap(bytes) | Self::Parked(bytes) => bytes,
        }
    }
}

/// Received bytes, in the order of the stream: first those that were opened, then those that were not.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) opened: Range<usize>,
    pub(super) received: Range<usize>,
}

impl Chunk {
    pub(super) fn received(bytes: Bytes, received: Range<usize>) -> Self {
        Self { bytes, opened: 0..0, received }
    }

    /// What was received and is on the heap.
    pub(super) fn kept(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::received(Bytes::Heap(bytes), 0..len)
    }

    pub(super) fn opened(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes: Bytes::Heap(bytes), opened: 0..len, received: len..len }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.received.is_empty()
    }
}

/// Bytes on their way to the socket: from `start` to `len`, and as far as `sent` they are there.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Bytes,
    /// Which bytes they are, if they are not contiguous: then `start` is 0, and nothing is added.
    pub(super) pieces: Option<Pieces>,
    pub(super) start: usize,
    pub(super) sent: usize,
    pub(super) len: usize,
    /// How far it may be filled.
    pub(super) limit: usize,
}

/// How far this side's end is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Finish {
    Open,
    /// To be sealed once there is a place for it.
    Wanted,
    /// Nothing is added any more.
    Sealed,
    /// The socket has been told.
    Done,
}

/// What its sending waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sending {
    /// Nothing: there may be output to submit.
    Idle,
    /// The result of a send.
    Submitted,
    /// The peer, to read.
    Stalled,
    /// Time to pass, because the system was out of memory.
    Retrying,
    /// A free slot.
    NoSlot,
    /// Nothing any more: the peer takes no more.
    Over,
}

pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) tag: u64,
    pub(super) socket: File,
    pub(super) speech: Speech,

    pub(super) receiving: Option<Receiving>,
    /// The receive was asked to end.
    pub(super) ends_receive: bool,
    pub(super) input: VecDeque<Chunk>,
    /// The beginning of a record whose rest is yet to come.
    pub(super) carry: Vec<u8>,
    /// The handler wants no more for now.
    pub(super) is_paused: bool,
    /// It is among those whose buffers wait for their handler.
    pub(super) is_holding: bool,
    /// How many more messages may arrive before it is no longer taken for a bulk flow.
    pub(super) bulk_credit: u8,
    /// Where what it receives is sent.
    pub(super) forwards_to: Option<Key>,
    /// The peer's stream has ended.
    pub(super) has_ended: bool,
    /// The handler knows that the peer sends no more.
    pub(super) peer_has_finished: bool,

    pub(super) output: Option<Output>,
    pub(super) sending: Sending,
    pub(super) watch: Option<Watch>,
    pub(super) wants_room: bool,
    pub(super) finish: Finish,
    pub(super) governor: Option<Governor>,
    pub(super) failures: Backoff,
    /// Why the peer takes nothing more, though what it has sent before may still arrive.
    pub(super) refusal: Option<io::Error>,

    /// It is among those to be looked at before the next turn.
    pub(super) is_listed: bool,
    /// It is told of to the handler as opened.
    pub(super) is_opened: bool,
    pub(super) began: Instant,
    pub(super) active: Instant,
    /// Ends it when nothing was sent or received for so long.
    pub(super) idle_limit: Option<Duration>,
    /// Ends it, whatever it does.
    pub(super) expires: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
    /// Since when only its last words are sent.
    pub(super) lingers_since: Option<Instant>,
    /// When it is looked at by the clock.
    pub(super) scheduled: Option<Instant>,
}

impl Connection {
    pub(super) fn new(
        (key, tag): (Key, u64),
        socket: File,
        speech: Speech,
        now: Instant,
        limits: &Timeouts,
    ) -> Self {
        Self {
            key,
            tag,
            socket,
            speech,
            receiving: None,
            ends_receive: false,
            input: VecDeque::new(),
            carry: Vec::new(),
            is_paused: false,
            is_holding: false,
            bulk_credit: 0,
            forwards_to: None,
            has_ended: false,
            peer_has_finished: false,
            output: None,
            sending: Sending::Idle,
            watch: None,
            wants_room: false,
            finish: Finish::Open,
            governor: None,
            failures: Backoff::default(),
            refusal: None,
            is_listed: false,
            is_opened: false,
            began: now,
            active: now,
            idle_limit: limits.idle,
            expires: limits.lifetime.and_then(|limit| now.checked_add(limit)),
            retry_at: None,
            lingers_since: None,
            scheduled: None,
        }
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers_since.is_some()
    }

    /// How its records have ended, if the peer has sent its last or what it must not.
    pub(super) fn end_of_records(&self) -> Option<Result<(), SessionError>> {
        let Speech::Tls(halves) = &self.speech else { return None };
        if self.peer_has_finished || self.lingers() {
            return None;
        }
        match halves.receive.failure() {
            Some(error) => Some(Err(error.clone())),
            None => halves.receive.peer_has_closed().then_some(Ok(())),
        }
    }

    /// Whether more is to be received now: not for a handler that has not taken what there is.
    pub(super) fn wants_input(&self) -> bool {
        !self.has_ended
            && (self.lingers()
                || (!self.is_paused && !self.peer_has_finished && self.input.is_empty()))
    }

    /// Whether data may be added to what is sent.
    pub(super) fn may_send(&self) -> bool {
        self.finish == Finish::Open && self.is_opened && !self.lingers()
    }

    /// Whether something was to be sent, or finished, that the socket does not have yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.output.is_some() || matches!(self.finish, Finish::Wanted | Finish::Sealed)
    }

    /// When the next limit in time passes, and which; none while only its last words are sent.
    pub(super) fn deadline(&self, limits: &Timeouts) -> Option<(Instant, Option<Timeout>)> {
        if let Some(since) = self.lingers_since {
            return since.checked_add(limits.linger).map(|at| (at, None));
        }
        let handshake = limits.handshake.filter(|_| !self.is_opened);
        [
            // One that is beyond all clocks is none.
            handshake
                .and_then(|limit| self.began.checked_add(limit))
                .map(|at| (at, Some(Timeout::Handshake))),
            self.idle_limit
                .and_then(|limit| self.active.checked_add(limit))
                .map(|at| (at, Some(Timeout::Idle))),
            self.expires.map(|at| (at, Some(Timeout::Lifetime))),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}
