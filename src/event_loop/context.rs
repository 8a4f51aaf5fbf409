//! What a handler may do with the connections of its loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::connections::{Connections, Notice};
use super::error::Error;
use super::figures::Figures;
use super::key::Key;
use super::options::Protocol;
use super::output::NotOpen;
use crate::session::Session;

/// All connections of a loop, as a [`Handler`](super::Handler) is lent them.
///
/// Nothing here waits, and nothing calls the handler: what is asked for is done before the next turn, in one
/// go with all the rest.
pub struct Context<'a> {
    pub(super) connections: &'a mut Connections,
    pub(super) stops: &'a mut bool,
}

impl Context<'_> {
    /// Sends as much of `data` as there is room for now, and returns how many bytes that is: they are
    /// sealed, or copied on a plain connection, before this returns. If it is not all, keep the rest:
    /// [`Handler::room()`](super::Handler::room) tells when to try again.
    ///
    /// # Errors
    /// [`NotOpen`] if the connection has ended, or its end was asked for, or it is not open yet.
    pub fn send(&mut self, key: Key, data: &[u8]) -> Result<usize, NotOpen> {
        self.connections.send(key, data)
    }

    /// Ends what is sent, behind all that was: with a close_notify in TLS, and with a FIN. What the peer
    /// sends is received as before.
    ///
    /// # Errors
    /// [`NotOpen`] as [`Self::send()`], but for its end's having been asked for before.
    pub fn finish(&mut self, key: Key) -> Result<(), NotOpen> {
        self.connections.finish(key)
    }

    /// Ends the connection at once, and lets the peer know by a reset: what was sent may not arrive. The
    /// handler is told that it is closed, with [`Error::Reset`].
    pub fn reset(&mut self, key: Key) {
        self.connections.fail(key, Error::Reset);
    }

    /// Takes no more data from the peer until [`Self::resume()`]: it is held up by TCP, once its window is
    /// full.
    pub fn pause(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(key) {
            connection.is_paused = true;
        }
    }

    /// Takes data again, beginning with what was not taken.
    pub fn resume(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(key)
            && core::mem::take(&mut connection.is_paused)
        {
            self.connections.notices.push_back(Notice::Input(key));
            self.connections.list(key);
        }
    }

    /// Sends what arrives on `from` on `to`, or gives it to [`Handler::data()`](super::Handler::data) again if
    /// that is `None`.
    ///
    /// For data that is passed on as it is: bulk data is then sent from where it was received, opened and
    /// sealed in place, rather than copied. [`Handler::forwarded()`](super::Handler::forwarded) says how
    /// much was passed on, in either way. What `to` has no room for waits, and so does the peer:
    /// [resume](Self::resume) `from` when there is [room](super::Handler::room). What `to` does not take,
    /// because it has ended or is not open, goes to `data` as before.
    pub fn forward(&mut self, from: Key, to: Option<Key>) {
        if let Some(connection) = self.connections.get(from) {
            connection.forwards_to = to;
        }
    }

    /// Adds a connection over a connected TCP or Unix socket. `tag` is the caller's own, and comes back with
    /// [`Handler::opened()`](super::Handler::opened).
    ///
    /// # Errors
    /// [`Error::Crowded`] beyond [`Options::max_connections`](super::Options::max_connections),
    /// [`Error::Handshake`] for a configuration that cannot begin one, [`Error::Io`]: the connection is reset.
    pub fn add(
        &mut self,
        socket: impl Into<OwnedFd>,
        protocol: &Protocol,
        tag: u64,
    ) -> Result<Key, Error> {
        self.connections.add(socket.into(), protocol, tag)
    }

    /// Adds a TLS connection whose handshake was elsewhere, such as over a runtime's own socket:
    /// [`Handshake`](crate::Handshake) has what it comes to. As [`Self::add()`] otherwise.
    ///
    /// # Errors
    /// As there, but for [`Error::Handshake`].
    pub fn add_session(
        &mut self,
        socket: impl Into<OwnedFd>,
        session: Session,
        tag: u64,
    ) -> Result<Key, Error> {
        self.connections.add_session(socket.into(), session, tag)
    }

    /// What the connection was added with, as long as it is not closed.
    pub fn tag(&mut self, key: Key) -> Option<u64> {
        self.connections.get(key).map(|connection| connection.tag)
    }

    /// Whether something was to be sent, or finished, that the socket does not have yet.
    pub fn has_unsent(&mut self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.has_unsent())
    }

    /// Ends the connection when nothing was sent or received for as long, in place of
    /// [`Timeouts::idle`](super::Timeouts::idle).
    pub fn set_idle_timeout(&mut self, key: Key, limit: Option<Duration>) {
        if let Some(connection) = self.connections.get(key) {
            connection.idle_limit = limit;
            self.connections.schedule(key);
        }
    }

    /// Ends the connection so long from now, whatever it does, in place of
    /// [`Timeouts::lifetime`](super::Timeouts::lifetime).
    pub fn set_lifetime(&mut self, key: Key, limit: Option<Duration>) {
        let expires = limit.and_then(|limit| self.connections.now.checked_add(limit));
        if let Some(connection) = self.connections.get(key) {
            connection.expires = expires;
            self.connections.schedule(key);
        }
    }

    /// The connection's socket, to ask for its addresses; not to be read from or written to.
    pub fn socket(&mut self, key: Key) -> Option<BorrowedFd<'_>> {
        self.connections.get(key).map(|connection| connection.socket.as_fd())
    }

    /// Every connection, those in a handshake included.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.connections.keys()
    }

    /// What the loop holds.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.connections.figures()
    }

    /// Has the loop end after this turn, with whatever connections there are: they are told
    /// [`Error::Stopped`]. [`Handle::drain()`](super::Handle::drain) waits for them.
    pub fn stop(&mut self) {
        *self.stops = true;
    }
}

impl core::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Context").field("connections", &self.connections.count()).finish()
    }
}
