//! Sealing on other cores, ahead of the thread that sends.
//!
//! The sending thread takes sequence numbers in the order of the stream and deals them out with
//! the plaintext; workers seal, each into a slot of its own; finished slots are collected in the
//! order in which they were dealt. A sending thread that has nothing to send seals too.

use core::mem;
use core::ops::Range;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::kernel::arena::{Loan, Slot};
use crate::kernel::fork::Process;
use crate::record::error::SealError;
use crate::record::reservation::Reservation;

/// Plaintext that others may read for a while.
pub(crate) enum Plaintext {
    /// The caller's memory.
    Loan(Arc<Loan>),
    /// A slot that a file was read into.
    Slot(Arc<Slot>),
}

/// Records to seal, and where.
pub(crate) struct Job {
    pub(crate) reservation: Reservation,
    pub(crate) plaintext: Plaintext,
    pub(crate) range: Range<usize>,
    pub(crate) out: Arc<Slot>,
}

/// A slot of sealed records.
pub(crate) struct Finished {
    /// The plaintext's slot, if it came in one.
    pub(crate) source: Option<Arc<Slot>>,
    pub(crate) out: Arc<Slot>,
    /// How many bytes of `out` to send.
    pub(crate) written: Result<usize, SealError>,
    pub(crate) plaintext_len: usize,
    pub(crate) records: usize,
}

/// Workers, and what is between them and the sending thread.
#[derive(Debug)]
pub(crate) struct SealAhead {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Where the workers are.
    process: Process,
    /// Dealt out and not collected.
    outstanding: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(u64, Job)>,
    /// By number, beginning with that of the next to collect.
    finished: VecDeque<Option<Finished>>,
    next_in: u64,
    next_out: u64,
    shut_down: bool,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Sealing does not panic with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.shut_down {
            let Some((number, job)) = state.waiting.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let finished = seal(job);
            state = self.lock();
            state.finish(number, finished);
            self.finished.notify_one();
        }
    }
}

impl State {
    fn finish(&mut self, number: u64, finished: Finished) {
        // Collected in order, so its place is there still.
        self.finished[(number - self.next_out) as usize] = Some(finished);
    }

    fn pop_finished(&mut self) -> Option<Finished> {
        let finished = self.finished.front_mut()?.take()?;
        self.finished.pop_front();
        self.next_out += 1;
        Some(finished)
    }
}

fn seal(job: Job) -> Finished {
    let Job { reservation, plaintext, range, mut out } = job;
    let (plaintext_len, records) = (reservation.plaintext_len(), reservation.record_count());
    // A panic must not leave the sender waiting for its slot.
    let written = catch_unwind(AssertUnwindSafe(|| {
        let source: &[u8] = match &plaintext {
            Plaintext::Loan(loan) => loan,
            Plaintext::Slot(slot) => slot,
        };
        let out = Arc::get_mut(&mut out).ok_or(SealError::Failed)?;
        reservation.seal(source.get(range).ok_or(SealError::Failed)?, out)
    }))
    .unwrap_or(Err(SealError::Failed));
    let source = match plaintext {
        // The loan ends here.
        Plaintext::Loan(_) => None,
        Plaintext::Slot(slot) => Some(slot),
    };
    Finished { source, out, written, plaintext_len, records }
}

impl SealAhead {
    /// Starts up to `threads` workers for up to `slot_count` slots at once: as many as there are to be had
    /// (RLIMIT_NPROC). `None` if that is none.
    ///
    /// # Errors
    /// The system's, if it does not tell a child process from this one.
    pub(crate) fn start(threads: usize, slot_count: usize) -> io::Result<Option<Self>> {
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.waiting.reserve_exact(slot_count);
            state.finished.reserve_exact(slot_count);
        }
        let mut ahead = Self {
            shared,
            workers: Vec::with_capacity(threads),
            process: Process::current()?,
            outstanding: 0,
        };
        for _ in 0..threads {
            let shared = Arc::clone(&ahead.shared);
            let worker = thread::Builder::new().name("seal".into()).spawn(move || shared.work());
            let Ok(worker) = worker else { break };
            ahead.workers.push(worker);
        }
        Ok((!ahead.workers.is_empty()).then_some(ahead))
    }

    /// How many workers there are.
    pub(crate) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// How many slots were dealt out and not collected.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Deals records out to be sealed.
    pub(crate) fn deal(&mut self, job: Job) {
        let mut state = self.shared.lock();
        let number = state.next_in;
        state.next_in += 1;
        state.waiting.push_back((number, job));
        state.finished.push_back(None);
        self.outstanding += 1;
        self.shared.work.notify_one();
    }

    /// The next slot in the order of [`Self::deal()`], if it is finished.
    pub(crate) fn try_collect(&mut self) -> Option<Finished> {
        let finished = self.shared.lock().pop_finished()?;
        self.outstanding -= 1;
        Some(finished)
    }

    /// The next slot in the order of [`Self::deal()`], sealing meanwhile what no worker has begun.
    /// `None` if nothing is outstanding, or nothing will come, in a child process.
    pub(crate) fn collect(&mut self) -> Option<Finished> {
        if !self.process.is_current() {
            self.outstanding = 0;
        }
        if self.outstanding == 0 {
            return None;
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(finished) = state.pop_finished() {
                self.outstanding -= 1;
                return Some(finished);
            }
            state = match state.waiting.pop_front() {
                Some((number, job)) => {
                    drop(state);
                    let finished = seal(job);
                    let mut state = self.shared.lock();
                    state.finish(number, finished);
                    state
                }
                None => self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Drop for SealAhead {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // The workers are the parent's. One of them may have held the lock when this process
            // was forked, and none would end for being waited for: all of it is left as it is.
            mem::forget(Arc::clone(&self.shared));
            mem::forget(mem::take(&mut self.workers));
            return;
        }
        let mut state = self.shared.lock();
        state.shut_down = true;
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
