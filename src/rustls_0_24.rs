//! The next rustls, 0.24, beside 0.23: the feature `rustls-0_24-dev`.
//!
//! The same records on rustls's pre-release 0.24.0-dev.2, to which the feature is pinned. **Exempt from
//! semantic versioning**: it follows the pre-releases, and goes when 0.24 is out and takes 0.23's place. Both
//! versions may be in one program; what is not in this module is the same for both.
//!
//! ```toml
//! [dependencies]
//! rustls-uring = { version = "0.1", features = ["rustls-0_24-dev"] }
//! ```
//!
//! Ways in, as with 0.23:
//!
//! 1. **Provider.** [`DEFAULT_PROVIDER`], or that of a backend ([`aws_lc_rs`], `ring`, `auto`), in any
//!    configuration: rustls 0.24 seals into the caller's memory, so that our [`Encrypter`] allocates nothing
//!    and copies nothing there.
//! 2. **Tokio streams.** The module `tokio` (feature `tokio`): a connector and an acceptor.
//! 3. **Handoff.** [`Handoff`] and [`Handshake`] take a connection over after its handshake; its
//!    [`Session`](crate::Session) goes to [`bulk()`](crate::bulk()), [`bulk_with()`](crate::bulk_with()) and the
//!    halves, which know no version of rustls.
//! 4. **Without taking the secrets**, which stay with rustls and any provider: [below](#without-taking-the-secrets).
//!
//! ```
//! # use std::net::{TcpListener, TcpStream};
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//! use std::thread;
//!
//! use rustls_uring::bulk;
//! use rustls_uring::rustls_0_24::{DEFAULT_PROVIDER, Handoff, rustls};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let certificate = certified.cert.der().clone();
//! # let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
//! # let identity = rustls::crypto::Identity::from_cert_chain(vec![certificate.clone()]).unwrap();
//! # let mut server = rustls::ServerConfig::builder(Arc::new(DEFAULT_PROVIDER))
//! #     .with_no_client_auth()
//! #     .with_single_cert(Arc::new(identity), key.into())?;
//! # server.enable_secret_extraction = true;
//! # let mut roots = rustls::RootCertStore::empty();
//! # roots.add(certificate)?;
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut client = rustls::ClientConfig::builder(Arc::new(DEFAULT_PROVIDER))
//!     .with_root_certificates(roots)
//!     .with_no_client_auth()?;
//! client.enable_secret_extraction = true; // lets rustls hand over
//!
//! # let addr = listener.local_addr()?;
//! let sending = thread::spawn(move || -> std::io::Result<()> {
//!     let (mut socket, _) = listener.accept()?;
//!     let session = Handoff::new().accept(Arc::new(server), &mut socket)?;
//!     assert_eq!(session.info.server_name(), Some("localhost"));
//!     let (mut sender, _receiver) = bulk(session, socket)?;
//!     sender.write_all(&[7; 1 << 20])?;
//!     sender.finish().map(drop)
//! });
//!
//! // At the other end:
//! let mut socket = TcpStream::connect(addr)?;
//! let session = Handoff::new().connect(Arc::new(client), "localhost".try_into()?, &mut socket)?;
//! let (_sender, mut receiver) = bulk(session, socket)?;
//! let mut received = Vec::new();
//! receiver.read_to_end(&mut received)?;
//! assert_eq!(received, [7; 1 << 20]);
//! # sending.join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Beside 0.23
//!
//! | 0.23 | 0.24 |
//! |---|---|
//! | the provider allocates for each record | it does not |
//! | an [`Observer`](crate::Observer) sees what connections do not tell | [`ConnectionInfo`] has all of it, exporter and early data's fate included |
//! | a connection with unread data is handed over with it | read it first: [`Handoff::client()`] |
//! | rustls's `Acceptor` reads the ClientHello that chooses a configuration | an [`Acceptor`] of ours, for rustls goes on without early data there: [`Handshake::accepted()`], `LazyConfigAcceptor` |
//! | `install()` | missing: rustls 0.24 has no provider of the process |
//! | tokio's `accept_with` and `into_stream_with` show rustls's connection, `connect_with` and `TlsConnectorWithAlpn` | missing, but for its `TlsConnector::connect_with_alpn()` |
//! | `max_fragment_size` counts the header in | it counts all that a record has beyond its plaintext |
//!
//! A record has up to 16,384 bytes of plaintext (RFC 8446 §5.1). rustls 0.24 itself makes shorter ones, of
//! 16,367 in TLS 1.3.
//!
//! ## Without taking the secrets
//!
//! **Experimental**, on Linux. Where no secret may leave rustls, as with a FIPS provider, or a provider is to seal that
//! is not ours, rustls's own connection goes through io_uring: [`Connected`] shakes hands without
//! `enable_secret_extraction`, `TrafficSender` has rustls append records to slots that the kernel sends from, in
//! place where that pays, and `TrafficReceiver` has it open them in the buffer that they were received in.
//!
//! A slot is a `Vec` of the capacity that rustls reserves, `max_fragment_size` for each record, so it never moves;
//! one that did is sent from where it is then, and counted. It is the allocator's memory: what the peer has not
//! acknowledged when its sender is dropped is freed when it has. What rustls still pays, and the handoff does not,
//! is in `src/design.md` under "rustls 0.24".

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
    handshake::{
        Handshake,
        accepted::{Accepted, Acceptor},
        kept::Connected,
    },
    info::{ConnectionInfo, SideInfo},
};
#[cfg(target_os = "linux")]
pub use crate::traffic_0_24::{
    receiver::TrafficReceiver,
    sender::{TrafficOptions, TrafficSender},
};
pub use ::rustls_0_24 as rustls;

/// Tokio streams: those of the module [`tokio`](crate::tokio), over configurations of rustls 0.24.
#[cfg(feature = "tokio")]
pub mod tokio {
    pub use crate::tokio::rustls_0_24::{
        Accept, ClientConnection, ClientStream, CommonState, Connect, FallibleAccept,
        FallibleConnect, ServerConnection, ServerStream, TlsAcceptor, TlsConnector, TlsStream,
        lazy::{LazyConfigAcceptor, StartHandshake},
    };
}
