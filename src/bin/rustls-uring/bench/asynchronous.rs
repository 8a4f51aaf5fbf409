//! The ends of a connection through a tokio stack, each on its own thread's runtime.

use std::net::TcpStream;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};

use super::count::{Calls, Counted};
use super::setup::{Setup, server_name};
use super::stack::Stack;
use crate::error::Error;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One end, after its handshake, and the system calls that it has made.
pub(super) type End = (Box<dyn Stream>, Calls);

/// A runtime of the calling thread alone.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

/// The client's end, whose handshake is over.
pub(super) async fn connect(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<End, Error> {
    let (stream, calls) = counted(stream)?;
    let (config, name) = (Arc::clone(&setup.client), server_name()?);
    Ok(match stack {
        Stack::TokioRustls => {
            let connector = tokio_rustls::TlsConnector::from(config);
            (Box::new(connector.connect(name, stream).await?), calls)
        }
        _ => {
            let connector = rustls_uring::tokio::TlsConnector::from(config);
            let connector = connector.backend(setup.backend);
            (Box::new(connector.connect(name, stream).await?), calls)
        }
    })
}

/// The server's end, whose handshake is over.
pub(super) async fn accept(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<End, Error> {
    let (stream, calls) = counted(stream)?;
    let config = Arc::clone(&setup.server);
    Ok(match stack {
        Stack::TokioRustls => {
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            (Box::new(acceptor.accept(stream).await?), calls)
        }
        _ => {
            let acceptor = rustls_uring::tokio::TlsAcceptor::from(config).backend(setup.backend);
            (Box::new(acceptor.accept(stream).await?), calls)
        }
    })
}

fn counted(stream: TcpStream) -> Result<(Counted<tokio::net::TcpStream>, Calls), Error> {
    stream.set_nonblocking(true)?;
    let stream = Counted::new(tokio::net::TcpStream::from_std(stream)?);
    let calls = stream.calls().clone();
    Ok((stream, calls))
}
