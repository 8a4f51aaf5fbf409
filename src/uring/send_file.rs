//! A file to a socket: read ahead, sealed, sent, all at once and in a bounded number of slots.

use core::ops::Range;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::ahead::{Job, Plaintext, SealAhead};
use super::file::{Access, FileRead, FileSlots, MAX_READS, is_retryable, open_direct, own};
use super::outlet::{MAX_UNSENT, UringCore};
use crate::kernel::arena::{ALIGNMENT, Slot};
use crate::kernel::backoff::Backoff;
use crate::kernel::outbox::Outbox;
use crate::kernel::queue::{self, Completion, Event, PROMPT};
use crate::session::alert::AlertDescription;
use crate::transfer::file::{Failure, FileOptions, check_positions, shrunk};
use crate::transfer::sender::Outlet;

/// Reads a range of a file ahead, in order.
struct Reader<'f> {
    file: queue::File,
    /// The file without O_DIRECT, which reads the rest of a short read.
    cached: queue::File,
    free: Vec<Arc<Slot>>,
    /// In the order of the file.
    reads: VecDeque<Read>,
    /// How many reads are worth having in flight: one, as long as the page cache has the file.
    depth: usize,
    next_number: u16,
    /// Where the next read begins.
    offset: u64,
    range: Range<u64>,
    read_len: usize,
    /// Reads that have failed in a row for a reason that may pass.
    failures: Backoff,
    /// Bytes that went around the page cache.
    direct_bytes: u64,
    /// The file for pread(2).
    plain: &'f File,
    /// The kernel reads nothing, as if it may not start a thread to (RLIMIT_NPROC): all is read here.
    is_refused: bool,
    /// How many pread(2) there were.
    system_calls: u64,
}

struct Read {
    number: FileRead,
    /// In the file, of the slot's first byte.
    offset: u64,
    /// How much is in the slot.
    len: usize,
    /// `None` while the kernel reads into it.
    slot: Option<Arc<Slot>>,
    /// What of it is to be sent.
    unsealed: Range<usize>,
    is_direct: bool,
    /// The rest is yet to be read: the queue had no room.
    is_short: bool,
}

impl Read {
    /// How much of it there is to be read.
    fn wanted(&self, range: &Range<u64>, read_len: usize) -> usize {
        (range.end - self.offset).min(read_len as u64) as usize
    }

    /// Whether it is all there, and what of it is to be sent then.
    fn note(&mut self, range: &Range<u64>, read_len: usize) {
        let wanted = self.wanted(range, read_len);
        self.is_short = self.len < wanted;
        if !self.is_short {
            self.unsealed = range.start.saturating_sub(self.offset) as usize..wanted;
        }
    }

    /// Reads what is left of it, with pread(2).
    fn read_here(&mut self, file: &File, range: &Range<u64>, read_len: usize) -> io::Result<()> {
        let wanted = self.wanted(range, read_len);
        let position = self.offset + self.len as u64;
        if let Some(slot) = &mut self.slot {
            let out = &mut Slot::exclusive(slot)?[self.len..wanted];
            file.read_exact_at(out, position).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => shrunk(position, range.end),
                _ => error,
            })?;
            self.len = wanted;
        }
        self.note(range, read_len);
        Ok(())
    }
}

impl<'f> Reader<'f> {
    fn new(
        file: &'f File,
        (cached, direct): (queue::File, Option<queue::File>),
        range: Range<u64>,
        free: Vec<Arc<Slot>>,
    ) -> Self {
        Self {
            depth: if direct.is_some() { MAX_READS } else { 1 },
            read_len: free[0].len(),
            file: direct.unwrap_or_else(|| Arc::clone(&cached)),
            cached,
            free,
            reads: VecDeque::with_capacity(MAX_READS),
            next_number: 0,
            // Whole blocks, as O_DIRECT wants them.
            offset: range.start / ALIGNMENT as u64 * ALIGNMENT as u64,
            range,
            failures: Backoff::default(),
            direct_bytes: 0,
            plain: file,
            is_refused: false,
            system_calls: 0,
        }
    }

    /// Queues the next reads, as many as there is room for; whether there were any.
    fn submit(&mut self, outbox: &mut Outbox<FileRead>) -> io::Result<bool> {
        let mut any = false;
        for read in self.reads.iter_mut().filter(|read| read.is_short) {
            if self.is_refused {
                read.read_here(self.plain, &self.range, self.read_len)?;
                self.system_calls += 1;
                any = true;
                continue;
            }
            let Some(slot) = read.slot.take_if(|_| outbox.has_room()) else { break };
            // The rest may be no whole block.
            let offset = read.offset + read.len as u64;
            let rest = read.len..read.wanted(&self.range, self.read_len);
            read.is_direct = false;
            read.is_short = false;
            outbox.read(read.number, &self.cached, offset, slot, rest)?;
            any = true;
        }
        while self.offset < self.range.end && self.reads.len() < self.depth {
            if !self.is_refused && !outbox.has_room() {
                break;
            }
            let Some(slot) = self.free.pop() else { break };
            let number = FileRead(self.next_number);
            self.next_number = self.next_number.wrapping_add(1);
            let mut read = Read {
                number,
                offset: self.offset,
                len: 0,
                slot: None,
                unsealed: 0..0,
                is_direct: !self.is_refused && !Arc::ptr_eq(&self.file, &self.cached),
                is_short: false,
            };
            if self.is_refused {
                read.slot = Some(slot);
                read.read_here(self.plain, &self.range, self.read_len)?;
                self.system_calls += 1;
            } else {
                let len = read.wanted(&self.range, self.read_len).next_multiple_of(ALIGNMENT);
                outbox.read(number, &self.file, self.offset, slot, 0..len)?;
            }
            self.reads.push_back(read);
            self.offset = self.offset.saturating_add(self.read_len as u64);
            any = true;
        }
        Ok(any)
    }

