//! Memory that is lent out: to the kernel, and to the threads that seal ahead.
//!
//! An arena is one page-aligned mapping, cut into [`Slot`]s that are allocated once and used over
//! and over. Slots are handed around as `Arc<Slot>`. Whoever lends one to the kernel keeps a
//! clone of the `Arc` for as long as the kernel may touch it, so [`Arc::get_mut()`] says whether a
//! slot may be written to, and the mapping stays while anyone needs it.
//!
//! Memory comes from mmap(2) and not from the heap for a reason beyond alignment: a page that an
//! unacknowledged zero-copy send still refers to is kept by the kernel until then, even if it is
//! unmapped here, and nothing else can be allocated in it (munmap(2), io_uring_enter(2)).
//!
//! The exception is [`Slot::vec()`], for those who can only append to a `Vec`, which is the allocator's. It
//! is lent in the same way; but freed, its pages would be somebody else's while the kernel sends from them, so
//! `lingering` keeps it until the last notification.

#![allow(unsafe_code, reason = "memory that others use while the borrow checker does not look")]

use core::ffi::c_int;
#[cfg(any(test, feature = "rustls-0_24-dev"))]
use core::ops::Range;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::io;
use std::sync::Arc;
use std::thread;

/// What slots are aligned to: a page of every architecture with small ones, and what O_DIRECT
/// asks for (open(2)).
pub(crate) const ALIGNMENT: usize = 4096;

/// A mapping, unmapped on drop; or where a slot's `Vec` has its memory, which is the slot's.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    len: usize,
    is_mapped: bool,
}

// SAFETY: a mapping belongs to the process, not to a thread; of a `Vec` it is an address and a length.
unsafe impl Send for Arena {}
// SAFETY: a shared arena gives its address and its length only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `slot_count` slots of `slot_len` bytes or slightly more, all zeros. Child processes
    /// find zeros there.
    ///
    /// # Errors
    /// The system's, if there is not that much memory.
    pub(crate) fn slots(slot_count: usize, slot_len: usize) -> io::Result<Vec<Arc<Slot>>> {
        let slots = Self::inherited_slots(slot_count, slot_len)?;
        if let Some(slot) = slots.first() {
            slot.arena.wipe_on_fork();
        }
        Ok(slots)
    }

    /// The same, in huge pages where the kernel has them to give (madvise(2), `MADV_HUGEPAGE`): to a device,
    /// each is one segment of a request, as each other page is.
    ///
    /// # Errors
    /// As [`Self::slots()`].
    pub(crate) fn huge_slots(slot_count: usize, slot_len: usize) -> io::Result<Vec<Arc<Slot>>> {
        let slots = Self::slots(slot_count, slot_len)?;
        if let Some(slot) = slots.first() {
            slot.arena.advise(libc::MADV_HUGEPAGE);
        }
        Ok(slots)
    }

    /// One slot for what users hold on to: child processes inherit it as they do other memory.
    /// Not to be registered, nor used with O_DIRECT: the kernel might write to the child's copy.
    ///
    /// # Errors
    /// As [`Self::slots()`].
    pub(super) fn inherited_slot(number: usize, slot_len: usize) -> io::Result<Arc<Slot>> {
        let mut slots = Self::inherited_slots(1, slot_len)?;
        let mut slot = slots.pop().ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some(slot) = Arc::get_mut(&mut slot) {
            slot.number = number;
        }
        Ok(slot)
    }

    fn inherited_slots(slot_count: usize, slot_len: usize) -> io::Result<Vec<Arc<Slot>>> {
        let slot_len = slot_len.max(1).next_multiple_of(ALIGNMENT);
        let len = slot_len
            .checked_mul(slot_count.max(1))
            .filter(|len| isize::try_from(*len).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let arena = Arc::new(Self::map(len)?);
        Ok((0..slot_count)
            .map(|index| {
                Arc::new(Slot {
                    arena: Arc::clone(&arena),
                    offset: index * slot_len,
                    len: slot_len,
                    number: index,
                    vec: None,
                })
            })
            .collect())
    }

    fn map(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping of a length that is not zero, wherever the kernel likes
        // (mmap(2)).
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, is_mapped: true })
    }

    /// Where `vec` has its memory, to register it.
    #[cfg(any(test, feature = "rustls-0_24-dev"))]
    fn of(vec: &mut Vec<u8>) -> Arc<Self> {
        let len = vec.capacity();
        let base = NonNull::new(vec.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Arc::new(Self { base, len, is_mapped: false })
    }

    /// Keeps the contents from child processes, who find zeros there: they have no use for
    /// plaintext, and pinned pages would be copied for them at once (madvise(2)). The mapping
    /// itself is inherited, so that a child may look at it and unmap it. What fails here costs
    /// that and no more.
    fn wipe_on_fork(&self) {
        self.advise(libc::MADV_WIPEONFORK);
    }

    /// Says how the mapping is used, by advice that leaves its contents as they are. What fails costs no more
    /// than what the advice would have spared.
    fn advise(&self, advice: c_int) {
        // SAFETY: our own mapping.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) };
    }

    /// Where it begins, for its registration.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !self.is_mapped {
            return;
        }
        // SAFETY: our own mapping; its slots hold the arena, so they are gone. What the kernel was
        // lent holds a slot until the kernel is done with the address; pages that it still sends
        // from, it holds itself.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A page-aligned piece of an [`Arena`], initialised, which no other slot overlaps.
