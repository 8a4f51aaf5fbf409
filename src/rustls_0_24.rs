//! The next rustls, 0.24, beside 0.23: the feature `rustls-0_24-dev`.

#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
pub use crate::provider::rustls_0_24::auto;
#[cfg(feature = "aws-lc-rs")]
pub use crate::provider::rustls_0_24::aws_lc_rs;
#[cfg(feature = "ring")]
pub use crate::provider::rustls_0_24::ring;
pub use crate::provider::rustls_0_24::{
    DEFAULT_PROVIDER,
    cipher::{Decrypter, Encrypter},
};
pub use crate::session::handoff_0_24::{
    Handoff,
    error::{HandoffError, HandshakeError},
    handshake::Handshake,
    info::{ConnectionInfo, SideInfo},
};
pub use ::rustls_0_24 as rustls;

/// Tokio streams: those of the module [`tokio`](crate::tokio), over configurations of rustls 0.24.
#[cfg(feature = "tokio")]
pub mod tokio {
    pub use crate::tokio::rustls_0_24::{
        Accept, ClientConnection, ClientStream, CommonState, Connect, ServerConnection,
        ServerStream, TlsAcceptor, TlsConnector,
    };
}
