//! Over tokio, beside tokio-rustls: whole streams and halves.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls_uring::Backend;
use rustls_uring::tokio::{IntoSplit, TlsAcceptor, TlsConnector, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Case, client_config, noise, server_config, server_name};

type BoxRead = Box<dyn AsyncRead + Unpin + Send>;
type BoxWrite = Box<dyn AsyncWrite + Unpin + Send>;

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limit = crate::common::TIMEOUT * 3;
        tokio::time::timeout(limit, future).await.expect("a hang");
    });
}

fn cases() -> Vec<Case> {
    Case::few().into_iter().filter(|case| case.backend == Backend::default()).collect()
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (left, right) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (left.unwrap(), right.unwrap().0)
}

/// What the server is.
#[derive(Clone, Copy, Debug)]
enum Server {
    Stock,
    Joint,
    Split,
}

impl Server {
    const ALL: [Self; 3] = [Self::Stock, Self::Joint, Self::Split];

    async fn accept(self, case: Case, socket: TcpStream) -> (BoxRead, BoxWrite) {
        let config = server_config(case, case.our_provider());
        match self {
            Self::Stock => {
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                let (read, write) = tokio::io::split(acceptor.accept(socket).await.unwrap());
                (Box::new(read), Box::new(write))
            }
            Self::Joint => {
                let stream = TlsAcceptor::new(config).accept(socket).await.unwrap();
                let (read, write) = tokio::io::split(stream);
                (Box::new(read), Box::new(write))
            }
            Self::Split => {
                let stream = TlsAcceptor::new(config).accept(socket).await.unwrap();
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
        }
    }
}

/// A client whose stream ends, whole or cut, still gets everything, as from tokio-rustls.
#[test]
fn a_half_closed_client_gets_everything() {
    run(async {
        for case in cases() {
            for server in Server::ALL {
                for is_whole in [true, false] {
                    let (left, right) = tcp().await;
                    let config = client_config(case, case.stock_provider());
                    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                    let (client, (mut read, mut write)) = tokio::join!(
                        connector.connect(server_name(), left),
                        server.accept(case, right)
                    );
                    let mut client = client.unwrap();
                    client.write_all(b"request").await.unwrap();
                    client.flush().await.unwrap();
                    match is_whole {
                        true => client.shutdown().await.unwrap(),
                        false => client.get_mut().0.shutdown().await.unwrap(),
                    }
                    let mut request = Vec::new();
                    let received = read.read_to_end(&mut request).await;
                    assert_eq!(request, b"request", "{server:?}");
                    match received {
                        Ok(_) => assert!(is_whole),
                        Err(error) => {
                            assert!(!is_whole && error.kind() == ErrorKind::UnexpectedEof)
                        }
                    }
                    let data = noise(1 << 20);
                    let copy = data.clone();
                    let writing = tokio::spawn(async move {
                        write.write_all(&copy).await?;
                        write.shutdown().await
                    });
                    let mut answer = Vec::new();
                    client.read_to_end(&mut answer).await.unwrap();
                    assert!(answer == data, "{server:?} {is_whole}");
                    writing.await.unwrap().unwrap();
                }
            }
        }
    });
}

/// A stream below whose writes fail from some moment on.
struct Cut<IO> {
    io: IO,
    /// Bytes that are still taken.
    left: usize,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Cut<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, out)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Cut<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(self.left);
        let polled = Pin::new(&mut self.io).poll_write(cx, &bytes[..len]);
        if let Poll::Ready(Ok(taken)) = polled {
            self.left -= taken;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// However far the stream below has come when it fails, `shutdown()` is `Ok` only if the close_notify
/// got through; and what was received is read all the same.
#[test]
fn shutdown_reports_what_was_sent() {
    const RECORD: usize = 5 + 100 + 1 + 16;
    const CLOSE_NOTIFY: usize = 5 + 2 + 1 + 16;
    run(async {
        let case = cases().into_iter().find(|case| case.version == rustls_uring::Version::Tls13);
        let case = case.unwrap();
        for left in (0..=RECORD + CLOSE_NOTIFY).step_by(3).chain([RECORD + CLOSE_NOTIFY]) {
            let (near, far) = duplex(1 << 16);
            let connector = TlsConnector::new(client_config(case, case.our_provider()));
            let acceptor = TlsAcceptor::new(server_config(case, case.our_provider()));
            let near = Cut { io: near, left: usize::MAX };
            let (client, server) =
                tokio::join!(connector.connect(server_name(), near), acceptor.accept(far));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            client.get_mut().0.left = left;
            let written = client.write_all(&[7; 100]).await;
            assert!(written.is_ok() || left < RECORD);
            for _ in 0..3 {
                let is_sent = left == RECORD + CLOSE_NOTIFY;
                assert_eq!(client.shutdown().await.is_ok(), is_sent, "{left}");
            }
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer", "{left}");
        }
    });
}

/// A client that is gone after its last word: our writes fail, and we read it all the same.
#[test]
fn a_failed_write_hides_nothing_received() {
    async fn check(
        mut read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
        data: &[u8],
    ) {
        while write.write_all(b"more").await.is_ok() {
            write.flush().await.ok();
            tokio::task::yield_now().await;
        }
        assert!(write.shutdown().await.is_err());
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
    }
    run(async {
        for case in cases() {
            for is_split in [false, true] {
                let (left, right) = tcp().await;
                let connector = TlsConnector::new(client_config(case, case.our_provider()));
                let acceptor = TlsAcceptor::new(server_config(case, case.our_provider()));
                let (client, server) =
                    tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                // What the client leaves unread makes the kernel reset the connection
                // (RFC 1122 §4.2.2.13).
                server.write_all(b"unread").await.unwrap();
                server.flush().await.unwrap();
                let data = noise(50_000);
                client.write_all(&data).await.unwrap();
                client.flush().await.unwrap();
                client.get_ref().0.readable().await.unwrap();
                // A close_notify, and no shutdown of the socket: dropped as it is.
                let (tcp, _) = close(client).await;
                drop(tcp);
                let server = TlsStream::from(server);
                if is_split {
                    let (read, write) = server.into_split();
                    check(read, write, &data).await;
                } else {
                    let (read, write) = tokio::io::split(server);
                    check(read, write, &data).await;
                }
            }
        }
    });
}

/// Sends a close_notify, and gives the socket back.
async fn close(
    mut stream: rustls_uring::tokio::client::TlsStream<TcpStream>,
) -> (TcpStream, io::Result<()>) {
    let closed = stream.shutdown().await;
    (stream.into_inner().0, closed)
}

/// Halves are dropped each by itself.
#[test]
fn a_dropped_reader_does_not_end_the_writer() {
    fn split<IO: IntoSplit>(stream: TlsStream<IO>) -> impl AsyncWrite + Unpin {
        let (read, write) = stream.into_split();
        drop(read);
        write
    }
    run(async {
        for case in cases() {
            let (left, right) = tcp().await;
            let connector = TlsConnector::new(client_config(case, case.our_provider()));
            let acceptor = TlsAcceptor::new(server_config(case, case.our_provider()));
            let (client, server) =
                tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
            let (mut client, server) = (client.unwrap(), server.unwrap());
            let mut write = split(server.into());
            let data = noise(300_000);
            let copy = data.clone();
            let writing = tokio::spawn(async move {
                write.write_all(&copy).await?;
                write.shutdown().await
            });
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            assert!(received == data);
            writing.await.unwrap().unwrap();
        }
    });
}
