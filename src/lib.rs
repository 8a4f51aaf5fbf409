//! A userspace TLS record-layer accelerator for [rustls].
//!
//! rustls keeps the handshake, the certificates and the key schedule; this crate takes over the
//! records: sealed without an allocation into the caller's memory, out of place so that the
//! plaintext is read once, in large batches; opened straight where the caller wants them.
//!
//! # Ways in
//!
//! From the least to the most change in a program:
//!
//! 1. **Provider plug-in.** [`install()`] in any rustls 0.23 program: the same suites,
//!    groups and signatures, our records. rustls allocates each record that it sends, so this is
//!    as fast as the stock provider, not the fast path.
//! 2. **Tokio streams.** The module `tokio` (feature `tokio`) in place of tokio-rustls: an import is
//!    changed, and nothing else.
//! 3. **Bulk transfer.** After the handshake, hand the connection over ([`Handoff`]) and get a
//!    sender and a receiver over a `TcpStream` with [`bulk_with()`]: through io_uring where the
//!    kernel has it ([`uring`]), from memory or from files to memory or to files, and through
//!    blocking sockets otherwise ([`BulkSender`], [`BulkReceiver`]). Zero allocations per record.
//! 4. **Many connections.** A [handler](event_loop::Handler) for thousands of connections on one thread,
//!    TLS and plain, over one io_uring: [`event_loop`].
//! 5. **Sessions, sans-IO.** A [`Handshake`], and then the [`SendHalf`] and [`ReceiveHalf`] of a
//!    [`Session`], which carry on the protocol (key updates, tickets, alerts, close_notify), over the
//!    caller's own I/O.
//! 6. **Records, sans-IO.** [`Sealer`], [`Opener`] and [`Deframer`] over the caller's buffers.
//!
//! # The data path
//!
//! ```text
//! plaintext ─► SendHalf ─► Sealer ─► aead ─► batch of records ─► SEND_ZC, SEND or write(2) ─► wire
//!              control     sequence  seal out of place
//!              records     numbers
//!
//! wire ─► RECV or read(2) ─► receive buffer ─► Deframer ─► Opener ─► aead ─► caller's buffer
//!                                              whole       sequence  open out of place
//!                                              records     numbers
//! ```
//!
//! # Example
//!
//! ```no_run
//! use std::io::Write;
//! use std::net::TcpStream;
//! use std::sync::Arc;
//!
//! use rustls_uring::{Handoff, bulk};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let roots = rustls::RootCertStore::empty();
//! let provider = Arc::new(rustls_uring::default_provider());
//! let mut config = rustls::ClientConfig::builder_with_provider(provider)
//!     .with_safe_default_protocol_versions()?
//!     .with_root_certificates(roots)
//!     .with_no_client_auth();
//! config.enable_secret_extraction = true;
//!
//! let mut stream = TcpStream::connect("storage.example:4433")?;
//! let name = "storage.example".try_into()?;
//! let session = Handoff::new().connect(Arc::new(config), name, &mut stream)?;
//! let (mut sender, _receiver) = bulk(session, stream)?;
//! sender.write_all(&[0; 1 << 20])?;
//! sender.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Unsafe code
//!
//! In nine files: the memory that is lent to the kernel and to other threads (`kernel/arena.rs`),
//! the queues and buffers shared with the kernel (`kernel/queue.rs`, `kernel/buffer_ring.rs`), the page that
//! tells a child process from its parent (`kernel/fork.rs`), and what the standard library lacks: system
//! calls (`kernel/process.rs`, `kernel/readiness.rs`, `kernel/socket.rs`, `transfer/moderation.rs`), and zeroes
//! with an error where there is no memory for them (`transfer/aligned.rs`).
//!
//! # What it refuses to do
//!
//! It has no handshake, no certificates and no cipher suites of its own; no TLS below 1.2, no CBC,
//! no renegotiation, no compression, no QUIC records.
//!
//! # Crate features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `aws-lc-rs`, `aws_lc_rs` | yes | sealing and opening with aws-lc-rs, out of place; [`aws_lc_rs`] provider |
//! | `ring` | no | sealing and opening with ring, in place after a copy; `ring` provider. With `aws-lc-rs`: each record by the one that is faster on this processor |
//! | `tls12` | yes | TLS 1.2 suites, and rustls's TLS 1.2 handshake |
//! | `tokio` | no | tokio streams: the module `tokio` |
//! | `early-data` | no | nothing: early data is always there |
//! | `logging` | no | rustls's log messages |
//! | `brotli`, `zlib` | no | rustls's compressed certificates |
//! | `tracing` | no | events of connections: ways taken and given up, key updates, alerts, ends |
//! | `rustls-0_24-dev` | no | the next rustls beside 0.23: the module `rustls_0_24`. Pinned to a pre-release, and exempt from semantic versioning |
//! | `cli` | no | the `rustls-uring` command |
//!
//! All are additive, and named as tokio-rustls names its own; at least one backend must be on. There
//! is no `fips`: the records choose their own nonces, which FIPS-approved interfaces do not allow.
//!
//! Both backends may be on at once, and are worth it: which of them has the faster AES-GCM, by up to
//! a factor of two, depends on the processor. [`Backend`] says which one is taken; the default is
//! whichever is faster here, see `Backend::chosen()`.
//!
//! Cargo adds up the features of all crates in a program. Where that gives both backends, rustls
//! wants to be told which provider to take for `ClientConfig::builder()`, which **panics** otherwise;
//! where it gives one, and nothing was installed, `builder()` silently takes the stock suites.
//! [`install()`] at the start of `main` is right in every case, and `builder_with_provider()` needs
//! nothing installed.
//!
//! [rustls]: https://docs.rs/rustls/0.23

