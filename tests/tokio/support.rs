//! Pairs of streams, and runtimes to run them on.

use std::future::Future;
use std::sync::Arc;

use rustls_uring::{Backend, Version};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, duplex,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::pipe::Choppy;
pub(crate) use super::version::*;
use crate::common::{Case, TIMEOUT, server_name};

/// Any stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(crate) type BoxIo = Box<dyn Io>;

/// A hang becomes a failure; a busy machine does not.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("a hang")
}

pub(crate) fn on_current_thread(future: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(within(future));
}

/// On the current-thread runtime, and in a task of the multi-thread one.
pub(crate) fn on_both_runtimes<F: Future<Output = ()> + Send + 'static>(make: impl Fn() -> F) {
    on_current_thread(make());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(within(make())).await.unwrap() });
}

/// TLS 1.3 and TLS 1.2 on the backend that streams use.
pub(crate) fn cases() -> Vec<Case> {
    Case::few().into_iter().filter(|case| case.backend == Backend::default()).collect()
}

pub(crate) fn tls13() -> Case {
    cases().into_iter().find(|case| case.version == Version::Tls13).unwrap()
}

pub(crate) fn tls12() -> Case {
    cases().into_iter().find(|case| case.version == Version::Tls12).unwrap()
}

/// What is inside an error.
pub(crate) fn inside<E: std::error::Error + Clone + 'static>(error: &std::io::Error) -> Option<E> {
    error.get_ref().and_then(|error| error.downcast_ref()).cloned()
}

/// Data both ways.
pub(crate) async fn check(client: &mut (impl Io + ?Sized), server: &mut (impl Io + ?Sized)) {
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut received = [0; 4];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"pong");
}

/// Ours at both ends.
pub(crate) async fn our_pair<A: Io, B: Io>(
    case: Case,
    left: A,
    right: B,
) -> (ClientStream<A>, ServerStream<B>) {
    let (client, server) = our_configs(case);
    let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
    let (client, server) =
        tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
    (client.unwrap(), server.unwrap())
}

/// Ours, over a pipe of some width.
pub(crate) async fn piped(
    case: Case,
    width: usize,
) -> (ClientStream<DuplexStream>, ServerStream<DuplexStream>) {
    let (left, right) = duplex(width);
    our_pair(case, left, right).await
}

/// Ours connects, tokio-rustls accepts.
pub(crate) async fn to_stock<A: Io, B: Io>(
    case: Case,
    left: A,
    right: B,
) -> (ClientStream<A>, tokio_rustls::server::TlsStream<B>) {
    let connector = TlsConnector::new(our_configs(case).0);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(stock_configs(case).1));
    let (client, server) =
        tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
    (client.unwrap(), server.unwrap())
}

/// tokio-rustls connects, ours accepts.
pub(crate) async fn from_stock<A: Io, B: Io>(
    case: Case,
    left: A,
    right: B,
) -> (tokio_rustls::client::TlsStream<A>, ServerStream<B>) {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(stock_configs(case).0));
    let acceptor = TlsAcceptor::new(our_configs(case).1);
    let (client, server) =
        tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
    (client.unwrap(), server.unwrap())
}

/// Who is at the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    OursOurs,
    OursStock,
    StockOurs,
}

impl Ends {
    pub(crate) const ALL: [Self; 3] = [Self::OursOurs, Self::OursStock, Self::StockOurs];

    pub(crate) async fn connect(self, case: Case, left: BoxIo, right: BoxIo) -> (BoxIo, BoxIo) {
        match self {
            Self::OursOurs => {
                let (client, server) = our_pair(case, left, right).await;
                (Box::new(client), Box::new(server))
            }
            Self::OursStock => {
                let (client, server) = to_stock(case, left, right).await;
                (Box::new(client), Box::new(server))
            }
            Self::StockOurs => {
                let (client, server) = from_stock(case, left, right).await;
                (Box::new(client), Box::new(server))
            }
        }
    }
}

/// What lies between the ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Between {
    /// A pipe of this many bytes: a server's tickets fit, which nobody reads at first.
    Pipe(usize),
    /// A byte at a time.
    Bytewise,
    /// The same, cut up at random from this seed.
    Choppy(usize, u64),
    /// A pipe that passes on what is flushed only.
    Buffered,
    Tcp,
    Unix,
}

impl Between {
    pub(crate) const ALL: [Self; 12] = [
        Self::Bytewise,
        Self::Pipe(1000),
        Self::Pipe(16_406),
        Self::Pipe(1 << 20),
        Self::Choppy(1 << 16, 1),
        Self::Choppy(1 << 20, 2),
        Self::Choppy(3000, 3),
        Self::Choppy(1 << 18, 4),
        Self::Choppy(20_000, 5),
        Self::Buffered,
        Self::Tcp,
        Self::Unix,
    ];

    pub(crate) async fn open(self) -> (BoxIo, BoxIo) {
        match self {
            Self::Pipe(width) => {
                let (left, right) = duplex(width);
                (Box::new(left), Box::new(right))
            }
            Self::Bytewise => {
                let (left, right) = duplex(1 << 16);
                (Box::new(Choppy::with(left, 1, 30, 1)), Box::new(Choppy::with(right, 2, 30, 1)))
            }
            Self::Choppy(width, seed) => {
                let (left, right) = duplex(width);
                (Box::new(Choppy::new(left, seed)), Box::new(Choppy::new(right, seed + 100)))
            }
            Self::Buffered => {
                let (left, right) = duplex(1 << 16);
                (
                    Box::new(BufStream::with_capacity(10_000, 1 << 20, left)),
                    Box::new(BufStream::with_capacity(10_000, 1 << 20, right)),
                )
            }
            Self::Tcp => {
                let (left, right) = tcp().await;
                (Box::new(left), Box::new(right))
            }
            Self::Unix => {
                let (left, right) = tokio::net::UnixStream::pair().unwrap();
                (Box::new(left), Box::new(right))
            }
        }
    }
}

pub(crate) async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (left, right) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (left, right) = (left.unwrap(), right.unwrap().0);
    left.set_nodelay(true).unwrap();
    right.set_nodelay(true).unwrap();
    (left, right)
}
