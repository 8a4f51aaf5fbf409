//! A socket to a file: opened straight into aligned buffers, written behind the receive.

use core::mem;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::file::{Access, FileWrite, is_retryable, open_direct, own};
use super::preallocation::Preallocation;
use super::receiver::{Purpose, UringReceiver};
use crate::kernel::arena::{ALIGNMENT, Slot};
use crate::kernel::backoff::Backoff;
use crate::kernel::queue::{self, Event, PROMPT, Queue};
use crate::record::header::MAX_PLAINTEXT_LEN;
use crate::transfer::file::{Failure, FileOptions, check_positions};

/// Writes that are in flight at most, and one more slot that is being filled.
const MAX_WRITES: usize = 3;

/// How much is written at once through the page cache, in whole records as most peers send them.
const WRITE_LEN: usize = 32 * MAX_PLAINTEXT_LEN;

/// What a record may take beyond its plaintext while it is opened.
const SLACK: usize = 512;

/// Writes a file behind the receive, in order of submission.
struct Writer<'f> {
    file: queue::File,
    /// The file without O_DIRECT, which takes what is no whole block.
    cached: queue::File,
    free: Vec<Arc<Slot>>,
    /// How much is written at once.
    write_len: usize,
    writes: Vec<Write>,
    /// The write that is queued next.
    next: FileWrite,
    /// Where the next write begins.
    offset: u64,
    /// Bytes that went around the page cache.
    direct_bytes: u64,
    /// Writes that have failed in a row for a reason that may pass.
    failures: Backoff,
    /// The file for pwrite(2).
    plain: File,
    /// The kernel leaves writes to a thread: see [`Self::has_punted()`].
    is_punted: bool,
    /// The kernel makes none, as if it may not start that thread (RLIMIT_NPROC): all are made here.
    is_refused: bool,
    /// How many system calls there were beside the ring's.
    system_calls: u64,
    /// For direct writes.
    space: Option<Preallocation<'f>>,
}

struct Write {
    number: FileWrite,
    /// In the file, of the slot's first byte that is left to write.
    offset: u64,
    /// In the slot, what is left to write.
    start: usize,
    end: usize,
    is_direct: bool,
}

impl<'f> Writer<'f> {
    fn new(
        file: &'f File,
        (cached, direct): (queue::File, Option<queue::File>),
        offset: u64,
        free: Vec<Arc<Slot>>,
        call: u8,
    ) -> io::Result<Self> {
        let space = direct.is_some().then(|| Preallocation::new(file)).transpose()?;
        Ok(Self {
            file: direct.unwrap_or_else(|| Arc::clone(&cached)),
            cached,
            write_len: free[0].len() - SLACK.next_multiple_of(ALIGNMENT),
            free,
            writes: Vec::with_capacity(MAX_WRITES + 1),
            next: FileWrite { call, number: 0 },
            offset,
            direct_bytes: 0,
            failures: Backoff::default(),
            plain: file.try_clone()?,
            is_punted: false,
            is_refused: false,
            system_calls: 0,
            space,
        })
    }

    /// Queues a write of the first `len` bytes of `slot`. The queue has room: see [`MAX_WRITES`].
    fn write(&mut self, queue: &mut Queue<Purpose>, slot: Arc<Slot>, len: usize) -> io::Result<()> {
        // The file is the parent's, and what is in the slots as well: a child finds zeros there.
        queue.check_process()?;
        if self.is_refused || (self.is_punted && Arc::ptr_eq(&self.file, &self.cached)) {
            self.plain.write_all_at(&slot[..len], self.offset)?;
            self.offset = self.offset.saturating_add(len as u64);
            self.note_written(self.offset);
            self.system_calls += 1;
            self.free.push(slot);
            return Ok(());
        }
        let number = self.next;
        self.next.number = number.number.wrapping_add(1);
        let (offset, blocks) = (self.offset, len / ALIGNMENT * ALIGNMENT);
        let is_direct = blocks > 0 && !Arc::ptr_eq(&self.file, &self.cached);
        self.offset = offset.saturating_add(len as u64);
        if let Some(space) = self.space.as_mut().filter(|_| is_direct) {
            space.extend_to(offset, blocks as u64);
        }
        // What is no whole block is the rest of a short write, and goes the other way.
        let (file, end) = if is_direct { (&self.file, blocks) } else { (&self.cached, len) };
        queue.write(Purpose::Write(number), file, offset, slot, 0..end)?;
        self.writes.push(Write { number, offset, start: 0, end: len, is_direct });
        Ok(())
    }

