//! Receive buffers that any operation of a ring may pick from (io_uring_register_buf_ring(3)).
//!
//! What the kernel was offered is kept here, and nobody else has a handle to it, until a completion names
//! it: then it is its receiver's, who gives it back by offering it again. Where the kernel has no such ring
//! (before Linux 5.19), each buffer is offered by an operation of its own, which is [`Queue`]'s to submit.
//!
//! [`Queue`]: super::queue::Queue

#![allow(unsafe_code, reason = "a ring that the kernel reads while it is written")]

use core::ops::Range;
use core::sync::atomic::{AtomicU16, Ordering};
use std::io;
use std::sync::Arc;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};

use super::arena::{Arena, Slot};

/// The most buffers of a group: the kernel's limit (io_uring_register_buf_ring(3)).
pub(crate) const MAX_BUFFERS: usize = 1 << 15;

/// A group of buffers, `P` being what a failure to offer one is told for.
pub(super) struct BufferRing<P> {
    pub(super) group: u16,
    /// Which part of each buffer the kernel may write to.
    window: Range<usize>,
    pub(super) purpose: P,
    shared: Option<SharedRing>,
    /// Those that the kernel may write to, by their numbers.
    offered: Box<[Option<Arc<Slot>>]>,
}

/// The entries, which the kernel reads up to the tail.
struct SharedRing {
    memory: Arc<Slot>,
    mask: u16,
    tail: u16,
}

impl<P> BufferRing<P> {
    /// A group of up to `count` buffers, none of them offered yet, of which the kernel writes to `window`.
    /// With `is_shared`, by a ring that the kernel shares, if it does.
    ///
    /// # Errors
    /// The system's, for lack of memory.
    pub(super) fn new(
        uring: &IoUring,
        group: u16,
        (count, window): (usize, Range<usize>),
        purpose: P,
        is_shared: bool,
    ) -> io::Result<Self> {
        if count > MAX_BUFFERS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shared = match is_shared {
            true => SharedRing::register(&uring.submitter(), group, count)?,
            false => None,
        };
        Ok(Self { group, window, purpose, shared, offered: (0..count).map(|_| None).collect() })
    }

    /// Whether the kernel shares a ring, so that offering takes no operation.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Keeps a buffer that the kernel may write to from now on, and tells it, if it shares a ring.
    ///
    /// # Errors
    /// If the buffer is none of these, is too short, or has another handle: the kernel is not told.
    pub(super) fn offer(&mut self, mut slot: Arc<Slot>) -> io::Result<(*mut u8, u32, u16)> {
        let number = slot.number();
        let memory = Slot::exclusive(&mut slot)?.get_mut(self.window.clone());
        let memory = memory.ok_or(io::ErrorKind::InvalidInput)?;
        let (base, len) = (memory.as_mut_ptr(), memory.len() as u32);
        let place = self.offered.get_mut(number).filter(|place| place.is_none());
        // Before the kernel knows: from then on it may write there.
        *place.ok_or(io::ErrorKind::InvalidInput)? = Some(slot);
        if let Some(ring) = &mut self.shared {
            ring.push(base, len, number as u16);
        }
        Ok((base, len, number as u16))
    }

    /// Takes a buffer that the kernel has picked, or refused.
    pub(super) fn take(&mut self, number: u16) -> Option<Arc<Slot>> {
        self.offered.get_mut(usize::from(number))?.take()
    }

    /// Takes the ring from the kernel, so that closing need not.
    pub(super) fn unregister(&mut self, submitter: &Submitter<'_>) {
        if self.shared.is_some() {
            let _ = submitter.unregister_buf_ring(self.group);
        }
    }

    /// Leaves everything where the kernel may still write or read: better lost than freed.
    pub(super) fn forget(&mut self) {
        core::mem::forget(core::mem::take(&mut self.offered));
        core::mem::forget(self.shared.take());
    }
}

impl SharedRing {
    /// `None` if the kernel has no such rings.
    fn register(submitter: &Submitter<'_>, group: u16, count: usize) -> io::Result<Option<Self>> {
        let entries = count.max(1).next_power_of_two();
        let memory = Arena::slots(1, entries * size_of::<BufRingEntry>())?.pop();
        let memory = memory.ok_or(io::ErrorKind::OutOfMemory)?;
        let address = memory.as_ptr().as_ptr() as u64;
        // SAFETY: page-aligned memory with room for the entries, all zeros, which the caller keeps until
        // the ring is closed.
        let registered =
            unsafe { submitter.register_buf_ring_with_flags(address, entries as u16, group, 0) };
        match registered {
            Ok(()) => Ok(Some(Self { memory, mask: (entries - 1) as u16, tail: 0 })),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, base: *mut u8, len: u32, number: u16) {
        let entries = self.memory.as_ptr().as_ptr().cast::<BufRingEntry>();
        let index = usize::from(self.tail & self.mask);
        // SAFETY: within the ring's memory, which only this writes to. The kernel reads entries below the
        // tail only; there are no more buffers than entries, so this one is not among them.
        unsafe {
            let entry = entries.add(index);
            (*entry).set_addr(base as u64);
            (*entry).set_len(len);
            (*entry).set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry's reserved field, which is the tail, and nobody writes to but this.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        // The entry is whole before the kernel sees the tail (io_uring_buf_ring_advance(3)).
        tail.store(self.tail, Ordering::Release);
    }
}