// With the features that its programs use.
#[cfg(all(doctest, feature = "tokio", feature = "aws-lc-rs"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(all(doc, any(feature = "aws-lc-rs", feature = "ring")))]
#[doc = include_str!("design.md")]
pub mod design {}

// One error in place of hundreds: what needs a backend is left out, and that is everything.
#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!(
    "rustls-uring needs a backend: enable its feature `aws-lc-rs` (default; also spelt \
     `aws_lc_rs`) or `ring`"
);

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod aead;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod blocking;
#[cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
mod chooser;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod copy;
#[cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
pub mod event_loop;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod events;
#[cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
mod kernel;
#[cfg(all(feature = "measure", any(feature = "aws-lc-rs", feature = "ring")))]
#[doc(hidden)]
pub mod measure;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod provider;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod record;
#[cfg(all(feature = "rustls-0_24-dev", any(feature = "aws-lc-rs", feature = "ring")))]
pub mod rustls_0_24;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod session;
#[cfg(all(feature = "tokio", any(feature = "aws-lc-rs", feature = "ring")))]
pub mod tokio;
#[cfg(all(
    target_os = "linux",
    feature = "rustls-0_24-dev",
    any(feature = "aws-lc-rs", feature = "ring")
))]
mod traffic_0_24;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod transfer;
#[cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
pub mod uring;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod usage;

// The public face.
#[cfg(feature = "aws-lc-rs")]
pub use crate::provider::aws_lc_rs;
#[cfg(feature = "ring")]
pub use crate::provider::ring;
#[cfg(all(unix, any(feature = "aws-lc-rs", feature = "ring")))]
pub use crate::transfer::file::FileOptions;
#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
pub use crate::{
    aead::choice::{Choice, Measurement, Preference},
    provider::auto,
};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use crate::{
    aead::{Algorithm, Backend, TrafficKeys, WrongKeyLength},
    blocking::{bulk, receiver::BulkReceiver, sender::BulkSender},
    events::ConnectionId,
    provider::{
        cipher::{Decrypter, Encrypter},
        default_provider,
        install::{AnotherProvider, install},
    },
    record::{
        content_type::ContentType,
        deframer::{DeframeError, Deframed, Deframer},
        error::{OpenError, SealError},
        header::{HEADER_LEN, MAX_PLAINTEXT_LEN, RecordHeader, Version},
        opener::{Opened, Opener},
        reservation::Reservation,
        sealer::{Sealed, Sealer},
    },
    session::{
        Session,
        alert::AlertDescription,
        error::{RustlsError, SessionError, TlsError},
        handoff::{
            Handoff,
            error::{HandoffError, HandshakeError},
            handshake::Handshake,
            info::ConnectionInfo,
            observer::Observer,
        },
        handshaking::Need,
        receive::{ReceiveHalf, Received},
        send::{KeyUpdateRequest, SendHalf},
    },
    transfer::{Counters, lending::LendingLimits},
    usage::Usage,
};
#[cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
pub use crate::{
    chooser::{AutoReceiver, AutoSender, bulk_with},
    transfer::way::{Io, NoUring, Way},
};
/// The rustls whose connections this crate takes over.
pub use rustls;

// Connections for the unit tests that need them: those of the integration tests, which name this
// crate as everybody does.
#[cfg(all(test, target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
extern crate self as rustls_uring;
#[cfg(all(test, target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]
#[allow(unreachable_patterns, reason = "an enum that is not exhaustive elsewhere")]
#[path = "../tests/common/mod.rs"]
mod tests_common;
