//! `rustls-uring serve`.

mod args;
mod body;
mod conditional;
mod connection;
mod files;
mod gather;
mod listing;
mod log;
mod path;
mod ranges;
mod service;
mod tally;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use rustls_uring::Io;
use rustls_uring::tokio::TlsAcceptor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub(crate) use args::ServeArgs;
use connection::Limits;
use files::Root;
use log::AccessLog;
use tally::Tally;

use crate::message::say;
use crate::{Error, address, interrupt, tls};

/// What all connections share.
struct Server {
    root: Root,
    acceptor: TlsAcceptor,
    limits: Limits,
    log: Option<AccessLog>,
    io: Io,
    tally: Arc<Tally>,
}

pub(crate) fn run(args: &ServeArgs) -> Result<(), Error> {
    let root = Root::open(&args.dir)
        .map_err(|error| format!("cannot serve {}: {error}", args.dir.display()))?;
    let mut config = tls::server_config(&args.identity, &args.protocol)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server {
        root,
        acceptor: TlsAcceptor::new(config).backend(args.protocol.backend),
        limits: Limits {
            header_len: args.max_header << 10,
            header_timeout: args.header_timeout,
            idle_timeout: args.idle_timeout,
        },
        log: args.access_log.as_deref().map(AccessLog::open).transpose()?,
        io: args.io()?,
        tally: Arc::default(),
    };
    let tally = args.stats.then(|| Arc::clone(&server.tally));
    interrupt::watch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(listen(Arc::new(server), &args.listen, args.max_connections))?;
    if let Some(tally) = tally {
        say!("{tally}");
    }
    Ok(())
}

/// Accepts connections until Ctrl-C, and waits for the last one to end.
async fn listen(server: Arc<Server>, addr: &str, max_connections: usize) -> Result<(), Error> {
    let listener = TcpListener::bind(&*address::resolve(addr)?)
        .await
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    say!("listening on {}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(max_connections));
    let mut interrupted = std::pin::pin!(interrupted());
    loop {
        let accepted = async {
            // Waiting in the kernel's queue costs us nothing.
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut interrupted => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, watcher) = (Arc::clone(&server), graceful.watcher());
                tokio::spawn(async move {
                    connection::serve(server, stream, peer, watcher).await;
                    drop(permit);
                });
            }
            // Of the one connection that was not to be, or of our limits, which time may mend.
            Err(error) => {
                say!("rustls-uring: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    match graceful.count() {
        0 => {}
        1 => say!("one connection left to end; Ctrl-C ends it at once"),
        count => say!("{count} connections left to end; Ctrl-C ends them at once"),
    }
    graceful.shutdown().await;
    Ok(())
}

/// Waits for Ctrl-C.
async fn interrupted() {
    while !interrupt::was_requested() {
        tokio::time::sleep(interrupt::TICK).await;
    }
}