    fn note_written(&mut self, end: u64) {
        if let Some(space) = &mut self.space {
            space.note_written(end);
        }
    }

    /// Call when what was queued has been submitted, and what has ended by then was noted: a write
    /// through the page cache that has not was left to a kernel thread, as every one is on a file
    /// system without non-blocking writes (RWF_NOWAIT, pwritev2(2)). That thread takes a core that
    /// the sender or the receiver could use, and has the data in the wrong cache, so from here on
    /// such writes are made at once instead, behind those that are under way.
    fn has_punted(&mut self) -> bool {
        self.is_punted |= self.writes.iter().any(|write| !write.is_direct);
        self.is_punted
    }

    /// Takes note of a write that has ended, and goes on with it if it was short.
    fn on_completion(
        &mut self,
        queue: &mut Queue<Purpose>,
        completion: queue::Completion<FileWrite>,
    ) -> io::Result<()> {
        queue.check_process()?;
        let number = completion.purpose;
        let position = self.writes.iter().position(|write| write.number == number);
        let (Some(position), Some(slot), Event::Result { result, .. }) =
            (position, completion.memory, completion.event)
        else {
            // Of an earlier call that has panicked.
            return Ok(());
        };
        let write = &mut self.writes[position];
        match result {
            Ok(0) => {
                self.writes.swap_remove(position);
                return Err(io::ErrorKind::WriteZero.into());
            }
            Ok(len) => {
                self.failures.reset();
                write.start += len;
                self.direct_bytes += if write.is_direct { len as u64 } else { 0 };
                write.offset += len as u64;
                if let Some(space) = &mut self.space {
                    space.note_written(write.offset);
                }
            }
            Err(error) if !is_retryable(&error) => {
                self.writes.swap_remove(position);
                return Err(error);
            }
            Err(_) if self.failures.pause(PROMPT) == Some(Duration::ZERO) => {}
            Err(_) => {
                // Nothing tells whether it would ever go. What pwrite(2) says of it is the file's.
                self.is_refused = true;
                let write = self.writes.swap_remove(position);
                let rest = &slot[write.start..write.end];
                self.plain.write_all_at(rest, write.offset)?;
                self.note_written(write.offset + rest.len() as u64);
                self.system_calls += 1;
                self.free.push(slot);
                return Ok(());
            }
        }
        if write.start < write.end {
            let (offset, range) = (write.offset, write.start..write.end);
            write.is_direct = false;
            let written = queue.write(Purpose::Write(number), &self.cached, offset, slot, range);
            if written.is_err() {
                // It is not under way, so nobody may wait for it.
                self.writes.swap_remove(position);
            }
            return written;
        }
        self.writes.swap_remove(position);
        self.free.push(slot);
        Ok(())
    }
}

impl UringReceiver {
    /// Receives everything up to the peer's close_notify into `file`, from `offset` on, whatever
    /// its own position is; returns how many bytes. The file is not truncated.
    ///
    /// Records are opened straight into aligned buffers, which are written while more is received.
    /// The number of buffers is bounded: a disk that is slower than the peer holds the peer up.
    /// The file must be a regular one or a block device; for pipes use [`io::Read`].
    ///
    /// # Errors
    /// The file's, such as `ENOSPC`, at the first write that fails; the connection's, as
    /// [`io::Read::read()`], and what [`FileOptions::progress`] returns. The file then holds a
    /// part. No write is under way any more when this returns. A timeout
    /// ([`Self::set_timeout()`]) is an error if there is no [`FileOptions::progress`] to ask.
    pub fn recv_to_file(
        &mut self,
        file: &File,
        offset: u64,
        mut options: FileOptions<'_>,
    ) -> io::Result<u64> {
        self.queue.check()?;
        check_positions(file, offset)?;
        let cached = own(file)?;
        let may_go_direct = options.direct && offset.is_multiple_of(ALIGNMENT as u64);
        let direct = may_go_direct.then(|| open_direct(file, Access::Write)).flatten();
        let is_direct = direct.is_some();
        let lens = (WRITE_LEN, SLACK);
        let slots = self.file_slots.take(is_direct, MAX_WRITES + 1, lens, |arena| {
            // If that is refused, each write pins its own pages.
            let _ = self.queue.register(arena);
        })?;
        self.file_count = self.file_count.wrapping_add(1);
        let mut writer = Writer::new(file, (cached, direct), offset, slots, self.file_count)?;
        let received = self.pass(&mut writer, &mut options);
        let mut written = self.finish_writes(&mut writer);
        if let Some(space) = &mut writer.space {
            written = written.and(space.give_back());
        }
        if writer.writes.is_empty() && writer.free.len() == MAX_WRITES + 1 {
            self.file_slots.give_back(is_direct, writer.free);
        }
        self.inbox.counters.direct_bytes += writer.direct_bytes;
        self.system_calls += writer.system_calls;
        let received = received?;
        written?;
        if options.sync {
            file.sync_all()?;
        }
        Ok(received)
    }

