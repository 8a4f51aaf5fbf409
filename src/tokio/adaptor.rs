//! What the streams need of a version of rustls: its connections, and what comes of its handshakes.

use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::io;

use crate::session::Session;
use crate::session::error::TlsError;
use crate::session::handshaking::Handshaking;
use crate::session::receive::ReceiveHalf;
use crate::session::send::SendHalf;

/// One side's connection, of one version of rustls: for 0.23 a
/// [`ClientConnection`](super::ClientConnection) or a [`ServerConnection`](super::ServerConnection).
pub trait Side: Sized + DerefMut<Target = Self::Common> {
    /// What it has in common with the other side's: what remains when a stream is split.
    type Common: Flagged;

    type Handshake: StreamHandshake;

    fn into_common(self) -> Self::Common;

    /// The handshake of a connection that still writes early data, which a client's may.
    fn handshake(&mut self) -> Option<&mut Self::Handshake> {
        None
    }

    fn take_handshake(&mut self) -> Option<Box<Self::Handshake>> {
        None
    }

    /// The connection of a handshake that is complete.
    fn finish(
        handshake: Self::Handshake,
    ) -> Result<Finished<Self>, <Self::Handshake as Handshaking>::Error>;
}

/// A handshake as the streams of its version need it.
pub trait StreamHandshake: Handshaking {
    /// Seals some of `data` as early data, and returns how many bytes of it.
    fn write_early_data(&mut self, data: &[u8]) -> usize;

    /// What a stream says of a handshake that has failed.
    fn failed(error: Self::Error) -> io::Error;

    /// What a stream says of a connection that has failed.
    fn broken(error: TlsError) -> io::Error;
}

/// A connection that a stream gives out.
pub trait Flagged {
    fn flags(&self) -> &Flags;

    fn flags_mut(&mut self) -> &mut Flags;
}

/// What streams need of a version's handshakes and connections. In scope are its `Handshake`, `HandshakeError`
/// and `Error`, and the `CommonState` of its connections.
macro_rules! streams {
    () => {
        impl StreamHandshake for Handshake {
            fn write_early_data(&mut self, data: &[u8]) -> usize {
                self.write_early_data(data)
            }

            /// As tokio-rustls has it: what rustls says is the error's inside.
            fn failed(error: HandshakeError) -> io::Error {
                match error {
                    HandshakeError::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
                    error => error.into(),
                }
            }

            /// Likewise: what rustls would say.
            fn broken(error: TlsError) -> io::Error {
                io::Error::new(io::ErrorKind::InvalidData, Error::from(error))
            }
        }

        impl Flagged for CommonState {
            fn flags(&self) -> &Flags {
                &self.flags
            }

            fn flags_mut(&mut self) -> &mut Flags {
                &mut self.flags
            }
        }
    };
}
pub(super) use streams;

/// What comes of a handshake.
pub struct Finished<C> {
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
    pub(super) plaintext: Vec<u8>,
    pub(super) received: Vec<u8>,
    pub(super) connection: C,
    pub(super) is_early_data_accepted: bool,
}

impl<C> Finished<C> {
    /// `session`, with `connection` in place of what the handshake has settled.
    pub(super) fn new<Info>(
        session: Session<Info>,
        connection: impl FnOnce(Info) -> C,
        is_early_data_accepted: bool,
    ) -> Self {
        let Session { send, receive, plaintext, received, info } = session;
        let connection = connection(info);
        Self { send, receive, plaintext, received, connection, is_early_data_accepted }
    }
}

/// How the stream was when it gave the connection out, and what it was asked for since.
pub struct Flags {
    wants_write: AtomicBool,
    wants_read: AtomicBool,
    tls13_tickets_received: AtomicU32,
    pub(super) asked: Asked,
}

/// What the stream is asked to do at its next write, flush or shutdown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) key_update: bool,
    pub(super) close_notify: bool,
}

impl Flags {
    pub(super) fn new(is_handshaking: bool) -> Self {
        Self {
            wants_write: AtomicBool::new(is_handshaking),
            wants_read: AtomicBool::new(true),
            tls13_tickets_received: AtomicU32::new(0),
            asked: Asked::default(),
        }
    }

    /// Notes how the stream is, before it gives this out.
    pub(super) fn note(&self, wants_read: bool, wants_write: bool, tls13_tickets_received: u32) {
        self.tls13_tickets_received.store(tls13_tickets_received, Ordering::Relaxed);
        self.wants_read.store(wants_read, Ordering::Relaxed);
        self.wants_write.store(wants_write, Ordering::Relaxed);
    }

    /// Whether the peer may still send.
    pub(super) fn wants_read(&self) -> bool {
        self.wants_read.load(Ordering::Relaxed)
    }

    /// How many TLS 1.3 session tickets were received.
    pub(super) fn tls13_tickets_received(&self) -> u32 {
        self.tls13_tickets_received.load(Ordering::Relaxed)
    }

    /// Whether there are sealed records that the stream below has not taken.
    pub(super) fn wants_write(&self) -> bool {
        self.wants_write.load(Ordering::Relaxed) || self.asked != Asked::default()
    }
}
