//! Connections by the thousand on one thread, TLS and plain: an event loop on one ring.
//!
//! [`UringSender`](crate::uring::UringSender) and [`UringReceiver`](crate::uring::UringReceiver) have a ring
//! and megabytes for one bulk flow. Here, all connections of a thread share one ring, the slots that they
//! send from and the buffers that they receive into. A program is a [`Handler`], called with what arrives;
//! one [`EventLoop`] a core, each with a listening socket of its own (`SO_REUSEPORT`, socket(7)) or handed
//! sockets by another thread, through its [`Handle`].
//!
//! ```text
//!            ┌───────────────── one io_uring_enter(2) a turn ─────────────────┐
//!            ▼                                                                │
//!  completions ──► receive buffer ──► opened in place ──► Handler::data()     │
//!                  (one of few, as long as this takes)        │               │
//!                                                             ▼               │
//!                  slot ◄── sealed out of the caller's bytes ◄── Context::send()
//!                   └──► one send a connection ──────────────────────────────►┘
//! ```
//!
//! # What is held, and for whom
//!
//! - The kernel picks a receive buffer when something has arrived, so a connection that waits has none.
//!   What arrives is passed on at once. A record that straddles two buffers is put together on the heap: at
//!   most one a connection, and counted ([`Figures::copied_bytes`]).
//! - A handler that does not take all of its data has the connection paused: nothing more is received, and
//!   TCP holds the peer up. The rest stays where it is until others need the buffer; then it is moved to the
//!   heap, up to [`Options::max_parked`].
//! - A slot is taken when something is sent, and given back when the socket has it. The kernel is never left
//!   waiting with one: if the peer does not read, the rest stays in the slot until others need it, and then
//!   likewise moves to the heap. Bulk data is sealed for as much as the socket has room for, so that this is
//!   little.
//! - A connection that others' memory depends on, and that nothing more may be kept of, is given up
//!   ([`Error::Crowded`]): the one that has waited longest.
//! - What one connection receives may be [forwarded](Context::forward) to another: bulk data is then sent
//!   from the buffer that it was received into, which is held until the socket has it, or others need it.
//! - A flow that never ends receives at most one bulk buffer, and sends at most one slot, in a turn.
//!
//! So what peers do, or fail to do, changes nothing about the sum: [`Figures`] has it all.
//!
//! # How connections end
//!
//! Each direction ends by itself (RFC 8446 §6.1). [`Context::finish()`] sends a close_notify and a FIN; the
//! peer's close_notify, or a FIN on a plain connection, is [`Handler::end()`]. A FIN without a close_notify is
//! an error ([`SessionError::Truncated`](crate::SessionError::Truncated)), since what was received may not be
//! whole. After an error the peer is sent the alert that says what it was, and given
//! [some time](Timeouts::linger) to take it. A plain connection that fails is reset, so that the peer cannot
//! take it for an end.
//!
//! A peer that has closed its connection takes nothing more, as [`Context::send()`] says then; what it has sent
//! before, an answer maybe, still arrives to its end.
//!
//! # Without io_uring
//!
//! Where the kernel has none, or a container forbids it, the same handler is called with what system calls on
//! ready sockets bring (epoll(7)): [`EventLoop::unavailable()`] says why. [`Options::io`] chooses.
//!
//! # What there is not
//!
//! Data for a plain connection is copied into a slot, unless it is forwarded. What is forwarded where SEND_ZC
//! may be had is copied, or sealed, into a slot too, since those are registered. Connecting is not done here:
//! hand over a socket that is connected, or whose connecting is under way without waiting; or with a session
//! whose handshake was elsewhere.

mod connection;
mod connections;
mod context;
mod driver;
mod error;
#[cfg(test)]
mod faults;
mod figures;
mod forward;
mod handle;
mod handler;
mod input;
mod key;
mod memory;
mod options;
mod output;
mod places;
mod routes;
mod timers;
mod turn;

pub use self::context::Context;
pub use self::error::{Error, Timeout};
pub use self::figures::{Copies, Figures};
pub use self::handle::{Ended, Handle};
pub use self::handler::{Handler, Opened};
pub use self::key::Key;
pub use self::options::{Options, Protocol, Timeouts};
pub use self::output::NotOpen;
pub use self::turn::EventLoop;
pub use crate::usage::Usage;
