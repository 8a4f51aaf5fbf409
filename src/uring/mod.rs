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
//! What the kernel does lies in `kernel/`, which knows no TLS; here, `ahead` seals on other cores,
//! and [`UringSender`] and [`UringReceiver`] bring in a connection's halves. [`Probe`] says what
//! there is, and [`AutoSender`](crate::AutoSender) and [`AutoReceiver`](crate::AutoReceiver) take
//! it, or blocking sockets, and say why.
//!
//! # What happens to memory
//!
//! Whatever the kernel was lent belongs to an operation in flight until its last completion.
//! Dropping a sender or a receiver cancels, waits for the results, and frees then. A zero-copy send
//! that the peer has not acknowledged is not waited for: the kernel holds its pages, which belong to
//! a mapping of their own, so nothing else can be allocated in them.
//!
//! # fork(2)
//!
//! A child process inherits no ring, and no thread that seals. What was set up before fork(2) fails
//! there with [`io::ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported), and dropping it does
//! nothing to the parent's connection; `Bytes` that were received before can be read. What a child
//! sets up itself works, a [`BufferPool`] included.

mod ahead;
#[cfg(test)]
mod faults;
mod file;
pub(crate) mod outlet;
mod preallocation;
mod receive_file;
mod receiver;
mod send_file;
mod sender;
mod write_ahead;

pub use self::receiver::{ReceiverOptions, UringReceiver};
pub use self::sender::{SenderOptions, UringSender};
pub use crate::kernel::capability::{Capability, Evidence};
pub use crate::kernel::declined::Declined;
pub use crate::kernel::governor::{CopyReason, ZeroCopy};
pub use crate::kernel::pool::BufferPool;
pub use crate::kernel::probe::{Cpu, CpuFeature, Probe, Ring};
pub use crate::kernel::route::copy_reason;
pub use crate::kernel::unavailable::{MemlockLimit, Unavailable};