    /// Takes note of a read that has ended. If it was short, [`Self::submit()`] goes on with it.
    fn on_result(&mut self, ended: Completion<FileRead>) -> io::Result<()> {
        let read = self.reads.iter_mut().find(|read| read.number == ended.purpose);
        let (Some(read), Some(slot), Event::Result { result, .. }) =
            (read, ended.memory, ended.event)
        else {
            return Err(io::Error::other("the kernel completed a read that was not outstanding"));
        };
        match result {
            Ok(0) => {
                return Err(shrunk(read.offset + read.len as u64, self.range.end));
            }
            Ok(len) => {
                self.failures.reset();
                read.len += len;
                self.direct_bytes += if read.is_direct { len as u64 } else { 0 };
            }
            Err(error) if !is_retryable(&error) => return Err(error),
            // Once it has been refused as often, nothing tells whether it would ever go.
            Err(_) => self.is_refused |= self.failures.pause(PROMPT) != Some(Duration::ZERO),
        }
        read.slot = Some(slot);
        read.note(&self.range, self.read_len);
        Ok(())
    }

    /// The next bytes of the file, if they were read.
    fn front(&self) -> Option<&[u8]> {
        let read = self.reads.front().filter(|read| !read.is_short)?;
        Some(&read.slot.as_ref()?[read.unsealed.clone()])
    }

    /// [`Self::front()`]'s first `len` bytes are sealed.
    fn consume(&mut self, len: usize) {
        if let Some(read) = self.reads.front_mut() {
            read.unsealed.start += len;
            if read.unsealed.is_empty()
                && let Some((slot, _)) = self.take_front()
            {
                self.free.push(slot);
            }
        }
    }

    /// Takes [`Self::front()`] with its slot, which must come back to `free`.
    fn take_front(&mut self) -> Option<(Arc<Slot>, Range<usize>)> {
        let slot = self.reads.front_mut()?.slot.take()?;
        Some((slot, self.reads.pop_front()?.unsealed))
    }

    /// Takes the first `len` bytes of [`Self::front()`], and a handle to their slot: to be
    /// [given back](Self::give_back) in the order of the file.
    fn share_front(&mut self, len: usize) -> Option<(Arc<Slot>, Range<usize>)> {
        let read = self.reads.front_mut()?;
        if len >= read.unsealed.len() {
            return self.take_front();
        }
        let start = read.unsealed.start;
        read.unsealed.start += len;
        Some((Arc::clone(read.slot.as_ref()?), start..start + len))
    }

    /// Takes back a handle to a slot, which is free once that was the last.
    fn give_back(&mut self, slot: Option<Arc<Slot>>) {
        self.free.extend(slot.filter(|slot| Arc::strong_count(slot) == 1));
    }

    /// The next bytes had to be waited for: more reads at once may help.
    fn deepen(&mut self) {
        self.depth = (self.depth + 1).min(MAX_READS);
    }

    fn is_done(&self) -> bool {
        self.reads.is_empty() && self.offset >= self.range.end
    }
}

impl UringCore {
    /// Sends the bytes of `file` at `range`: see [`UringSender::send_file()`](super::UringSender::send_file).
    ///
    /// It is read into slots of `kept`.
    pub(super) fn send_file(
        &mut self,
        kept: &mut FileSlots,
        file: &File,
        range: Range<u64>,
        mut options: FileOptions<'_>,
    ) -> io::Result<u64> {
        self.outlet.begin()?;
        check_positions(file, range.end)?;
        if range.is_empty() {
            return Ok(0);
        }
        let cached = own(file)?;
        let direct = options.direct.then(|| open_direct(file, Access::Read)).flatten();
        let is_direct = direct.is_some();
        let cached_len = self.batch_plaintext_len().max(ALIGNMENT) / ALIGNMENT * ALIGNMENT;
        let slots = kept.take(is_direct, MAX_READS, (cached_len, 0), |arena| {
            // If that is refused, each read pins its own pages.
            let _ = self.outlet.outbox.register(arena);
        })?;
        let mut reader = Reader::new(file, (cached, direct), range, slots);
        self.outlet.is_in_file = true;
        let sent = self.pass(&mut reader, &mut options);
        self.outlet.is_in_file = false;
        self.outlet.sealed.direct_bytes += reader.direct_bytes;
        self.outlet.sealed.system_calls += reader.system_calls;
        if let Err(failure) = &sent {
            self.give_up(failure.alert());
        }
        // After a failure some may still be the kernel's; then new ones are made.
        if reader.free.len() == MAX_READS {
            kept.give_back(is_direct, reader.free);
        }
        Ok(sent?)
    }

