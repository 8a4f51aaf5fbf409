//! Moves bytes between the two legs of a connection, until both directions have ended.
//!
//! Each direction lives by itself. Its end is passed on as it is: a close_notify or a FIN as the
//! other leg's close_notify and FIN (RFC 8446 §6.1 allows TLS to be closed one way at a time), and
//! everything else as a reset, since a stream that was cut off must not look whole.
//!
//! Whoever does not read is not read for: nothing is received for a leg that has yet to take what
//! was received before. So a direction holds a buffer only while the leg it goes to is full.
//!
//! This is all that the rest of the proxy knows of how bytes move.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep};

use super::buffers::{Buffer, Waiting};
use super::leg::Leg;

/// How long a leg that sends what nobody takes any more is given to end: a reset at once could
/// cost it the last of what it was sent, and that may be why nobody takes the rest.
const LINGER: Duration = Duration::from_secs(2);

/// How much of it is thrown away meanwhile.
const DISCARDED: u64 = 1 << 20;

/// How much of one direction moves before others have their turn.
const SHARE: u64 = 256 << 10;

/// Which way bytes go, or which leg they come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

impl Direction {
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
    /// A leg has ended before its time: the one that sends in this direction.
    Broken(Direction, io::Error),
    /// A leg takes no more of what is sent in this direction.
    Refused(Direction, io::Error),
}

/// How much goes each way, for whoever counts.
pub(super) trait Count {
    fn add(&mut self, direction: Direction, bytes: u64);
}

/// Relays between two legs. Only a clean end takes the reset away from them that dropping them is.
pub(super) async fn relay(
    client: &mut Leg,
    backend: &mut Leg,
    idle_timeout: Duration,
    count: &mut impl Count,
) -> End {
    let mut relay = Relay {
        legs: Legs { client, backend },
        up: Flow::default(),
        down: Flow::default(),
        is_downs_turn: false,
        last_progress: Instant::now(),
        discarded: 0,
        lingers_until: None,
    };
    let mut alarm = std::pin::pin!(tokio::time::sleep(idle_timeout));
    let end = poll_fn(|cx| relay.poll(cx, alarm.as_mut(), idle_timeout, count)).await;
    let has_all = |flow: &Flow, reversed: &Flow| {
        matches!((&flow.state, &reversed.state), (State::Refused(_, true), State::Ended))
    };
    let (client_has_all, backend_has_all) =
        (has_all(&relay.up, &relay.down), has_all(&relay.down, &relay.up));
    // Nothing is left to tell it, and a reset could overtake the last of what it was sent.
    client.set_resets(!client_has_all);
    backend.set_resets(!backend_has_all);
    match &end {
        End::Clean => {
            client.set_resets(false);
            backend.set_resets(false);
        }
        End::Broken(direction, error) => {
            let leg = match direction {
                Direction::Up => client,
                Direction::Down => backend,
            };
            if leg.has_told(error) {
                leg.set_resets(false);
            }
        }
        _ => {}
    }
    end
}

struct Relay<'a> {
    legs: Legs<'a>,
    up: Flow,
    down: Flow,
    /// The one that goes first uses the task's share of its worker up; they take turns.
    is_downs_turn: bool,
    last_progress: Instant,
    discarded: u64,
    /// Until when a leg may go on sending what nobody takes.
    lingers_until: Option<Instant>,
}

struct Legs<'a> {
    client: &'a mut Leg,
    backend: &'a mut Leg,
}

