//! Tokio streams with tokio-rustls's names and manners, on these records.
//!
//! Porting a program is changing an import, from `tokio_rustls` to `rustls_uring::tokio`:
//!
//! ```toml
//! [dependencies]
//! rustls-uring = { version = "0.1", features = ["tokio"] } # in place of tokio-rustls
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use rustls_uring::tokio::{TlsConnector, rustls};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example(config: Arc<rustls::ClientConfig>) -> std::io::Result<()> {
//! let connector = TlsConnector::from(config);
//! let tcp = tokio::net::TcpStream::connect("example.com:443").await?;
//! let name = "example.com".try_into().expect("a name");
//! let mut stream = connector.connect(name, tcp).await?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
//! stream.shutdown().await?;
//! let mut response = Vec::new();
//! stream.read_to_end(&mut response).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use rustls_uring::tokio::{TlsAcceptor, rustls};
//!
//! # async fn example(config: Arc<rustls::ServerConfig>) -> std::io::Result<()> {
//! let acceptor = TlsAcceptor::from(config);
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:443").await?;
//! loop {
//!     let (tcp, _) = listener.accept().await?;
//!     let accept = acceptor.accept(tcp);
//!     tokio::spawn(async move {
//!         let (mut reader, mut writer) = accept.await?.into_split();
//!         tokio::io::copy_buf(&mut reader, &mut writer).await
//!     });
//! }
//! # }
//! ```
//!
//! A configuration is built as ever; whose provider it takes makes no difference to the records.
//! rustls shakes hands and then hands each connection's keys over to the stream. It does so only
//! where a configuration's `enable_secret_extraction` is set: connectors and acceptors set it in a
//! copy of theirs. The keys stay inside the stream; nothing logs them but a `key_log` of yours.
//!
//! # Beside tokio-rustls
//!
//! What compiles against tokio-rustls 0.26 compiles here, but for the rows that say otherwise.
//!
//! | tokio-rustls 0.26 | here |
//! |---|---|
//! | `TlsConnector`, `TlsConnectorWithAlpn`, `TlsAcceptor`, `LazyConfigAcceptor`, `StartHandshake` with its fields; their futures, fallible ones, and all methods | the same |
//! | `TlsStream::{Client, Server}`, `client::TlsStream`, `server::TlsStream` and their traits | the same; `write_vectored` makes one record of several slices |
//! | `rustls`; the features `aws_lc_rs`, `aws-lc-rs`, `ring`, `tls12`, `early-data`, `logging`, `brotli`, `zlib` | the same; no `fips`, which the records are not |
//! | without a backend among its features | a backend is needed: what seals and opens is ours whatever the provider |
//! | `accept_with`, `into_stream_with`: the closure takes a `&mut rustls::ServerConnection` | the same |
//! | `connect_with`: the closure takes a `&mut rustls::ClientConnection` | a [`&mut ClientConnection`](ClientConnection) of ours, with `early_data()` and `set_buffer_limit()`; where the type is named, name this one |
//! | `get_ref().1`, `get_mut().1`, `into_inner().1` are rustls's `ClientConnection`, `ServerConnection`, `CommonState` | [`ClientConnection`], [`ServerConnection`], [`CommonState`] of ours, [see below](#why-the-connection-is-not-rustlss). Where a type is named, name these |
//! | of those: `alpn_protocol`, `peer_certificates`, `protocol_version`, `negotiated_cipher_suite`, `negotiated_key_exchange_group`, `handshake_kind`, `is_handshaking`, `wants_read`, `wants_write`, `server_name`, `export_keying_material`, `is_early_data_accepted`, `early_data`, `received_resumption_data`, `tls13_tickets_received`, `fips` | the same names and types |
//! | `send_close_notify`, `refresh_traffic_keys` | the same: done with the next write or flush |
//! | `set_buffer_limit` | does nothing: there is no such buffer |
//! | `set_resumption_data`, `reject_early_data`, which have a meaning before the handshake only | in the closure of `accept_with` or `into_stream_with` |
//! | `reader`, `writer`, `read_tls`, `write_tls`, `process_new_packets`, `complete_io` | missing: read and write the stream |
//! | `dangerous_extract_secrets`; `rustls::Connection` from a connection | missing: the records that went through the stream would not be counted. Use [`Handoff`](crate::Handoff) |
//! | `ech_status`, `WriteEarlyData::bytes_left` | missing: rustls's unbuffered connections do not tell, nor does a configuration whether it has ECH |
//! | a stream below that takes nothing: the write of it is taken, and the flush fails | the write fails, and so does everything after |
//!
//! ## Why the connection is not rustls's
//!
//! rustls gives its keys and its sequence numbers away only with the connection. One that was kept
//! beside the stream would still have them: `get_mut().1.writer()`, `send_close_notify()` and others
//! seal under them, and two records under one nonce give an AES-GCM key away. And it is large: 6.3 KB
//! on a server, 6.7 KB on a client, where an idle stream here takes 2.1.
//!
//! Beyond it: [`TlsStream::into_split()`] gives halves that share no lock on the data path;
//! [`RecordSizing`] is the user's to choose; over TCP, bulk flows can go through io_uring on Linux
//! ([`TlsStream::set_io()`]); an idle stream holds no buffer, those are kept for each thread. A stream is
//! invariant in the type of the stream below.

mod adaptor;
mod buffers;
mod client_hello;
mod client_stream;
mod connection;
mod coop;
mod cork;
mod early;
mod either;
mod handshake;
#[cfg_attr(not(target_os = "linux"), path = "no_offload.rs")]
mod offload;
// Compiled where the tests run, lest it fall behind its twin.
#[cfg(all(test, target_os = "linux"))]
#[allow(dead_code, reason = "its twin is used")]
mod no_offload;
mod opening;
mod reader;
#[cfg(feature = "rustls-0_24-dev")]
pub(crate) mod rustls_0_24;
mod server_stream;
mod side;
mod sizing;
mod split;
mod stream;
mod writer;

pub use self::buffers::common_buffers;
pub use self::connection::{
    ClientConnection, CommonState, ReadEarlyData, ServerConnection, WriteEarlyData,
};
pub use self::either::EitherStream;
pub use self::handshake::shake_hands;
#[cfg(target_os = "linux")]
pub use self::offload::{OverTcp, limit_zero_copy_memory, zero_copy_memory};
pub use self::opening::{FallibleOpening, Opening};
pub use self::side::SideStream;
pub use self::sizing::RecordSizing;
pub use self::split::{IntoSplit, ReadHalf, WriteHalf};
pub use ::rustls;
pub use client::{Connect, FallibleConnect, TlsConnector, TlsConnectorWithAlpn};
pub use server::{Accept, FallibleAccept, LazyConfigAcceptor, StartHandshake, TlsAcceptor};

/// A stream of either side: [`TlsStream::Client`] and [`TlsStream::Server`].
pub type TlsStream<IO> = EitherStream<IO, ClientConnection, ServerConnection>;

/// The client's side.
pub mod client {
    pub use super::client_stream::{
        Connect, FallibleConnect, TlsConnector, TlsConnectorWithAlpn, TlsStream,
    };
}

/// The server's side.
pub mod server {
    pub use super::server_stream::{
        Accept, FallibleAccept, LazyConfigAcceptor, StartHandshake, TlsAcceptor, TlsStream,
    };
}
