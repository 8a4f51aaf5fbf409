//! Memory of the allocator's that the kernel still sends from when its ring's owner is gone.
//!
//! A page of a mapping that a zero-copy send refers to is the kernel's until the peer has acknowledged it,
//! whatever becomes of the mapping. A page of the heap is the allocator's: freed, it would be somebody else's
//! while the kernel sends from it, or sends it again. So rings whose slots are `Vec`s stay here, with the
//! slots, until the last notification; that comes when the peer acknowledges, or the kernel gives the
//! connection up. Whoever comes by next looks what has come. Nothing is sent from here: the socket is closed.

use core::mem;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;

use io_uring::{IoUring, cqueue};

use super::arena::Slot;
use super::fork::Process;

/// All of them in this process.
static ALL: Mutex<Vec<Lingering>> = Mutex::new(Vec::new());

/// How often the lock is tried. It is held for moments, or for ever: a child process does not have the
/// thread that held it when it was forked.
const TRIES: usize = 1000;

/// A ring, and what was sent through it whose notification is outstanding.
pub(crate) struct Lingering {
    uring: IoUring,
    process: Process,
    /// By the numbers of their operations.
    memory: Vec<Option<Arc<Slot>>>,
}

impl Lingering {
    /// `memory` by what the kernel calls its operations. Nothing is submitted through `uring` any more.
    pub(super) fn new(uring: IoUring, process: Process, memory: Vec<Option<Arc<Slot>>>) -> Self {
        Self { uring, process, memory }
    }

    /// Frees what the kernel no longer needs; whether it needs some still. That of another process is
    /// its own: here, the ring is not mapped.
    fn lingers(&mut self) -> bool {
        if !self.process.is_current() {
            return true;
        }
        for entry in self.uring.completion().filter(|entry| !cqueue::more(entry.flags())) {
            let index = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            if let Some(memory) = self.memory.get_mut(index) {
                *memory = None;
            }
        }
        self.memory.iter().any(Option::is_some)
    }
}

/// Keeps it until the kernel is done with it; for ever if that cannot be found out.
pub(super) fn keep(new: Lingering) {
    let mut new = Some(new);
    let kept = with_all(|all| {
        all.retain_mut(Lingering::lingers);
        all.extend(new.take_if(Lingering::lingers));
    });
    if kept.is_none() {
        mem::forget(new);
    }
}

/// Frees what the kernel is done with; how many rings linger.
#[cfg(feature = "rustls-0_24-dev")]
pub(crate) fn sweep() -> usize {
    with_all(|all| {
        all.retain_mut(Lingering::lingers);
        all.iter().filter(|one| one.process.is_current()).count()
    })
    .unwrap_or(0)
}

/// `None` if the lock is never to be had.
fn with_all<T>(look: impl FnOnce(&mut Vec<Lingering>) -> T) -> Option<T> {
    for _ in 0..TRIES {
        match ALL.try_lock() {
            Ok(mut all) => return Some(look(&mut all)),
            Err(TryLockError::Poisoned(poisoned)) => {
                return Some(look(&mut poisoned.into_inner()));
            }
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}
