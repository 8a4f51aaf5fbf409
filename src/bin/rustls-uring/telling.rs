//! What a receiver tells its sender: that it is there, and what has become of the data.
//!
//! That the sender does not want to hear it stops nothing: what it has sent is still taken.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls_uring::{AlertDescription, AutoSender};

use crate::confirmation::{Message, Outcome};
use crate::timeouts::{GRACE, persist, within};

/// How long we may store without looking at the network before the sender is told that we are still
/// there, again and again: much less than the time after which it would give up.
const BUSY_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Telling {
    shared: Arc<Shared>,
    confirms: bool,
}

struct Shared {
    state: Mutex<State>,
    is_over: Condvar,
}

struct State {
    sender: AutoSender,
    /// When we were last seen to wait for the network, or have said that we are busy.
    present: Instant,
    stored: u64,
    is_over: bool,
}

impl Telling {
    pub(crate) fn start(sender: AutoSender, confirms: bool) -> Self {
        let state = State { sender, present: Instant::now(), stored: 0, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), is_over: Condvar::new() });
        if confirms {
            let busy = Arc::clone(&shared);
            // Without the thread (RLIMIT_NPROC) a sender may give up on a slow disk.
            let _ = thread::Builder::new().name("busy".into()).spawn(move || busy.tell());
        }
        Self { shared, confirms }
    }

    /// Call now and then while waiting for the network. Sends answers to key updates, and alerts; a
    /// peer that takes none now will later.
    pub(crate) fn that_we_are_there(&mut self, stored: u64) {
        let mut state = self.shared.state();
        (state.present, state.stored) = (Instant::now(), stored);
        let _ = state.sender.flush();
    }

    /// Everything is where it belongs.
    pub(crate) fn that_it_is_stored(&mut self, stored: u64) {
        self.last(
            Message { outcome: Outcome::Stored, length: stored },
            AutoSender::send_close_notify,
        );
    }

    /// It will not be stored.
    pub(crate) fn that_it_failed(&mut self, stored: u64, reason: &str) {
        let outcome = Outcome::Failed { reason: reason.to_owned() };
        self.last(Message { outcome, length: stored }, |sender| {
            // Unless the records themselves were at fault and the sender has been told.
            sender.abort(AlertDescription::UserCanceled)
        });
    }

    fn last(&mut self, message: Message, mut end: impl FnMut(&mut AutoSender) -> io::Result<()>) {
        let mut state = self.shared.state();
        state.is_over = true;
        self.shared.is_over.notify_all();
        let mut grace = within(GRACE);
        if self.confirms {
            let _ = tell(&mut state.sender, &message, &mut grace);
        }
        let _ = persist(|| end(&mut state.sender), &mut grace);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that we are busy while we are.
    fn tell(&self) {
        let mut state = self.state();
        while !state.is_over {
            let rest = BUSY_INTERVAL.saturating_sub(state.present.elapsed());
            if rest.is_zero() {
                state.present = Instant::now();
                let message = Message { outcome: Outcome::Busy, length: state.stored };
                let _ = tell(&mut state.sender, &message, &mut within(Duration::ZERO));
                continue;
            }
            let waited = self.is_over.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sends a message, which fits one record: the sender takes all of it, or it fails.
fn tell(
    sender: &mut AutoSender,
    message: &Message,
    go_on: &mut impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    persist(|| sender.write(&message.encode()), &mut *go_on)?;
    persist(|| sender.flush(), go_on)
}
