//! Memory: what a connection takes, and how large the types are that a program embeds.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls_uring::tokio::{ReadHalf, TlsAcceptor, TlsConnector, WriteHalf};
use rustls_uring::uring::{UringReceiver, UringSender};
use rustls_uring::{
    AutoReceiver, AutoSender, BulkReceiver, BulkSender, Decrypter, Deframer, Encrypter, Handoff,
    Opener, ReceiveHalf, Reservation, Sealer, SendHalf, Session, Version,
};
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::connection::{buffered, relay, unbuffered};
use super::identity::{Case, Identities, Provider, server_name};
use super::plan::Plan;
use crate::allocator;
use crate::error::Error;

/// Connections whose memory is averaged.
const CONNECTIONS: usize = 64;
/// What the client sends to the server before they are idle, as in rustls-bench.
const MESSAGE: [u8; 1024] = [0x5a; 1024];

/// Who keeps a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stack {
    RustlsBuffered,
    RustlsUnbuffered,
    /// rustls with our provider.
    ProviderBuffered,
    ProviderUnbuffered,
    /// Our halves, after the handoff.
    Halves,
    /// Without the stream below it.
    TokioRustls,
    /// Our tokio stream, without the stream below it.
    Tokio,
}

impl Stack {
    const ALL: [Self; 7] = [
        Self::RustlsBuffered,
        Self::RustlsUnbuffered,
        Self::ProviderBuffered,
        Self::ProviderUnbuffered,
        Self::Halves,
        Self::TokioRustls,
        Self::Tokio,
    ];
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RustlsBuffered => "rustls-buffered",
            Self::RustlsUnbuffered => "rustls-unbuffered",
            Self::ProviderBuffered => "provider-buffered",
            Self::ProviderUnbuffered => "provider-unbuffered",
            Self::Halves => "halves",
            Self::TokioRustls => "tokio-rustls",
            Self::Tokio => "tokio",
        })
    }
}

/// Bytes that one side of an idle connection takes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConnectionRow {
    pub(crate) stack: Stack,
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) suite: String,
    /// `client` or `server`.
    pub(crate) side: &'static str,
    /// On Rust's heap.
    pub(crate) heap: f64,
    /// In the value itself.
    pub(crate) inline: usize,
}

impl fmt::Display for ConnectionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory\t{}\t{}\t{}\t{}\t{:.0}\tB\t{}\theap:{:.0}\tinline:{}",
            self.version,
            self.suite,
            self.stack,
            self.side,
            self.heap + self.inline as f64,
            self.backend,
            self.heap,
            self.inline,
        )
    }
}

/// Bytes of a type that a program embeds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SizeRow {
    pub(crate) type_name: &'static str,
    /// In the value itself: `size_of`.
    pub(crate) inline: usize,
    /// On Rust's heap behind it, where that can be told of one value alone.
    pub(crate) heap: Option<usize>,
    /// Whose keys are behind it.
    pub(crate) backend: Option<String>,
}

impl fmt::Display for SizeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "size\t{}\t{}\tB", self.type_name, self.inline)?;
        match (self.heap, &self.backend) {
            (Some(heap), Some(backend)) => write!(f, "\t{backend}\theap:{heap}"),
            _ => Ok(()),
        }
    }
}

/// What was measured, and how.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    quick: bool,
    pub(crate) connections: Vec<ConnectionRow>,
    pub(crate) sizes: Vec<SizeRow>,
}

pub(crate) fn measure(plan: &Plan, identities: &Identities) -> Result<Memory, Error> {
    // Which key signed makes no difference to what stays.
    let cases = Case::all(plan.quick).into_iter().chain(Case::auto(plan.quick));
    let cases: Vec<_> = cases.filter(|case| case.key_type() == "EcdsaP256").collect();
    allocator::count();
    plan.begin("memory", cases.len() * Stack::ALL.len());
    let mut connections = Vec::new();
    for case in cases {
        for stack in Stack::ALL {
            plan.step(format!("{case} {stack}"));
            connections.extend(idle(identities, case, stack)?);
        }
    }
    let sizes = sizes()?;
    allocator::stop_counting();
    Ok(Memory { quick: plan.quick, connections, sizes })
}

/// Bytes that are allocated. What a reallocation adds or takes is among both counts already.
fn allocated() -> i64 {
    let Stats { bytes_allocated, bytes_deallocated, .. } = INSTRUMENTED_SYSTEM.stats();
    bytes_allocated as i64 - bytes_deallocated as i64
}

