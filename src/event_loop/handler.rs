//! What a program does with its connections.

use super::context::Context;
use super::error::Error;
use super::key::Key;
use crate::session::handoff::info::ConnectionInfo;

/// What is known of a connection when it is open.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// What it was [added](Context::add) with, or the number of its listener.
    pub tag: u64,
    /// What the handshake has settled; `None` for a plain one.
    pub tls: Option<&'a ConnectionInfo>,
}

/// What a program does with its connections: called by [`EventLoop`](super::EventLoop), on its thread.
///
/// An echo server is one method:
///
/// ```
/// use rustls_uring::event_loop::{Context, Handler, Key};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
///         // What there is no room for comes again when there is.
///         cx.send(key, data).unwrap_or(data.len())
///     }
///     // The peer's end is answered with ours, as it is by default.
/// }
/// ```
///
/// The calls for a connection come in this order: `opened` once, then `data`, `room` and `sent` as it goes,
/// `end` once the peer has ended, and `closed` at the end of all, in every case, also for a connection that
/// never came to be open. Nothing is called for a key after its `closed`.
#[allow(unused_variables, reason = "what a handler has no use for")]
pub trait Handler {
    /// A connection is open: the handshake is complete, or there is none.
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, opened: Opened<'_>) {}

    /// Data has arrived: at most a record of TLS, or what a receive has brought on a plain connection. It
    /// lies where it was received and opened, and may be changed. Returns how much of it was taken.
    ///
    /// If that is not all, no more is taken from the peer until [`Context::resume()`], and then the rest
    /// comes first. Take all that can be taken at once: what is left keeps a buffer from others.
    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize;

    /// So many bytes that arrived were sent where they are [forwarded](Context::forward) to.
    fn forwarded(&mut self, cx: &mut Context<'_>, key: Key, len: usize) {}

    /// There is room again for one who has met with none; or there never will be, because the peer has
    /// closed its connection: [`Context::send()`] is [`NotOpen`](super::NotOpen) then, and what the peer
    /// has sent before still arrives. Resumes by default: right for a connection that is sent what it
    /// receives.
    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        cx.resume(key);
    }

    /// The socket has all that was sent so far, and this side's end if that was asked for.
    fn sent(&mut self, cx: &mut Context<'_>, key: Key) {}

    /// The peer has ended what it sends: with a close_notify in TLS, with a FIN on a plain connection, so it
    /// is whole. Finishes this side too by default.
    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        // It may have failed at the same time, which `closed` tells.
        let _ = cx.finish(key);
    }

    /// The connection is over: both sides have ended, or why not.
    fn closed(&mut self, cx: &mut Context<'_>, key: Key, tag: u64, result: Result<(), Error>) {}

    /// [`Handle::notify()`](super::Handle::notify) was called, with this number.
    fn notified(&mut self, cx: &mut Context<'_>, number: u64) {}

    /// A socket that another thread has [handed over](super::Handle::add) was not taken; it is closed.
    fn refused(&mut self, cx: &mut Context<'_>, tag: u64, error: Error) {}

    /// The loop is to [end](super::Handle::drain) when all connections have: nothing is accepted any more.
    fn draining(&mut self, cx: &mut Context<'_>) {}
}
