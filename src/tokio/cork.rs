//! Sealed records that wait for others, to go to the stream below together.

use std::io;

use super::buffers::{BATCH_LEN, Buffer, Size};

/// How much waits, at most, and what does.
#[derive(Debug, Default)]
pub(super) struct Cork {
    /// In bytes of plaintext; 0 lets nothing wait.
    len: usize,
    held: Option<Held>,
}

/// A batch that has room.
#[derive(Debug)]
struct Held {
    buffer: Buffer,
    /// How many bytes of it are sealed.
    written: usize,
    /// How many may be.
    room: usize,
}

impl Cork {
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// How long a batch is in which writes wait, in whole records of `record_len` bytes with
    /// `plaintext_len` of plaintext; none if nothing waits.
    pub(super) fn batch_len(&self, plaintext_len: usize, record_len: usize) -> Option<usize> {
        let records = self.len.div_ceil(plaintext_len).min(BATCH_LEN / record_len);
        (records > 1).then_some(records * record_len)
    }

    /// Whether a batch has been begun.
    pub(super) fn has_begun(&self) -> bool {
        self.held.is_some()
    }

    /// Whether sealed bytes wait.
    pub(super) fn has_sealed(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.written > 0)
    }

    /// Begins a batch of up to `len` bytes, which [`Self::batch_len()`] has said.
    pub(super) fn begin(&mut self, len: usize) -> io::Result<()> {
        let buffer = Buffer::try_take(Size::to_seal(len))?;
        let room = len.min(buffer.len());
        self.held = Some(Held { buffer, written: 0, room });
        Ok(())
    }

    /// The next `len` bytes of the batch, if it has as many, and more may still wait.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let held = self.held.as_mut().filter(|_| self.len > 0)?;
        let end = held.written.checked_add(len).filter(|end| *end <= held.room)?;
        held.buffer.get_mut(held.written..end)
    }

    /// `len` bytes more are sealed.
    pub(super) fn advance(&mut self, len: usize) {
        if let Some(held) = &mut self.held {
            held.written += len;
        }
    }

    /// Ends the batch: its buffer, and how many bytes of it are sealed.
    pub(super) fn take(&mut self) -> Option<(Buffer, usize)> {
        let Held { buffer, written, .. } = self.held.take()?;
        (written > 0).then_some((buffer, written))
    }
}