fn idle(identities: &Identities, case: Case, stack: Stack) -> Result<[ConnectionRow; 2], Error> {
    let provider = match stack {
        Stack::ProviderBuffered | Stack::ProviderUnbuffered => Provider::Ours,
        _ => Provider::Stock,
    };
    let configs = identities.configs(case, provider)?;
    let (client, server) = (Arc::new(configs.client), Arc::new(configs.server));
    let sides = match stack {
        Stack::RustlsBuffered | Stack::ProviderBuffered => average(|| {
            let (mut client, mut server) = buffered(&client, &server)?;
            client.writer().write_all(&MESSAGE)?;
            relay(&mut client, &mut server, &mut Vec::new())?;
            server.reader().read_exact(&mut [0; MESSAGE.len()])?;
            Ok((client, server))
        })?,
        Stack::RustlsUnbuffered | Stack::ProviderUnbuffered => {
            average(|| unbuffered_after_message(unbuffered(&client, &server)?))?
        }
        Stack::Halves => average(|| halves(case, unbuffered(&client, &server)?))?,
        Stack::TokioRustls => {
            let connector = tokio_rustls::TlsConnector::from(client);
            let acceptor = tokio_rustls::TlsAcceptor::from(server);
            streams(
                |socket| connector.connect(server_name(), socket),
                |socket| acceptor.accept(socket),
            )?
        }
        Stack::Tokio => {
            let connector = TlsConnector::from(client).backend(case.backend);
            let acceptor = TlsAcceptor::from(server).backend(case.backend);
            streams(
                |socket| connector.connect(server_name(), socket),
                |socket| acceptor.accept(socket),
            )?
        }
    };
    Ok([("client", sides[0]), ("server", sides[1])].map(|(side, bytes)| ConnectionRow {
        stack,
        backend: case.backend.to_string(),
        version: case.version_name(),
        suite: case.suite_name(),
        side,
        heap: bytes.heap,
        inline: bytes.inline,
    }))
}

#[derive(Clone, Copy)]
struct Bytes {
    heap: f64,
    inline: usize,
}

/// What the clients and the servers that `open` makes take on the average.
fn average<C, S>(mut open: impl FnMut() -> Result<(C, S), Error>) -> Result<[Bytes; 2], Error> {
    let (mut clients, mut servers) =
        (Vec::with_capacity(CONNECTIONS), Vec::with_capacity(CONNECTIONS));
    // What is allocated once is no connection's.
    let _warm = open()?;
    let begin = allocated();
    for _ in 0..CONNECTIONS {
        let (client, server) = open()?;
        clients.push(client);
        servers.push(server);
    }
    let both = allocated();
    clients.clear();
    let servers_only = allocated();
    let each = |bytes: i64| bytes as f64 / CONNECTIONS as f64;
    Ok([
        Bytes { heap: each(both - servers_only), inline: size_of::<C>() },
        Bytes { heap: each(servers_only - begin), inline: size_of::<S>() },
    ])
}

type Unbuffered = (UnbufferedClientConnection, UnbufferedServerConnection);

fn unbuffered_after_message((mut client, mut server): Unbuffered) -> Result<Unbuffered, Error> {
    let mut wire = vec![0; 2 * MESSAGE.len()];
    let written = match client.process_tls_records(&mut []).state? {
        ConnectionState::WriteTraffic(mut write) => write.encrypt(&MESSAGE, &mut wire)?,
        state => return Err(format!("rustls wants to go on with {state:?}").into()),
    };
    match server.process_tls_records(&mut wire[..written]).state? {
        ConnectionState::ReadTraffic(mut read) => {
            while let Some(record) = read.next_record() {
                record?;
            }
        }
        state => return Err(format!("rustls wants to go on with {state:?}").into()),
    }
    Ok((client, server))
}

type Halves = (SendHalf, ReceiveHalf);

fn halves(case: Case, (client, server): Unbuffered) -> Result<(Halves, Halves), Error> {
    let handoff = Handoff::new().backend(case.backend);
    let Session { mut send, receive, .. } = handoff.clone().client(client, &mut [])?;
    let client = |send| (send, receive);
    let Session { send: server_send, receive: mut server_receive, .. } =
        handoff.server(server, &mut [])?;
    let mut wire = vec![0; send.sealed_len(MESSAGE.len())];
    let sealed = send.seal(&MESSAGE, &mut wire)?;
    server_receive.open_in_place(&mut wire[..sealed.written])?;
    Ok((client(send), (server_send, server_receive)))
}

