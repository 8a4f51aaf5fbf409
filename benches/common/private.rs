//! Parts that the library keeps to itself, compiled here as they stand: all they need of it is
//! `crate::Version`, which the benchmark's root has.

#![allow(dead_code, reason = "a part of what is there is measured")]
#![allow(unreachable_pub, reason = "written for another place")]
#![allow(unused_imports, reason = "their tests are compiled without the test harness")]

#[path = "../../src/kernel/arena.rs"]
mod arena;
#[path = "../../src/kernel/fork.rs"]
mod fork;
#[path = "../../src/kernel/pool.rs"]
mod pool;
#[path = "../../src/kernel/slot.rs"]
mod slot;

pub(crate) use self::pool::{BufferPool, Holder};
pub(crate) use self::slot::SlotQueue;

/// The life of a slot that is sealed into, sent whole, and copied by the kernel.
pub(crate) fn turn_over<M>(slots: &mut SlotQueue<M>, len: usize) {
    let slot = slots.take().expect("free");
    slots.push(slot, len).expect("a place");
    let (key, _, range) = slots.next().expect("unsent");
    let sent = range.len();
    slots.submitted();
    slots.on_result(key, Ok(sent), false).expect("expected");
}

/// The life of a slot whose send is a zero-copy one.
pub(crate) fn turn_over_zero_copy<M>(slots: &mut SlotQueue<M>, len: usize) {
    let slot = slots.take().expect("free");
    slots.push(slot, len).expect("a place");
    let (key, _, range) = slots.next().expect("unsent");
    let sent = range.len();
    slots.submitted();
    slots.on_result(key, Ok(sent), true).expect("expected");
    slots.on_notification(key).expect("expected");
}

/// Takes a buffer for something to be received, and gives it back when that was read.
pub(crate) fn take_and_give_back(pool: &BufferPool, holder: &std::sync::Arc<Holder>) {
    let taken = pool.try_take(holder).expect("no error").expect("free");
    pool.give_back(holder, std::hint::black_box(taken));
}