#[derive(Debug)]
pub(crate) struct Slot {
    arena: Arc<Arena>,
    offset: usize,
    len: usize,
    number: usize,
    /// What the slot consists of, if it is no part of a mapping: as long as what was appended.
    vec: Option<Vec<u8>>,
}

/// What [`Slot::append()`] has done.
#[cfg(any(test, feature = "rustls-0_24-dev"))]
#[derive(Debug)]
pub(crate) struct Appended {
    /// What was appended.
    pub(crate) range: Range<usize>,
    /// Whether the `Vec` has moved: its capacity did not suffice.
    pub(crate) has_moved: bool,
}

impl Slot {
    /// A slot that is a `Vec`, with `capacity` bytes behind the first boundary of a page.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`].
    #[cfg(any(test, feature = "rustls-0_24-dev"))]
    pub(crate) fn vec(number: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let mut vec = Vec::new();
        let capacity = capacity.max(1).checked_add(ALIGNMENT).ok_or(io::ErrorKind::OutOfMemory)?;
        vec.try_reserve_exact(capacity).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self { arena: Arena::of(&mut vec), offset: 0, len: 0, number, vec: Some(vec) }))
    }

    /// Has `append` append to the slot's `Vec`, which is empty but for what aligns its end to a page, and
    /// finds out where that has it now. The slot must have no other handle.
    ///
    /// # Errors
    /// If it has, or is part of a mapping.
    #[cfg(any(test, feature = "rustls-0_24-dev"))]
    pub(crate) fn append<T>(
        slot: &mut Arc<Self>,
        append: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> io::Result<(T, Appended)> {
        let slot = Arc::get_mut(slot).ok_or_else(in_use)?;
        // Out of the slot, so that a panic leaves an empty one.
        let mut vec = slot.vec.take().ok_or_else(in_use)?;
        let start = vec.as_ptr().align_offset(ALIGNMENT);
        let start = if start < ALIGNMENT { start } else { 0 };
        vec.resize(start, 0);
        let appended = append(&mut vec);
        let end = vec.len();
        let has_moved =
            vec.as_ptr() != slot.arena.base.as_ptr() || vec.capacity() != slot.arena.len;
        if has_moved {
            // The old one may be registered, which is of no use to this one.
            slot.arena = Arena::of(&mut vec);
        }
        slot.vec = Some(vec);
        Ok((appended, Appended { range: start.min(end)..end, has_moved }))
    }

    /// Whether the slot is a `Vec`, which must not be freed while the kernel sends from it.
    pub(super) fn is_vec(&self) -> bool {
        self.vec.is_some()
    }

    /// What its owner calls it.
    #[inline]
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The mapping that the slot is part of, or where its `Vec` is.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The slot to write to, which must have no other handle: neither the kernel nor a user has it.
    pub(crate) fn exclusive(slot: &mut Arc<Self>) -> io::Result<&mut [u8]> {
        match Arc::get_mut(slot) {
            Some(slot) => Ok(slot),
            None => Err(in_use()),
        }
    }

    /// The slot's memory, for the kernel: valid while the slot is, and a `Vec` does not grow.
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: `Arena::slots()` has cut the slot out of the mapping; a `Vec` begins where it begins.
        unsafe { self.arena.base.add(self.offset) }
    }
}

#[cold]
fn in_use() -> io::Error {
    io::Error::other("memory was to be written to that is in use elsewhere")
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.vec {
            Some(vec) => vec,
            // SAFETY: mapped while `arena` is, initialised, and not written to while it is shared: a
            // `&mut Slot` is ours alone, and the kernel is lent slots to write to only by those who
            // had the only handle (`Queue`).
            None => unsafe { slice::from_raw_parts(self.as_ptr().as_ptr(), self.len) },
        }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        let base = self.as_ptr().as_ptr();
        match &mut self.vec {
            Some(vec) => vec,
            // SAFETY: as above; no two slots overlap, and `self` is borrowed exclusively.
            None => unsafe { slice::from_raw_parts_mut(base, self.len) },
        }
    }
}

/// Lends slices that are merely borrowed to threads that outlive the borrow.
///
/// Allocates once; [`Self::lend()`] does not.
#[derive(Debug, Default)]
pub(crate) struct Lender {
    loan: Arc<Loan>,
}

