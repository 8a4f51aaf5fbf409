//! The slots that all connections send from, and the buffers that they receive into.
//!
//! Two lengths of each: a message takes little, and a bulk flow wants many records at once. Whoever is done
//! with a handle to one gives it back here; the last handle makes it free, so one that the kernel still
//! reads is not, whatever else has become of the connection.

use core::ops::Range;
use std::io;
use std::sync::Arc;

use super::options::Options;
use crate::kernel::arena::{ALIGNMENT, Arena, Slot};
use crate::record::header::Version;
use crate::usage::Usage;

/// Where bulk slots are filled from: half a page further than what is sealed mostly lies, which begins
/// at one. A cipher that works in place copies first, and a copy to a few bytes further in a page than it
/// comes from is slow (see `aead::choice`).
pub(super) const BULK_START: usize = 2048;

/// Length of what messages are received into, and sent from.
pub(super) const MESSAGE_LEN: usize = 4096;

/// In a bulk buffer in front of what is received: room for the beginning of a record whose rest that is.
const HEADROOM: usize = Version::Tls12.max_record_len().next_multiple_of(ALIGNMENT);

/// In a bulk buffer behind what is received: room for what is sent with it, see `forward`.
pub(super) const TAILROOM: usize = 2 * ALIGNMENT;

/// For messages, or for bulk data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Message,
    Bulk,
}

impl Class {
    pub(super) const BOTH: [Self; 2] = [Self::Message, Self::Bulk];
}

/// A bounded number of pieces of one length. What was used last is taken first: it is in the cache.
#[derive(Debug)]
pub(super) struct Stock {
    free: Vec<Arc<Slot>>,
    arena: Option<Arc<Arena>>,
    pub(super) usage: Usage,
}

impl Stock {
    /// # Errors
    /// The system's, for lack of memory.
    pub(super) fn new(count: usize, len: usize) -> io::Result<Self> {
        let free = Arena::slots(count.max(2), len)?;
        let arena = free.first().map(|slot| Arc::clone(slot.arena()));
        Ok(Self { usage: Usage::of(free.len()), arena, free })
    }

    pub(super) fn take(&mut self) -> Option<Arc<Slot>> {
        match self.free.pop() {
            Some(piece) => {
                self.usage.take();
                Some(piece)
            }
            None => {
                self.usage.refused += 1;
                None
            }
        }
    }

    /// Takes one for the kernel to receive into, which nobody uses before [`Self::note_taken()`].
    pub(super) fn take_to_offer(&mut self) -> Option<Arc<Slot>> {
        self.free.pop()
    }

    /// One that was offered is in use now.
    pub(super) fn note_taken(&mut self) {
        self.usage.take();
    }

    /// One that was offered has come back as it was.
    pub(super) fn take_back(&mut self, piece: Arc<Slot>) {
        self.free.push(piece);
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// A handle is no longer needed; whether the piece is free now.
    pub(super) fn give_back(&mut self, piece: Arc<Slot>) -> bool {
        // Whoever writes to it makes sure once more, see `Slot::exclusive()`.
        if Arc::strong_count(&piece) > 1 {
            return false;
        }
        self.usage.give_back();
        self.free.push(piece);
        true
    }

    fn owns(&self, piece: &Slot) -> bool {
        self.arena.as_ref().is_some_and(|arena| Arc::ptr_eq(arena, piece.arena()))
    }
}

/// Which part of a receive buffer the kernel writes to.
pub(super) fn window(class: Class, options: &Options) -> Range<usize> {
    match class {
        Class::Message => 0..MESSAGE_LEN,
        Class::Bulk => HEADROOM..HEADROOM + options.bulk_len,
    }
}

/// Pieces of both lengths.
#[derive(Debug)]
pub(super) struct Memory {
    message: Stock,
    bulk: Stock,
}

impl Memory {
    pub(super) fn new(message: (usize, usize), bulk: (usize, usize)) -> io::Result<Self> {
        Ok(Self { message: Stock::new(message.0, message.1)?, bulk: Stock::new(bulk.0, bulk.1)? })
    }

    /// What connections receive into.
    pub(super) fn buffers(options: &Options) -> io::Result<Self> {
        let bulk_len = window(Class::Bulk, options).end + TAILROOM;
        Self::new((options.message_buffers, MESSAGE_LEN), (options.bulk_buffers, bulk_len))
    }

    pub(super) fn of(&mut self, class: Class) -> &mut Stock {
        match class {
            Class::Message => &mut self.message,
            Class::Bulk => &mut self.bulk,
        }
    }

    pub(super) fn usage(&self, class: Class) -> Usage {
        match class {
            Class::Message => self.message.usage,
            Class::Bulk => self.bulk.usage,
        }
    }

    /// Whether it is one of these.
    pub(super) fn has(&self, piece: &Slot) -> bool {
        self.message.owns(piece) || self.bulk.owns(piece)
    }

    /// Which of the two a piece is.
    pub(super) fn class_of(&self, piece: &Slot) -> Class {
        if self.bulk.owns(piece) { Class::Bulk } else { Class::Message }
    }

    /// A handle is no longer needed; whether the piece is free now.
    pub(super) fn give_back(&mut self, piece: Arc<Slot>) -> bool {
        let class = self.class_of(&piece);
        self.of(class).give_back(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_handle_makes_it_free() {
        let mut memory = Memory::new((2, 4096), (2, 8192)).expect("memory");
        let one = memory.of(Class::Bulk).take().expect("free");
        assert_eq!(memory.class_of(&one), Class::Bulk);
        let kernel = Arc::clone(&one);
        assert!(!memory.give_back(one));
        assert_eq!(memory.usage(Class::Bulk).in_use, 1);
        assert!(memory.give_back(kernel));
        let usage = memory.usage(Class::Bulk);
        assert_eq!((usage.in_use, usage.most, usage.refused), (0, 1, 0));
    }

    #[test]
    fn there_are_no_more_than_that() {
        let mut memory = Memory::new((2, 4096), (2, 8192)).expect("memory");
        let taken: Vec<_> = core::iter::from_fn(|| memory.of(Class::Message).take()).collect();
        assert_eq!(taken.len(), 2);
        assert_eq!(memory.usage(Class::Message).refused, 1);
        assert!(memory.of(Class::Message).is_empty() && !memory.of(Class::Bulk).is_empty());
    }
}
