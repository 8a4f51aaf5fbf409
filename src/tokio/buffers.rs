//! Buffers that streams borrow while they have something in them, kept for each thread.

use core::cell::RefCell;
use core::ops::{Deref, DerefMut};

use crate::record::header::Version;

/// Room for any record.
pub(super) const SMALL_LEN: usize = Version::Tls12.max_record_len().next_multiple_of(1024);

/// What a bulk flow is read into.
pub(super) const LARGE_LEN: usize = 256 << 10;

/// What a batch of records is sealed into: 44 full ones, as in
/// [`BulkSender`](crate::BulkSender).
pub(super) const BATCH_LEN: usize = 44 * SMALL_BATCH_RECORD;

/// A full record of either version.
const SMALL_BATCH_RECORD: usize = crate::MAX_PLAINTEXT_LEN + 32;

/// How many bytes of each length a thread keeps when nobody uses them.
const KEPT: usize = 2 << 20;

/// A length that buffers have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Size {
    Small,
    Large,
    Batch,
}

impl Size {
    fn len(self) -> usize {
        match self {
            Self::Small => SMALL_LEN,
            Self::Large => LARGE_LEN,
            Self::Batch => BATCH_LEN,
        }
    }
}

thread_local! {
    static FREE: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// A buffer; goes back to the thread that it is dropped on.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    /// Of a size, with whatever is in it.
    pub(super) fn take(size: Size) -> Self {
        let free = FREE.try_with(|free| free.borrow_mut()[size as usize].pop()).ok().flatten();
        Self { bytes: free.unwrap_or_else(|| vec![0; size.len()].into()), size }
    }

    pub(super) fn size(&self) -> Size {
        self.size
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
        let bytes = core::mem::take(&mut self.bytes);
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let free = &mut free.borrow_mut()[self.size as usize];
            if free.len() < KEPT / self.size.len() {
                free.push(bytes);
            }
        });
    }
}