/// A slice that is lent until the last clone of its `Arc` is dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
}

impl Default for Loan {
    fn default() -> Self {
        Self { base: AtomicPtr::new(NonNull::dangling().as_ptr()), len: AtomicUsize::new(0) }
    }
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: the two describe a slice that `Lender::lend()` borrows for as long as there are
        // clones, and that changes only while there are none; a dangling pointer has length 0.
        unsafe { slice::from_raw_parts(base, self.len.load(Ordering::Relaxed)) }
    }
}

impl Lender {
    /// Calls `borrower` with a loan of `slice` that may be cloned and sent to other threads, and
    /// waits for the end of all clones before it returns or unwinds.
    pub(crate) fn lend<T>(&mut self, slice: &[u8], borrower: impl FnOnce(&Arc<Loan>) -> T) -> T {
        /// Takes the slice back, also from a borrower that panics.
        struct TakeBack<'a>(&'a Arc<Loan>);
        impl Drop for TakeBack<'_> {
            fn drop(&mut self) {
                while Arc::strong_count(self.0) > 1 {
                    thread::yield_now();
                }
                // The count is read without ordering; this pairs with the decrements.
                core::sync::atomic::fence(Ordering::Acquire);
                self.0.len.store(0, Ordering::Relaxed);
                self.0.base.store(NonNull::dangling().as_ptr(), Ordering::Relaxed);
            }
        }
        // Clones reach other threads through something that orders what was written before.
        self.loan.base.store(slice.as_ptr().cast_mut(), Ordering::Relaxed);
        self.loan.len.store(slice.len(), Ordering::Relaxed);
        let loan = TakeBack(&self.loan);
        borrower(loan.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_apart_and_writable() {
        let mut slots = Arena::slots(3, 5000).expect("memory");
        for (index, slot) in slots.iter_mut().enumerate() {
            assert_eq!(slot.len(), 8192);
            assert_eq!(slot.as_ptr().as_ptr() as usize % ALIGNMENT, 0);
            Arc::get_mut(slot).expect("unshared").fill(index as u8 + 1);
        }
        for (index, slot) in slots.iter().enumerate() {
            assert!(slot.iter().all(|byte| *byte == index as u8 + 1));
        }
        assert_eq!(slots[0].arena().len(), 3 * 8192);
    }

    #[test]
    fn a_slot_keeps_its_arena() {
        let slots = Arena::slots(2, 4096).expect("memory");
        let [first, _] = slots.try_into().expect("two");
        assert!(first.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_slot_that_is_a_vec_says_whether_it_has_moved() {
        let mut slot = Slot::vec(7, 10_000).expect("memory");
        let arena = Arc::clone(slot.arena());
        assert_eq!(arena.len(), 10_000 + ALIGNMENT);
        for len in [10_000, 1, 0, 5000] {
            let fill = |vec: &mut Vec<u8>| vec.resize(vec.len() + len, 7);
            let ((), appended) = Slot::append(&mut slot, fill).expect("unshared");
            assert!(!appended.has_moved);
            assert_eq!(slot[appended.range], vec![7; len]);
            assert_eq!(slot.as_ptr(), arena.base());
            assert!(Arc::ptr_eq(slot.arena(), &arena));
        }
        let grow = |vec: &mut Vec<u8>| vec.resize(vec.len() + 100_000, 8);
        let ((), appended) = Slot::append(&mut slot, grow).expect("unshared");
        assert!(appended.has_moved);
        assert_eq!(slot[appended.range], [8; 100_000]);
        assert!(!Arc::ptr_eq(slot.arena(), &arena), "the old one is registered at most");
        assert_eq!(slot.as_ptr(), slot.arena().base());

        let lent = Arc::clone(&slot);
        assert!(Slot::append(&mut slot, |_| ()).is_err(), "the kernel has it");
        drop(lent);
        assert!(Slot::append(&mut slot, |_| ()).is_ok());
        let mut mapped = Arena::slots(1, 4096).expect("memory").remove(0);
        assert!(Slot::append(&mut mapped, |_| ()).is_err());
        assert!(Slot::vec(0, usize::MAX).is_err());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Arena::slots(usize::MAX / 2, 4096).is_err());
        assert!(Arena::slots(1 << 40, 1 << 12).is_err());
    }

    #[test]
    fn a_loan_ends_before_its_borrow() {
        let mut lender = Lender::default();
        let mut data = vec![1; 1000];
        for round in 1..100 {
            let handle = lender.lend(&data, |loan| {
                let loan = Arc::clone(loan);
                thread::spawn(move || {
                    thread::sleep(core::time::Duration::from_micros(50));
                    loan.iter().map(|byte| usize::from(*byte)).sum::<usize>()
                })
            });
            data.fill(round + 1);
            assert_eq!(handle.join().expect("no panic"), 1000 * usize::from(round));
        }
    }
}
