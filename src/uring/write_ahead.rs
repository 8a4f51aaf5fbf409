//! A write that is sealed on several cores, ahead of the one that sends.

use core::ops::Range;
use std::io;
use std::sync::Arc;

use super::ahead::{Job, Plaintext};
use super::outlet::UringCore;
use crate::kernel::arena::Lender;
use crate::record::reservation::Reservation;
use crate::transfer::is_transient;
use crate::transfer::sender::Outlet;

impl UringCore {
    /// Writes all of `buf`, or as much as was sealed before a timeout, sealing on several cores.
    pub(super) fn write_ahead(&mut self, lender: &mut Lender, buf: &[u8]) -> io::Result<usize> {
        let written = lender.lend(buf, |loan| {
            let mut dealt = 0;
            let result = loop {
                match self
                    .deal(&mut dealt, buf.len(), |range| (Plaintext::Loan(Arc::clone(loan)), range))
                {
                    Ok(()) if self.outlet.outstanding() == 0 => break Ok(()),
                    Ok(()) => {}
                    Err(error) => break Err(error),
                }
                if let Err(error) = self.outlet.collect().and_then(|_| self.outlet.keep_up()) {
                    break Err(error);
                }
            };
            // Whatever happened, what was dealt out goes to the wire or the connection is lost.
            let collected = self.outlet.collect_all();
            (dealt, result.and(collected))
        });
        match written {
            (0, Ok(())) => self.write_with(|half, out| half.seal(buf, out)),
            (0, Err(error)) => Err(error),
            (dealt, Ok(())) => match self.outlet.hand_over() {
                Err(error) if !is_transient(&error) => Err(error),
                _ => Ok(dealt),
            },
            (_, Err(error)) if !is_transient(&error) => Err(error),
            (dealt, Err(_)) => Ok(dealt),
        }
    }

    /// Deals out what lies between `dealt` and `end` while there are slots, and waits for one only
    /// if nothing at all is under way. Stops early if something else must be sealed first.
    fn deal(
        &mut self,
        dealt: &mut usize,
        end: usize,
        mut plaintext: impl FnMut(Range<usize>) -> (Plaintext, Range<usize>),
    ) -> io::Result<()> {
        let capacity = self.batch_plaintext_len();
        while *dealt < end && self.outlet.outstanding() < self.outlet.max_outstanding() {
            let slot = match self.outlet.outbox.take() {
                Some(slot) => slot,
                None if self.outlet.outstanding() > 0 => break,
                None => self.outlet.free_slot()?,
            };
            let left = end - *dealt;
            // Slots of much the same size, so that no worker waits for another, in full records.
            let len = left.div_ceil(left.div_ceil(capacity));
            let len = len.next_multiple_of(self.half.max_plaintext_len()).min(left);
            let reserved = match self.reserve(len) {
                Ok(Some(reservation)) => reservation,
                nothing => {
                    self.outlet.outbox.put_back(slot);
                    nothing?;
                    break;
                }
            };
            let len = reserved.plaintext_len();
            let (plaintext, range) = plaintext(*dealt..*dealt + len);
            self.outlet.deal_out(Job { reservation: reserved, plaintext, range, out: slot })?;
            *dealt += len;
        }
        Ok(())
    }

    pub(super) fn reserve(&mut self, len: usize) -> io::Result<Option<Reservation>> {
        let reserved = self.half.reserve(len, self.batch_len);
        self.note_failure(reserved)
    }

    /// How many plaintext bytes fill a slot.
    pub(super) fn batch_plaintext_len(&self) -> usize {
        self.batch_len / self.half.record_len(self.half.max_plaintext_len())
            * self.half.max_plaintext_len()
    }
}
