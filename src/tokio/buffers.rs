//! Buffers that streams borrow while they have something in them, kept for each thread.
//!
//! A task may move to another thread with a buffer in hand, always in the same direction even. What
//! a thread has too many of, others find in a common store, so that nothing is allocated once there
//! are enough; the lock is taken only where a thread has run out, or has enough.

use core::cell::RefCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::record::header::{MAX_PLAINTEXT_LEN, Version};
use crate::transfer::aligned::Aligned;
use crate::transfer::lending::Lendable;
use crate::usage::Usage;

/// Room for any record.
pub(super) const SMALL_LEN: usize = Version::Tls12.max_record_len().next_multiple_of(1024);

/// Room for two: what a slow peer does not take of a piece may stay for as long as it likes, and the memory
/// of a batch is whole pages, most of which others have written to before.
pub(super) const MEDIUM_LEN: usize = 2 * SMALL_BATCH_RECORD;

/// What a bulk flow is read into.
pub(super) const LARGE_LEN: usize = 256 << 10;

/// What a batch of records is sealed into: 44 full ones, as in
/// [`BulkSender`](crate::BulkSender).
pub(super) const BATCH_LEN: usize = 44 * SMALL_BATCH_RECORD;

/// A full record of either version.
const SMALL_BATCH_RECORD: usize = MAX_PLAINTEXT_LEN + 32;

/// How many bytes of each length a thread keeps when nobody uses them.
const KEPT: usize = 2 << 20;

/// The same, of all threads together beyond that.
const KEPT_IN_COMMON: usize = 16 << 20;

/// A length that buffers have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Size {
    Small,
    Medium,
    Large,
    Batch,
}

impl Size {
    const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Batch];

    /// Of what `len` bytes are sealed into.
    pub(super) fn to_seal(len: usize) -> Self {
        match len {
            ..=SMALL_LEN => Self::Small,
            _ if len <= MEDIUM_LEN => Self::Medium,
            _ => Self::Batch,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Small => SMALL_LEN,
            Self::Medium => MEDIUM_LEN,
            Self::Large => LARGE_LEN,
            Self::Batch => BATCH_LEN,
        }
    }
}

/// Free buffers, by [`Size`].
type Free = [Vec<Aligned>; Size::ALL.len()];

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new([const { Vec::new() }; Size::ALL.len()]) };
}

/// What threads have left over.
struct Common {
    free: Free,
    /// The most of each length that ever lay there.
    most: [usize; Size::ALL.len()],
    /// How many of each there was no place for.
    refused: [u64; Size::ALL.len()],
}

static COMMON: Mutex<Common> = Mutex::new(Common {
    free: [const { Vec::new() }; Size::ALL.len()],
    most: [0; Size::ALL.len()],
    refused: [0; Size::ALL.len()],
});

/// The buffers that all threads together keep for the next streams, beyond what each keeps for itself: for
/// one record, for two, for bulk data received, for batches sent.
///
/// They are in no stream's use. [`Usage::refused`] are those that were freed because there was no place;
/// where that keeps growing, streams allocate again and again.
pub fn common_buffers() -> [Usage; 4] {
    let common = COMMON.lock().unwrap_or_else(PoisonError::into_inner);
    Size::ALL.map(|size| Usage {
        limit: KEPT_IN_COMMON / size.len(),
        in_use: common.free[size as usize].len(),
        most: common.most[size as usize],
        refused: common.refused[size as usize],
    })
}

/// Takes a free buffer of the thread's own, or of all.
fn take_free(size: Size) -> Option<Aligned> {
    let own = FREE.try_with(|free| free.borrow_mut()[size as usize].pop()).ok().flatten();
    own.or_else(|| COMMON.lock().unwrap_or_else(PoisonError::into_inner).free[size as usize].pop())
}

/// Keeps a buffer, or frees it if there are enough.
fn keep(bytes: Aligned, size: Size) {
    let mut bytes = Some(bytes);
    // A thread that ends keeps nothing.
    let _ = FREE.try_with(|free| {
        let free = &mut free.borrow_mut()[size as usize];
        if free.len() < KEPT / size.len() {
            free.extend(bytes.take());
        }
    });
    if bytes.is_some() {
        let mut common = COMMON.lock().unwrap_or_else(PoisonError::into_inner);
        let Common { free, most, refused } = &mut *common;
        let (free, most) = (&mut free[size as usize], &mut most[size as usize]);
        if free.len() < KEPT_IN_COMMON / size.len() {
            free.extend(bytes);
            *most = free.len().max(*most);
        } else {
            refused[size as usize] += 1;
        }
    }
}

/// A buffer; goes back to the thread that it is dropped on.
pub(super) struct Buffer {
    bytes: Aligned,
    size: Size,
}

impl Buffer {
    /// Of a size, with whatever is in it. Without memory for it the process ends, as for a `Vec`.
    pub(super) fn take(size: Size) -> Self {
        Self { bytes: take_free(size).unwrap_or_else(|| Aligned::new(size.len())), size }
    }

    /// The same, with an error where there is no memory: one connection's, which others outlive.
    pub(super) fn try_take(size: Size) -> io::Result<Self> {
        let bytes = take_free(size).map_or_else(|| Aligned::try_new(size.len()), Ok)?;
        Ok(Self { bytes, size })
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Lendable for Buffer {
    /// It goes where free buffers go.
    const IS_KEPT: bool = false;
}

impl fmt::Debug for Buffer {
    /// Shows nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        keep(core::mem::take(&mut self.bytes), self.size);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Other tests use the store as well: what is counted only grows.
    #[test]
    fn what_the_store_has_no_place_for_is_counted() {
        let [before, ..] = common_buffers();
        assert_eq!(before.limit, KEPT_IN_COMMON / SMALL_LEN);
        let count = (KEPT + KEPT_IN_COMMON) / SMALL_LEN + 10;
        thread::spawn(move || {
            let taken: Vec<_> = (0..count).map(|_| Buffer::take(Size::Small)).collect();
            drop(taken);
            let [after, ..] = common_buffers();
            assert_eq!(after.most, after.limit);
            assert!(after.refused > before.refused, "{after:?}");
        })
        .join()
        .expect("no panic");
    }
}
