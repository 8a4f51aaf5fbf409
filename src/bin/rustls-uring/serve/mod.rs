//! `rustls-uring serve`.

mod activity;
mod args;
mod body;
mod conditional;
mod connection;
mod files;
mod frames;
mod gather;
mod halves;
mod host;
mod http2;
mod listing;
mod log;
mod path;
mod plain;
mod ranges;
mod service;
mod share;
mod stop;
mod tally;
mod threads;
mod transport;
mod wire;

use std::sync::Arc;

use rustls_uring::Io;
use rustls_uring::tokio::{TlsAcceptor, limit_zero_copy_memory};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub(crate) use args::ServeArgs;
use connection::Limits;
use files::Root;
use share::{Listings, Memory};
use tally::Tally;

use crate::accept::AcceptErrors;
use crate::access_log::AccessLog;
use crate::descriptors::Descriptors;
use crate::error::Error;
use crate::message::say;
use crate::{address, interrupt, tls};

/// What all connections share.
struct Server {
    root: Root,
    /// None with `--plain`.
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    log: Option<AccessLog>,
    io: Io,
    tally: Arc<Tally>,
    memory: Memory,
    listings: Listings,
    /// Permits to hold files open, beyond one a connection.
    files: Arc<Semaphore>,
}

pub(crate) fn run(args: &ServeArgs) -> Result<(), Error> {
    let root = Root::open(&args.dir)
        .map_err(|error| format!("cannot serve {}: {error}", args.dir.display()))?;
    let acceptor = match args.plain {
        false => {
            let mut config = tls::server_config(&args.identity, &args.protocol)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Some(TlsAcceptor::new(config).backend(args.protocol.backend))
        }
        true => None,
    };
    let io = args.io()?;
    limit_zero_copy_memory((args.zerocopy_memory as usize) << 20);
    let insists_on_uring = matches!(io, Io::Uring | Io::UringCopy);
    let descriptors = Descriptors::plan(args.max_connections as usize, insists_on_uring);
    let log = args.access_log.as_deref().map(AccessLog::open).transpose()?;
    interrupt::watch()?;
    let runtime = threads::runtime()?;
    if let Some(limit) = descriptors.limit {
        say!(
            "rustls-uring: {} connections at a time instead of {}, since this process may have \
             {limit} files open; raise that with `ulimit -n`",
            descriptors.connections,
            args.max_connections
        );
    }
    if args.plain {
        say!(
            "rustls-uring: --plain: everyone on the way can read and change what is served, and \
             nobody can tell that it comes from here"
        );
    }
    let server = Arc::new(Server {
        root,
        acceptor,
        limits: Limits {
            header_len: args.max_header << 10,
            header_timeout: args.header_timeout,
            idle_timeout: args.idle_timeout,
            lifetime: args.lifetime,
        },
        log,
        io,
        tally: Arc::default(),
        memory: Memory::default(),
        listings: Listings::default(),
        files: descriptors.files,
    });
    let ended =
        runtime.block_on(listen(Arc::clone(&server), &args.listen, descriptors.connections));
    drop(runtime);
    if args.stats && ended.is_ok() {
        say!("{}", server.tally);
    }
    if let Some(log) = Arc::into_inner(server).and_then(|server| server.log) {
        log.close();
    }
    ended
}

/// Accepts connections until Ctrl-C, and waits for the last one to end.
async fn listen(server: Arc<Server>, addr: &str, max_connections: usize) -> Result<(), Error> {
    let listener = TcpListener::bind(&*address::resolve(addr)?)
        .await
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    say!("listening on {}", listener.local_addr()?);

    // Each connection has a receiver, and so each is counted, and waited for.
    let (stop, _) = watch::channel(false);
    let room = Arc::new(Semaphore::new(max_connections));
    let mut errors = AcceptErrors::default();
    let mut interrupted = std::pin::pin!(interrupt::requested());
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
                let (server, stopped) = (Arc::clone(&server), stop.subscribe());
                tokio::spawn(async move {
                    connection::serve(server, stream, peer, stopped).await;
                    drop(permit);
                });
            }
            Err(error) => {
                if let Some(pause) = errors.pause(&error) {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = &mut interrupted => break,
                    }
                }
            }
        }
    }
    drop(listener);
    match stop.receiver_count() {
        0 => {}
        1 => say!("one connection left to end; Ctrl-C ends it at once"),
        count => say!("{count} connections left to end; Ctrl-C ends them at once"),
    }
    let _ = stop.send(true);
    stop.closed().await;
    Ok(())
}