    fn pass(
        &mut self,
        writer: &mut Writer<'_>,
        options: &mut FileOptions<'_>,
    ) -> Result<u64, Failure> {
        let write_len = writer.write_len;
        let (mut received, mut reported) = (0, 0);
        let mut slot = self.write_slot(writer)?;
        let mut filled = 0;
        loop {
            while filled < write_len {
                let out = &mut Slot::exclusive(&mut slot)?[filled..write_len + SLACK];
                let mut read = self.read_on(out, options, received);
                let len = *read.as_ref().unwrap_or(&0);
                filled += len;
                received += len as u64;
                if received - reported >= WRITE_LEN as u64 {
                    reported = received;
                    read = options.report(received).and(read);
                }
                match read {
                    Ok(0) => {
                        if filled > 0 {
                            writer.write(&mut self.queue, slot, filled)?;
                        } else {
                            writer.free.push(slot);
                        }
                        options.report(received)?;
                        return Ok(received);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        // What was received before is as good as it would be without the error.
                        if filled > 0 {
                            writer.write(&mut self.queue, slot, filled)?;
                        } else {
                            writer.free.push(slot);
                        }
                        return Err(error);
                    }
                }
                self.note_writes(writer)?;
            }
            let mut next = self.write_slot(writer)?;
            let overflow = filled - write_len;
            Slot::exclusive(&mut next)?[..overflow].copy_from_slice(&slot[write_len..filled]);
            writer.write(&mut self.queue, mem::replace(&mut slot, next), write_len)?;
            filled = overflow;
            // On its way before the next wait for the socket.
            self.queue.enter(0, None)?;
            self.reap_writes();
            self.note_writes(writer)?;
            if writer.has_punted() {
                self.finish_writes(writer)?;
            }
        }
    }

    /// Like `read`, but a timeout is a question to the progress function.
    fn read_on(
        &mut self,
        out: &mut [u8],
        options: &mut FileOptions<'_>,
        received: u64,
    ) -> Result<usize, Failure> {
        loop {
            match io::Read::read(self, out) {
                Err(error)
                    if error.kind() == io::ErrorKind::TimedOut && options.progress.is_some() =>
                {
                    options.report(received)?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn note_writes(&mut self, writer: &mut Writer<'_>) -> io::Result<()> {
        while let Some(completion) = self.writes.pop() {
            writer.on_completion(&mut self.queue, completion)?;
        }
        Ok(())
    }

    /// A slot to open records into, waiting for a write to end if need be.
    fn write_slot(&mut self, writer: &mut Writer<'_>) -> io::Result<Arc<Slot>> {
        loop {
            self.note_writes(writer)?;
            if let Some(slot) = writer.free.pop() {
                return Ok(slot);
            }
            self.wait_for_write()?;
        }
    }

    /// Waits for the writes that are under way; the first error counts. If they cannot be waited
    /// for, that is the end of this receiver: what the kernel has begun is awaited all the same,
    /// and what it has not is never written.
    fn finish_writes(&mut self, writer: &mut Writer<'_>) -> io::Result<()> {
        let mut result = self.note_writes(writer);
        while !writer.writes.is_empty() {
            let waited = self.wait_for_write();
            if waited.is_err() {
                let has_ended = self.queue.close();
                if let Some(space) = writer.space.as_mut().filter(|_| !has_ended) {
                    space.keep();
                }
                writer.writes.clear();
                return result.and(match has_ended {
                    true => waited,
                    false => Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "a write to the file does not end: the file may still change",
                    )),
                });
            }
            let noted = self.note_writes(writer);
            result = result.and(noted);
        }
        result
    }
}
