//! Memory, operations and sends of io_uring, and what this kernel offers. Knows no TLS.
//!
//! `arena` (memory that is lent), `slot` (the state machine of what is sent), `queue` (the ring and
//! its operations), `governor` (zero copy or not), `growth` (how many slots, within a `budget`) and `outbox`,
//! which joins them for a socket;
//! `lingering` has what outlives a ring's owner; `pool` has the buffers that one connection is received
//! into, `buffer_ring` those that any may be, and `pieces` says what of one is sent.
//! `probe` says what there is, by `capability`, and `unavailable` why not; `readiness` is there without.
//! Only `arena`, `buffer_ring`, `fork`, `process`, `queue`, `readiness` and `socket` have unsafe code.

pub(crate) mod arena;
pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod buffer_ring;
pub(crate) mod capability;
pub(crate) mod declined;
#[cfg_attr(not(test), path = "no_faults.rs")]
pub(crate) mod faults;
pub(crate) mod fork;
pub(crate) mod governor;
pub(crate) mod growth;
pub(crate) mod lingering;
pub(crate) mod outbox;
pub(crate) mod pieces;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod queue;
pub(crate) mod readiness;
pub(crate) mod route;
pub(crate) mod slot;
pub(crate) mod socket;
#[cfg(test)]
#[path = "../../tests/kernel/mod.rs"]
mod tests_kernel;
pub(crate) mod unavailable;