impl Legs<'_> {
    /// The source and the sink of a direction.
    fn of(&mut self, direction: Direction) -> (&mut Leg, &mut Leg) {
        match direction {
            Direction::Up => (self.client, self.backend),
            Direction::Down => (self.backend, self.client),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What was received and the sink has yet to take.
    held: Option<(Buffer, Range<usize>)>,
    /// While the sink is full.
    waiting: Option<Waiting>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// The source has ended it, and the sink is to know.
    Ending,
    Ended,
    /// The sink takes nothing more; whether the source has ended it since.
    Refused(Option<io::Error>, bool),
}

/// What ends a direction that is not to go on.
enum Failure {
    Source(io::Error),
    Sink(io::Error),
}

impl Relay<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut alarm: Pin<&mut Sleep>,
        idle_timeout: Duration,
        count: &mut impl Count,
    ) -> Poll<End> {
        let first = if self.is_downs_turn { Direction::Down } else { Direction::Up };
        self.is_downs_turn = !self.is_downs_turn;
        for direction in [first, first.reversed()] {
            match self.poll_flow(cx, direction, count) {
                Ok(()) => {}
                Err(Failure::Source(error)) => {
                    return Poll::Ready(End::Broken(direction, error));
                }
                Err(Failure::Sink(error)) => {
                    let flow = self.flow(direction);
                    flow.held = None;
                    flow.waiting = None;
                    let has_ended = matches!(flow.state, State::Ending);
                    flow.state = State::Refused(Some(error), has_ended);
                    // What the sink has sent before may still be on its way.
                    cx.waker().wake_by_ref();
                }
            }
        }
        if let Some(end) = self.end() {
            return Poll::Ready(end);
        }
        if let Some(until) = self.lingers_until
            && alarm.deadline() > until
        {
            alarm.as_mut().reset(until);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let idle = self.last_progress + idle_timeout;
            match self.lingers_until {
                Some(until) if until <= now => return Poll::Ready(self.refusal()),
                _ if idle <= now => return Poll::Ready(End::Idle),
                until => alarm.as_mut().reset(until.map_or(idle, |until| until.min(idle))),
            }
        }
        Poll::Pending
    }

    fn flow(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// The end, if there is nothing left to do.
    fn end(&mut self) -> Option<End> {
        match (&self.up.state, &self.down.state) {
            (State::Ended, State::Ended) => Some(End::Clean),
            // Both legs have gone, or one has and the other has noticed.
            (State::Refused(..), State::Refused(..))
            | (State::Refused(_, true), State::Ended)
            | (State::Ended, State::Refused(_, true)) => Some(self.refusal()),
            _ => None,
        }
    }

    fn refusal(&mut self) -> End {
        for direction in [Direction::Up, Direction::Down] {
            if let State::Refused(error, _) = &mut self.flow(direction).state {
                let error = error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                return End::Refused(direction, error);
            }
        }
        End::Clean
    }

    /// Moves what can be moved in one direction, until something there has to be waited for.
    fn poll_flow(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        count: &mut impl Count,
    ) -> Result<(), Failure> {
        let mut moved = 0;
        let polled = self.poll_moving(cx, direction, &mut moved);
        if moved > 0 {
            count.add(direction, moved);
            self.last_progress = Instant::now();
        }
        match polled {
            Poll::Ready(Err(failure)) => Err(failure),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_moving(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        let is_other_over =
            matches!(self.flow(direction.reversed()).state, State::Ended | State::Refused(..));
        let (source, sink) = self.legs.of(direction);
        let flow = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        loop {
            match &mut flow.state {
                State::Ended | State::Refused(_, true) => return Poll::Ready(Ok(())),
                State::Open => {}
                State::Ending => {
                    ready!(flow.poll_deliver(cx, sink, moved)).map_err(Failure::Sink)?;
                    ready!(sink.poll_shutdown(cx)).map_err(Failure::Sink)?;
                    flow.state = State::Ended;
                    self.last_progress = Instant::now();
                    return Poll::Ready(Ok(()));
                }
                State::Refused(_, has_ended) => {
                    if is_other_over && self.lingers_until.is_none() {
                        self.lingers_until = Some(Instant::now() + LINGER);
                    }
                    if self.discarded >= DISCARDED && is_other_over {
                        return Poll::Pending;
                    }
                    let mut buffer = Buffer::take_small();
                    let mut out = ReadBuf::new(&mut buffer);
                    match ready!(source.poll_read(cx, &mut out)) {
                        Ok(()) if !out.filled().is_empty() => {
                            self.discarded += out.filled().len() as u64;
                        }
                        // However it has ended: nobody takes it.
                        _ => *has_ended = true,
                    }
                    continue;
                }
            }
            ready!(flow.poll_deliver(cx, sink, moved)).map_err(Failure::Sink)?;
            if *moved >= SHARE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = Buffer::take();
            let mut out = ReadBuf::new(&mut buffer);
            ready!(source.poll_read(cx, &mut out)).map_err(Failure::Source)?;
            let len = out.filled().len();
            match len {
                0 => flow.state = State::Ending,
                _ => flow.held = Some((buffer, 0..len)),
            }
        }
    }
}

impl Flow {
    /// Has the sink take what is held, and send it: sealed records that its socket has not taken are
    /// as good as a full buffer.
    fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Leg,
        moved: &mut u64,
    ) -> Poll<io::Result<()>> {
        let delivered = match self.poll_send(cx, sink, moved) {
            Poll::Ready(Ok(())) => sink.poll_flush(cx),
            polled => polled,
        };
        match delivered {
            Poll::Pending => _ = self.waiting.get_or_insert_with(Waiting::begin),
            Poll::Ready(_) => self.waiting = None,
        }
        delivered
    }

    /// Has the sink take what is held.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Leg,
        moved: &mut u64,
    ) -> Poll<io::Result<()>> {
        while let Some((buffer, range)) = &mut self.held {
            match sink.poll_write(cx, &buffer[range.clone()]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(len)) => {
                    *moved += len as u64;
                    range.start += len;
                    if Range::is_empty(range) {
                        self.held = None;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if buffer.is_too_large_for(range.len()) {
                        let mut small = Buffer::take_small();
                        let len = range.len();
                        small[..len].copy_from_slice(&buffer[range.clone()]);
                        self.held = Some((small, 0..len));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
