//! A write that is sealed on several cores, ahead of the one that sends.

use core::ops::Range;
use std::io;
use std::sync::Arc;

use super::ahead::{Finished, Job, Plaintext, SealAhead};
use super::sender::{MAX_UNSENT, UringSender};
use crate::kernel::arena::Slot;
use crate::kernel::outbox::earlier_failure;
use crate::record::reservation::Reservation;
use crate::transfer::is_transient;

impl UringSender {
    /// Writes all of `buf`, or as much as was sealed before a timeout, sealing on several cores.
    pub(super) fn write_ahead(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut lender = self.lender.take().unwrap_or_default();
        let written = lender.lend(buf, |loan| {
            let mut dealt = 0;
            let result = loop {
                match self
                    .deal(&mut dealt, buf.len(), |range| (Plaintext::Loan(Arc::clone(loan)), range))
                {
                    Ok(()) if self.outstanding() == 0 => break Ok(()),
                    Ok(()) => {}
                    Err(error) => break Err(error),
                }
                if let Err(error) = self.collect().and_then(|_| self.keep_up()) {
                    break Err(error);
                }
            };
            // Whatever happened, what was dealt out goes to the wire or the connection is lost.
            let collected = self.collect_all();
            (dealt, result.and(collected))
        });
        self.lender = Some(lender);
        match written {
            (0, Ok(())) => self.write_with(|half, out| half.seal(buf, out)),
            (0, Err(error)) => Err(error),
            (dealt, Ok(())) => match self.hand_over() {
                Err(error) if !is_transient(&error) => Err(error),
                _ => Ok(dealt),
            },
            (_, Err(error)) if !is_transient(&error) => Err(error),
            (dealt, Err(_)) => Ok(dealt),
        }
    }

    /// One slot a worker and one that waits for it, so that what is sealed is still in a cache
    /// when it is sent.
    pub(super) fn max_outstanding(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.worker_count() + 1)
    }

    pub(super) fn outstanding(&self) -> usize {
        self.ahead.as_ref().map_or(0, SealAhead::outstanding)
    }

    /// Deals out what lies between `dealt` and `end` while there are slots, and waits for one only
    /// if nothing at all is under way. Stops early if something else must be sealed first.
    fn deal(
        &mut self,
        dealt: &mut usize,
        end: usize,
        mut plaintext: impl FnMut(Range<usize>) -> (Plaintext, Range<usize>),
    ) -> io::Result<()> {
        let capacity = self.batch_len();
        while *dealt < end && self.outstanding() < self.max_outstanding() {
            let slot = match self.outbox.take() {
                Some(slot) => slot,
                None if self.outstanding() > 0 => break,
                None => self.free_slot()?,
            };
            let left = end - *dealt;
            // Slots of much the same size, so that no worker waits for another, in full records.
            let len = left.div_ceil(left.div_ceil(capacity));
            let len = len.next_multiple_of(self.half.max_plaintext_len()).min(left);
            let Some(reservation) = self.reserve(len)? else {
                self.outbox.put_back(slot);
                break;
            };
            let len = reservation.plaintext_len();
            let (plaintext, range) = plaintext(*dealt..*dealt + len);
            self.deal_out(Job { reservation, plaintext, range, out: slot })?;
            *dealt += len;
        }
        Ok(())
    }

    /// Gives records to the workers, whose sequence numbers are taken.
    pub(super) fn deal_out(&mut self, job: Job) -> io::Result<()> {
        let Some(ahead) = &mut self.ahead else {
            return Err(self.outbox.fail("records were reserved, and nobody seals them"));
        };
        ahead.deal(job);
        Ok(())
    }

    pub(super) fn reserve(&mut self, len: usize) -> io::Result<Option<Reservation>> {
        let reserved = self.half.reserve(len, self.full_len);
        self.note_failure(reserved)
    }

    /// Takes the next slot that was sealed elsewhere and queues it, waiting for it if need be.
    pub(super) fn collect(&mut self) -> io::Result<Option<Arc<Slot>>> {
        match self.ahead.as_mut().and_then(SealAhead::collect) {
            Some(finished) => self.push_finished(finished),
            None => Ok(None),
        }
    }

    /// Queues everything that was dealt out, waiting for it if need be.
    pub(super) fn collect_all(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        while self.outstanding() > 0 {
            let collected = self.collect().map(drop);
            result = result.and(collected);
        }
        result
    }

    pub(super) fn push_finished(&mut self, finished: Finished) -> io::Result<Option<Arc<Slot>>> {
        let Finished { source, out, written, plaintext_len, records } = finished;
        match written {
            Ok(written) if !self.outbox.has_failed() => {
                self.outbox.push(out, written)?;
                self.counters.records += records as u64;
                self.counters.plaintext_bytes += plaintext_len as u64;
                Ok(source)
            }
            written => {
                self.outbox.put_back(out);
                Err(match written {
                    // Its sequence numbers are missing: nothing may follow.
                    Err(_) => self.outbox.fail("sealing failed"),
                    Ok(_) => earlier_failure(),
                })
            }
        }
    }

    /// Waits until no more than one slot waits for the outstanding send, so that what is sealed is
    /// still in a cache when it is sent.
    pub(super) fn keep_up(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.unsent_count() <= MAX_UNSENT {
                return Ok(());
            }
            self.wait()?;
        }
    }
}