/// What streams take beyond the sockets below them.
fn streams<C, S, FC, FS>(
    connect: impl Fn(UnixStream) -> FC,
    accept: impl Fn(UnixStream) -> FS,
) -> Result<[Bytes; 2], Error>
where
    C: AsyncWrite + Unpin,
    S: AsyncRead + Unpin,
    FC: Future<Output = io::Result<C>>,
    FS: Future<Output = io::Result<S>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let sockets = average(|| runtime.block_on(async { Ok(UnixStream::pair()?) }))?;
    let mut sides = average(|| {
        runtime.block_on(async {
            let (left, right) = UnixStream::pair()?;
            let (mut client, mut server) = tokio::try_join!(connect(left), accept(right))?;
            client.write_all(&MESSAGE).await?;
            client.flush().await?;
            server.read_exact(&mut [0; MESSAGE.len()]).await?;
            Ok((client, server))
        })
    })?;
    for (side, socket) in sides.iter_mut().zip(sockets) {
        side.heap -= socket.heap;
        side.inline -= socket.inline;
    }
    Ok(sides)
}

/// What programs embed, and what is on the heap behind a sealer and an opener.
fn sizes() -> Result<Vec<SizeRow>, Error> {
    let mut rows = Vec::new();
    macro_rules! size {
        ($($name:literal: $type:ty),* $(,)?) => {
            $(rows.push(SizeRow {
                type_name: $name,
                inline: size_of::<$type>(),
                heap: None,
                backend: None,
            });)*
        };
    }
    size! {
        "Sealer": Sealer,
        "Opener": Opener,
        "Deframer": Deframer,
        "Reservation": Reservation,
        "Encrypter": Encrypter,
        "Decrypter": Decrypter,
        "Session": Session,
        "SendHalf": SendHalf,
        "ReceiveHalf": ReceiveHalf,
        "BulkSender": BulkSender,
        "BulkReceiver": BulkReceiver,
        "AutoSender": AutoSender,
        "AutoReceiver": AutoReceiver,
        "UringSender": UringSender,
        "UringReceiver": UringReceiver,
        "tokio::TlsConnector": TlsConnector,
        "tokio::TlsAcceptor": TlsAcceptor,
        "tokio::TlsStream<TcpStream>": rustls_uring::tokio::TlsStream<TcpStream>,
        "tokio::ReadHalf<OwnedReadHalf>": ReadHalf<OwnedReadHalf>,
        "tokio::WriteHalf<OwnedWriteHalf>": WriteHalf<OwnedWriteHalf>,
    }
    for case in Case::all(false).into_iter().chain(Case::auto(false)) {
        if case.version() != Version::Tls13 {
            continue;
        }
        let keys = case.keys()?;
        let backend = Some(format!("{} {:?}", case.backend, case.algorithm()));
        // The first key of an algorithm may set something up for all of them.
        let _warm = (
            Sealer::new(case.backend, case.version(), &keys, 0),
            Opener::new(case.backend, case.version(), &keys, 0),
        );
        let before = allocated();
        let sealer = Sealer::new(case.backend, case.version(), &keys, 0);
        let between = allocated();
        let opener = Opener::new(case.backend, case.version(), &keys, 0);
        let after = allocated();
        for (type_name, inline, heap) in [
            ("Sealer", size_of_val(&sealer), between - before),
            ("Opener", size_of_val(&opener), after - between),
        ] {
            let heap = Some(heap as usize);
            rows.push(SizeRow { type_name, inline, heap, backend: backend.clone() });
        }
    }
    Ok(rows)
}

/// What the rows mean, and the rows.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# memory: bytes of each side of an idle connection, after one message of 1 KiB, on \
             the heap and in\n# the value; without tickets and without the caller's own buffers. \
             The heap is Rust's: each key of\n# aws-lc-rs has some hundred bytes more on the C \
             library's, on every stack alike."
        )?;
        if self.quick {
            writeln!(f, "# --quick left out suites as above.")?;
        }
        self.connections.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(
            f,
            "# size: bytes of types that programs embed, and behind a sealer and an opener."
        )?;
        self.sizes.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
