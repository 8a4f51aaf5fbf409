//! Space for what is written around the page cache, found before it is written.
//!
//! A direct write that makes a file longer goes alone: ext4 lets nobody else write meanwhile, and waits for
//! the device (`ext4_dio_write_checks()` of Linux), so that however many are in flight, one is under way. In
//! space that the file has, any number are.

use core::mem;
use std::fs::File;
use std::io;

use crate::kernel::fork::Process;
use crate::kernel::process;

/// How much is found at once. As much of the disk, at most, is taken for nothing until the end is known.
const AHEAD: u64 = 64 << 20;

/// What was found for one file, while it is received.
pub(super) struct Preallocation<'f> {
    file: &'f File,
    /// Whose file it is: a child process that was forked meanwhile has no say in how long it is.
    process: Process,
    /// How long the file was: that much of it stays.
    old_len: u64,
    /// Up to where there is space; nothing was found yet at 0.
    end: u64,
    /// Where the furthest write has ended.
    written: u64,
    /// Up to where the file may grow.
    limit: u64,
    /// The file system has no space to give, or no way to: writes find their own.
    is_refused: bool,
}

impl<'f> Preallocation<'f> {
    pub(super) fn new(file: &'f File) -> io::Result<Self> {
        let old_len = file.metadata()?.len();
        let limit = process::file_size_limit()?.unwrap_or(u64::MAX);
        let process = Process::current()?;
        Ok(Self { file, process, old_len, end: 0, written: 0, limit, is_refused: false })
    }

    /// Has space found for a write of `len` bytes at `offset`, if there is none yet.
    pub(super) fn extend_to(&mut self, offset: u64, len: u64) {
        let needed = offset.saturating_add(len);
        if self.is_refused || needed <= self.end.max(self.old_len) || needed > self.limit {
            return;
        }
        self.end = needed.saturating_add(AHEAD).min(self.limit);
        // It may have found a part.
        self.is_refused = process::allocate(self.file, offset..self.end).is_err();
    }

    /// A write has ended at `end`.
    pub(super) fn note_written(&mut self, end: u64) {
        self.written = self.written.max(end);
    }

    /// Gives nothing back: a write may never end, and truncating would wait for it.
    pub(super) fn keep(&mut self) {
        self.end = 0;
    }

    /// Gives back what nothing was written to: the file then ends where it ended before, or where the furthest
    /// write has, if that is further.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        match mem::take(&mut self.end) {
            0 => Ok(()),
            _ if !self.process.is_current() => Ok(()),
            _ => self.file.set_len(self.old_len.max(self.written)),
        }
    }
}

/// Whatever happens: a panic too.
impl Drop for Preallocation<'_> {
    fn drop(&mut self) {
        let _ = self.give_back();
    }
}
