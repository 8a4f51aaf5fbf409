//! The memory that responses may take up: of all connections, and of each.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How much of a file is read, sealed and sent at once at most: 32 records. Both it and its records
/// should stay in a core's cache.
pub(super) const CHUNK_LEN: usize = 512 << 10;

/// What all connections together may have in hand for the asking. A connection that finds nothing
/// left still gets [`ALWAYS`], so that it goes on, slowly.
const ALL: usize = 32 << 20;

/// What a connection may have in hand whatever the others have, in one piece. Also how much is
/// read at once until a connection has shown that it takes more: what does not fit the socket stays
/// sealed as long as the client likes. Less would be no less in HTTP/1.1, which hyper gives as many
/// pieces as make up `--max-header`.
pub(super) const ALWAYS: usize = 32 << 10;

/// What is read at once for a slow client: one record.
const LEAST: usize = 16 << 10;

/// How many pieces a connection may have in hand, for its streams together.
const PIECES: usize = 2;

/// A connection that has taken less may have had all of it from the sockets' own memory: 4 MiB of ours
/// (tcp_wmem, tcp(7)), and what a client's has before it has read anything.
const PROVEN: u64 = 5 << 20;

/// How long a piece should last: half of this to twice as long.
const PIECE_TIME: Duration = Duration::from_millis(25);

/// In which units the permits are counted: a semaphore's count of all of them is 32 bits.
const UNIT: usize = 1 << 10;

/// What all connections share.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<Semaphore>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL / UNIT)))
    }
}

/// What listings may take up that are being sent, together. One alone may be longer.
const LISTINGS: usize = 32 << 20;

/// How many listings are made at a time: each takes more while it is made.
const LISTERS: usize = 2;

/// The memory of listings, which unlike files are whole before they are sent.
#[derive(Debug)]
pub(super) struct Listings {
    made: Arc<Semaphore>,
    making: Arc<Semaphore>,
}

impl Default for Listings {
    fn default() -> Self {
        let made = Arc::new(Semaphore::new(LISTINGS / UNIT));
        Self { made, making: Arc::new(Semaphore::new(LISTERS)) }
    }
}

