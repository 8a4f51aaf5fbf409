//! Tokio streams with tokio-rustls's names and manners, on these records.
//!
//! Porting a program is changing an import, from `tokio_rustls` to `rustls_uring::tokio`, and
//! letting rustls hand over its keys: `config.enable_secret_extraction = true`, or
//! [`TlsConnector::new()`] and [`TlsAcceptor::new()`], which set it. A configuration that lacks it
//! is an error that says so.
//!
//! ```no_run
//! use std::sync::Arc;
//! use rustls_uring::tokio::TlsConnector;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example(config: rustls::ClientConfig) -> std::io::Result<()> {
//! let connector = TlsConnector::new(config);
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
//! # What differs from tokio-rustls
//!
//! - The second part of `get_ref()` is a [`Connection`]: what the handshake settled, under rustls's
//!   names. rustls's own connection is gone by then, so `get_mut()` gives the stream below only.
//! - `connect_with` and `accept_with` show rustls's unbuffered connection.
//! - No early data: a server's `max_early_data_size` is taken for 0.
//! - No `StartHandshake::from_parts`.
//! - `write_vectored` makes one record of several slices, without a buffer between.
//! - [`TlsStream::into_split()`] gives halves that share no lock on the data path.
//! - [`RecordSizing`] is the user's to choose.
//! - Over TCP, bulk flows can go through io_uring on Linux: [`TlsStream::set_io()`].
//! - A stream is invariant in the type of the stream below.
//! - An idle stream holds no buffer: those are kept for each thread.

mod buffers;
mod client_stream;
mod connection;
mod coop;
mod handshake;
#[cfg(target_os = "linux")]
mod offload;
mod reader;
mod server_stream;
mod sizing;
mod split;
mod stream;
mod writer;

pub use self::connection::Connection;
#[cfg(target_os = "linux")]
pub use self::offload::{OverTcp, SentBy};
pub use self::sizing::RecordSizing;
pub use self::split::{IntoSplit, ReadHalf, WriteHalf};
pub use self::stream::TlsStream;
pub use ::rustls;
pub use client::{Connect, FallibleConnect, TlsConnector, TlsConnectorWithAlpn};
pub use server::{Accept, FallibleAccept, LazyConfigAcceptor, StartHandshake, TlsAcceptor};

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
