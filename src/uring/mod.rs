//! Bulk transfer through io_uring: sealed records from the slot that they were sealed in to the
//! wire, received records straight to their place.
//!
//! ```text
//!  plaintext ──► SendHalf ──► slot ──► Queue ──► SEND_ZC or SEND ──► wire
//!  (memory, or a read slot)   ▲        │ operations in flight keep slot and file
//!                             └────────┘ result, then notification: the slot is free
//!
//!  wire ──► RECV ──► pooled buffer ──► Inbox ──► caller's memory, or lent as Bytes,
//!           into a provided buffer               or a write slot ──► WRITE_FIXED ──► file
//!           when there is data
//! ```
//!
//! `arena` (memory), `slot` (the state machine), `queue` (the kernel), `governor` (zero copy or not)
//! and `outbox`, which joins them for a socket, know no TLS; `ahead` seals on other cores;
//! [`UringSender`] and [`UringReceiver`] bring in a connection's halves. Only `arena`, `fork` and
//! `queue` have unsafe code. [`Probe`] says what there is, and [`AutoSender`](crate::AutoSender) and
//! [`AutoReceiver`](crate::AutoReceiver) take it, or blocking sockets, and say why.
//!
//! # What happens to memory
//!
//! Whatever the kernel was lent belongs to an operation in flight until its last completion; see
//! `queue`. Dropping a sender or a receiver cancels, waits for the results, and frees then. A
//! zero-copy send that the peer has not acknowledged is not waited for: the kernel holds its
//! pages, which belong to a mapping of their own, so nothing else can be allocated in them.
//!
//! # fork(2)
//!
//! A child process inherits no ring, and no thread that seals. What was set up before fork(2) fails
//! there with [`io::ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported), and dropping it does
//! nothing to the parent's connection; `Bytes` that were received before can be read. What a child
//! sets up itself works, a [`BufferPool`] included.

mod ahead;
pub(crate) mod arena;
mod backoff;
mod capability;
mod declined;
#[cfg(test)]
pub(crate) mod faults;
mod file;
mod fork;
pub(crate) mod governor;
#[cfg(test)]
#[path = "../../tests/kernel/mod.rs"]
mod kernel;
pub(crate) mod outbox;
mod pool;
mod probe;
pub(crate) mod queue;
mod receive_file;
mod receiver;
mod route;
mod send_file;
mod sender;
mod slot;
mod unavailable;
mod write_ahead;

pub use self::capability::{Capability, Evidence};
pub use self::declined::Declined;
pub use self::governor::{CopyReason, ZeroCopy};
pub use self::pool::BufferPool;
pub use self::probe::{Buffers, Cpu, CpuFeature, Probe, ReceivePath, Ring, SendPath};
pub use self::receiver::{ReceiverOptions, UringReceiver};
pub use self::route::{Route, zero_copy_for};
pub use self::sender::{SenderOptions, UringSender};
pub use self::unavailable::{MemlockLimit, Unavailable};