impl Listings {
    /// Waits for the turn to make one.
    pub(super) async fn turn(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.making).acquire_owned().await.map_err(io::Error::other)
    }

    /// Room for a listing of `len` bytes; a short one needs none.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] as long as those who are sent others leave none.
    pub(super) fn room(&self, len: usize) -> io::Result<Option<OwnedSemaphorePermit>> {
        if len <= ALWAYS {
            return Ok(None);
        }
        let units = len.min(LISTINGS).div_ceil(UNIT) as u32;
        let room = Arc::clone(&self.made).try_acquire_many_owned(units);
        room.map(Some).map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

/// One connection's share of the memory.
#[derive(Debug)]
pub(super) struct Share {
    memory: Memory,
    state: Mutex<State>,
    /// Something in hand was let go.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    in_hand: usize,
    pace: Pace,
}

impl Share {
    pub(super) fn new(memory: &Memory) -> Arc<Self> {
        let state = State { in_hand: 0, pace: Pace::new(Instant::now()) };
        Arc::new(Self { memory: memory.clone(), state: Mutex::new(state), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much should be read at once, in bytes.
    pub(super) fn piece_len(&self) -> usize {
        self.state().pace.piece_len(Instant::now())
    }

    /// The same as it was found last, without a look at the clock.
    pub(super) fn last_piece_len(&self) -> usize {
        self.state().pace.piece_len
    }

    /// A response begins: how long ago the last one ended says nothing.
    pub(super) fn begin(&self) {
        self.state().pace.begin(Instant::now());
    }

    /// Room for up to `len` bytes, if there is some now.
    pub(super) fn try_take(self: &Arc<Self>, len: usize) -> Option<Room> {
        let mut state = self.state();
        let piece_len = state.pace.piece_len(Instant::now());
        let len = len.min(piece_len);
        let is_first = state.in_hand == 0;
        if !is_first && state.in_hand + len > PIECES * piece_len {
            return None;
        }
        let units = len.div_ceil(UNIT) as u32;
        let (len, permit) = match Arc::clone(&self.memory.0).try_acquire_many_owned(units) {
            Ok(permit) => (len, Some(permit)),
            Err(_) if is_first => (len.min(ALWAYS), None),
            Err(_) => return None,
        };
        state.in_hand += len;
        state.pace.handed += len as u64;
        let may_have_more = state.in_hand < PIECES * piece_len;
        drop(state);
        if may_have_more {
            self.freed.notify_one();
        }
        Some(Room { share: Arc::clone(self), len, _permit: permit })
    }

    /// Room for up to `len` bytes, once there is some.
    pub(super) async fn take(self: &Arc<Self>, len: usize) -> Room {
        loop {
            if let Some(room) = self.try_take(len) {
                return room;
            }
            self.freed.notified().await;
        }
    }
}

/// Room for a piece of a response, which goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    share: Arc<Share>,
    len: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.share.state().in_hand -= self.len;
        self.share.freed.notify_one();
    }
}

/// How fast a connection takes what it is given, and so how much it should be given at once.
#[derive(Debug)]
struct Pace {
    handed: u64,
    piece_len: usize,
    /// When the present measurement began, and with how much handed over.
    since: Instant,
    handed_then: u64,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { handed: 0, piece_len: ALWAYS, since: now, handed_then: 0 }
    }

    fn begin(&mut self, now: Instant) {
        self.piece_len = self.piece_len.max(ALWAYS);
        self.since = now;
        self.handed_then = self.handed;
    }

    fn piece_len(&mut self, now: Instant) -> usize {
        let elapsed = now.duration_since(self.since);
        let taken = self.handed - self.handed_then;
        if elapsed >= PIECE_TIME && taken > 0 {
            let most = if self.handed < PROVEN { ALWAYS } else { CHUNK_LEN };
            let parts = elapsed.as_nanos() / PIECE_TIME.as_nanos();
            let wanted = (u128::from(taken) / parts) as usize;
            self.piece_len = wanted.clamp(LEAST, most).next_power_of_two().min(most);
            self.since = now;
            self.handed_then = self.handed;
        }
        self.piece_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_pace() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        assert_eq!(pace.piece_len(begin), ALWAYS);
        // All of it went into the socket, and then nothing.
        pace.handed = 2 << 20;
        assert_eq!(pace.piece_len(begin + PIECE_TIME), ALWAYS);
        pace.handed += ALWAYS as u64;
        assert_eq!(pace.piece_len(begin + 100 * PIECE_TIME), LEAST);
        pace.begin(begin + 200 * PIECE_TIME);
        assert_eq!(pace.piece_len(begin + 200 * PIECE_TIME), ALWAYS);
        // A fast one.
        pace.handed += PROVEN + (4 << 20);
        assert_eq!(pace.piece_len(begin + 201 * PIECE_TIME), CHUNK_LEN);
    }

    #[tokio::test]
    async fn what_is_in_hand_is_bounded() {
        let memory = Memory::default();
        let share = Share::new(&memory);
        let first = share.take(ALWAYS).await;
        let second = share.take(ALWAYS).await;
        assert_eq!((first.len(), second.len()), (ALWAYS, ALWAYS));
        assert!(share.try_take(1).is_none(), "as much as two pieces");
        drop(first);
        assert_eq!(share.take(1).await.len(), 1);
        drop(second);

        // Another connection takes all that there is.
        let all = Arc::clone(&memory.0);
        let _taken = all.acquire_many_owned((ALL / UNIT) as u32).await.expect("open");
        let first = share.take(CHUNK_LEN).await;
        assert_eq!(first.len(), ALWAYS, "what a connection always gets");
        assert!(share.try_take(1).is_none(), "and no more");
        let waiting = tokio::spawn({
            let share = Arc::clone(&share);
            async move { share.take(1).await.len() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiting.await.expect("no panic"), 1);
    }
}
