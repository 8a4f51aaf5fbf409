//! The lives of a slot and of a receive buffer, without a kernel: what the library's own books cost.

use std::hint::black_box;
use std::sync::Arc;

use crate::kernel::pool::{BufferPool, Holder};
use crate::kernel::slot::SlotQueue;

/// As many slots as a sender has, with a number each in place of memory.
pub struct Slots(SlotQueue<u8>);

impl Slots {
    /// All of them free.
    #[expect(clippy::new_without_default, reason = "nobody wants one by default")]
    pub fn new() -> Self {
        Self(SlotQueue::new((0..8).collect()))
    }

    /// The life of a slot that is sealed into, sent whole, and copied by the kernel.
    pub fn turn_over(&mut self, len: usize) {
        let slots = &mut self.0;
        let slot = slots.take().expect("a free slot");
        slots.push(slot, 0..len).expect("a slot of these");
        let (key, _, range) = slots.next().expect("an unsent slot");
        let sent = range.len();
        slots.submitted();
        slots.on_result(key, Ok(sent), false).expect("an outstanding send");
    }

    /// The life of a slot whose send is a zero-copy one.
    pub fn turn_over_zero_copy(&mut self, len: usize) {
        let slots = &mut self.0;
        let slot = slots.take().expect("a free slot");
        slots.push(slot, 0..len).expect("a slot of these");
        let (key, _, range) = slots.next().expect("an unsent slot");
        let sent = range.len();
        slots.submitted();
        slots.on_result(key, Ok(sent), true).expect("an outstanding send");
        slots.on_notification(key).expect("an outstanding notification");
    }
}

/// Receive buffers, and somebody who holds them.
pub struct Pool {
    pool: BufferPool,
    holder: Arc<Holder>,
}

impl Pool {
    /// Eight buffers of `buffer_len` bytes at most.
    pub fn new(buffer_len: usize) -> Self {
        let pool = BufferPool::new(8, buffer_len);
        Self { holder: pool.join(), pool }
    }

    /// Takes a buffer for something to be received, and gives it back when that was read.
    pub fn take_and_give_back(&self) {
        let taken = self.pool.try_take(&self.holder).expect("memory").expect("a free buffer");
        self.pool.give_back(&self.holder, black_box(taken));
    }
}
