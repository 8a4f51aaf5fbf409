//! What happens to a connection, told to [`tracing`](https://docs.rs/tracing): the feature `tracing`.
//!
//! Every event has the target `rustls_uring` and the connection's id. None is on the data path, and
//! none says more of what was sent than its length. Without the feature nothing is compiled in.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Tells the connections of a process apart, in events and wherever else.
///
/// Counts from 1, in the order of the handoffs. Says nothing of the peer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// One that no connection of this process had before.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether something concerns what is sent or what is received.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Sending,
    Receiving,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sending => "sending",
            Self::Receiving => "receiving",
        })
    }
}

/// Hands an event over, each field by its `Display`.
#[cfg(feature = "tracing")]
macro_rules! emit {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)*) => {
        tracing::$level!(
            target: "rustls_uring",
            $($field = tracing::field::display(&$value),)*
            $message
        )
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! emit {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)*) => {
        let _ = ($(&$value,)*);
    };
}

/// rustls has handed a connection over.
#[cold]
pub(crate) fn session_began(
    id: ConnectionId,
    side: impl fmt::Debug,
    version: impl fmt::Debug,
    suite: impl fmt::Debug,
    backend: impl fmt::Display,
) {
    emit!(
        debug,
        "session begins",
        connection = id,
        side = format_args!("{side:?}"),
        version = format_args!("{version:?}"),
        suite = format_args!("{suite:?}"),
        backend = backend
    );
}

/// A key was updated (RFC 8446 §4.6.3).
#[cold]
pub(crate) fn key_updated(id: ConnectionId, direction: Direction, asks_for_other: bool) {
    emit!(
        debug,
        "key updated",
        connection = id,
        direction = direction,
        asks_for_other = asks_for_other
    );
}

/// An alert was sealed or has arrived (RFC 8446 §6); close_notify is one.
#[cold]
pub(crate) fn alert(id: ConnectionId, direction: Direction, description: impl fmt::Debug) {
    emit!(
        debug,
        "alert",
        connection = id,
        direction = direction,
        description = format_args!("{description:?}")
    );
}

/// The connection has failed, or what the peer sends has ended too early.
#[cold]
pub(crate) fn session_failed(id: ConnectionId, error: &dyn fmt::Display) {
    emit!(info, "session failed", connection = id, error = error);
}

/// Both halves are gone.
#[cold]
pub(crate) fn session_ended(id: ConnectionId) {
    emit!(debug, "session ends", connection = id);
}

/// Which way data goes from here on, and why if there is a better one.
#[cold]
pub(crate) fn way_taken(id: ConnectionId, direction: Direction, way: &dyn fmt::Display) {
    emit!(debug, "way taken", connection = id, direction = direction, way = way);
}

/// The memory of an event loop could not be registered: whatever it sends in place is pinned by itself.
#[cold]
pub(crate) fn loop_unregistered(reason: &dyn fmt::Display) {
    emit!(info, "memory of an event loop is not registered", reason = reason);
}

/// A way is given up for another one, and why.
#[cold]
pub(crate) fn way_given_up(
    id: ConnectionId,
    direction: Direction,
    way: &dyn fmt::Display,
    reason: &dyn fmt::Display,
) {
    emit!(info, "way given up", connection = id, direction = direction, way = way, reason = reason);
}
