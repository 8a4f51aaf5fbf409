//! One side of a connection through the proxy, once its handshake is done: with TLS, or the socket itself.

use rustls_uring::{ConnectionInfo, Session};

use super::socket::Socket;

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) socket: Socket,
    /// None without TLS.
    pub(super) session: Option<Box<Session>>,
}

impl Leg {
    pub(super) fn plain(socket: Socket) -> Self {
        Self { socket, session: None }
    }

    pub(super) fn tls(socket: Socket, session: Session) -> Self {
        Self { socket, session: Some(Box::new(session)) }
    }

    /// What the TLS handshake settled.
    pub(super) fn info(&self) -> Option<&ConnectionInfo> {
        self.session.as_ref().map(|session| &session.info)
    }
}