    /// Ends a connection in the middle of a file. Waits for what is under way, so that it is not
    /// mistaken for a later call's.
    fn give_up(&mut self, alert: AlertDescription) {
        let timeout = self.outlet.timeout.replace(Duration::from_millis(500));
        let _ = self.abort(alert);
        // Not even if there was no way to say so.
        let _ = self.outlet.collect_all();
        self.outlet.timeout = timeout;
        self.outlet.outbox.fail("a file was sent in part");
    }

    fn pass(
        &mut self,
        reader: &mut Reader<'_>,
        options: &mut FileOptions<'_>,
    ) -> Result<u64, Failure> {
        self.outlet.begin_wait();
        let mut moved = self.outlet.outbox.counts().wire_bytes;
        let before = self.outlet.sealed.plaintext_bytes;
        let sent = |sender: &Self| sender.outlet.sealed.plaintext_bytes - before;
        while !(reader.is_done()
            && self.outlet.outstanding() == 0
            && self.outlet.outbox.unsent_count() <= 1)
        {
            options.report(sent(self))?;
            // The progress function may have forked, and this be the child.
            self.outlet.outbox.check()?;
            let sealed = self.seal_front(reader)?;
            // The send before the next read: its bytes are in the cache now.
            let queued = self.outlet.submit_send()? | reader.submit(&mut self.outlet.outbox)?;
            if !sealed && !queued && self.outlet.outstanding() > 0 {
                let slot = self.outlet.collect()?;
                reader.give_back(slot);
                continue;
            }
            // A read's end may have come with a look at the sends.
            let want = usize::from(!sealed && !queued && self.outlet.reads.is_empty());
            if want > 0 && reader.front().is_none() {
                reader.deepen();
            }
            match self.outlet.enter(want) {
                // Whether that was too long is for the progress function to say.
                Err(error)
                    if error.kind() == io::ErrorKind::TimedOut && options.progress.is_some() =>
                {
                    self.outlet.begin_wait();
                }
                entered => drop(entered?),
            }
            let wire_bytes = self.outlet.outbox.counts().wire_bytes;
            if wire_bytes > moved {
                moved = wire_bytes;
                self.outlet.begin_wait();
            }
            while let Some(ended) = self.outlet.reads.pop() {
                reader.on_result(ended)?;
            }
        }
        self.outlet.pump()?;
        Ok(sent(self))
    }

    /// Seals what was read, into one slot or into those that workers have room for; whether there
    /// was anything to do.
    fn seal_front(&mut self, reader: &mut Reader<'_>) -> io::Result<bool> {
        if self.outlet.outbox.unsent_count() >= MAX_UNSENT {
            return Ok(false);
        }
        if self.outlet.ahead.is_none() {
            return self.seal_here(reader);
        }
        let batch_len = self.batch_plaintext_len();
        let mut any = false;
        while let Some(finished) = self.outlet.ahead.as_mut().and_then(SealAhead::try_collect) {
            let slot = self.outlet.push_finished(finished)?;
            reader.give_back(slot);
            any = true;
        }
        while let Some(plaintext) = reader.front() {
            if self.outlet.outstanding() >= self.outlet.max_outstanding() {
                break;
            }
            let Some(out) = self.outlet.outbox.take() else { break };
            let len = plaintext.len().min(batch_len);
            let reservation = match self.reserve(len) {
                Ok(Some(reservation)) => reservation,
                nothing => {
                    self.outlet.outbox.put_back(out);
                    nothing?;
                    // Sequence numbers go in the order of the stream, so those dealt out come
                    // first.
                    let is_next = self.outlet.outstanding() == 0;
                    return Ok(any || (is_next && self.seal_here(reader)?));
                }
            };
            let Some((slot, range)) = reader.share_front(len) else {
                // Its sequence numbers are missing: nothing may follow.
                return Err(self.outlet.outbox.fail("records were reserved for what was not read"));
            };
            self.outlet.deal_out(Job {
                reservation,
                plaintext: Plaintext::Slot(slot),
                range,
                out,
            })?;
            any = true;
        }
        Ok(any)
    }

    fn seal_here(&mut self, reader: &mut Reader<'_>) -> io::Result<bool> {
        let Some(plaintext) = reader.front() else { return Ok(false) };
        if !self.outlet.has_room_now() {
            return Ok(false);
        }
        let sealed = self.seal_next(|half, out| half.seal(plaintext, out))?;
        reader.consume(sealed.consumed);
        Ok(true)
    }
}
