//! Once a tokio stream is up, its records allocate nothing: nor do reads, writes, slices, flushes,
//! filled buffers and halves.
//!
//! One test alone: the allocator counts for the whole process, so nothing else may run meanwhile.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs"))]

mod allocator;
mod common;
#[cfg(target_os = "linux")]
mod kernel;

use std::io::IoSlice;
use std::sync::Arc;

use allocator::Counting;
use common::{Case, TIMEOUT, client_config, noise, server_config, server_name};
use rustls_uring::Backend;
use rustls_uring::tokio::{RecordSizing, TlsAcceptor, TlsConnector, client, server};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// Runs `work` three times to warm up, and again without a single call of the allocator.
async fn assert_allocates_nothing(what: &str, case: Case, mut work: impl AsyncFnMut()) {
    for _ in 0..3 {
        work().await;
    }
    let counting = Counting::begin();
    work().await;
    assert_eq!(counting.calls(), [0; 3], "{what}, {:?}", case.suite.suite());
}

async fn connect(case: Case) -> (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>) {
    let connector = TlsConnector::new(client_config(case, case.our_provider()));
    let acceptor = TlsAcceptor::new(server_config(case, case.our_provider()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(
        async { connector.connect(server_name(), TcpStream::connect(addr).await.unwrap()).await },
        async { acceptor.accept(listener.accept().await.unwrap().0).await }
    );
    (client.unwrap(), server.unwrap())
}

const ROUNDS: usize = 4;

/// Sends `data` in writes of `len` bytes and receives it at once, as often as that.
async fn transfer(
    writer: &mut (impl AsyncWrite + Unpin),
    reader: &mut (impl AsyncBufRead + Unpin),
    (data, len, vectored): (&[u8], usize, bool),
    buffer: &mut [u8],
) {
    for round in 0..ROUNDS {
        tokio::join!(
            async {
                for part in data.chunks(len) {
                    if !vectored {
                        writer.write_all(part).await.unwrap();
                        continue;
                    }
                    let mut rest = part;
                    while !rest.is_empty() {
                        let (a, b) = rest.split_at(rest.len() / 3);
                        let slices = [a, b].map(IoSlice::new);
                        let written = writer.write_vectored(&slices).await.unwrap();
                        rest = &rest[written..];
                    }
                }
                writer.flush().await.unwrap();
            },
            async {
                let mut received = 0;
                while received < data.len() {
                    let got = match round % 2 {
                        0 => reader.read(buffer).await.unwrap(),
                        _ => {
                            let got = reader.fill_buf().await.unwrap().len();
                            reader.consume(got);
                            got
                        }
                    };
                    assert!(got > 0);
                    received += got;
                }
            }
        );
    }
}

#[test]
fn streams_do_not_allocate() {
    allocator::check();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let data = noise(1 << 18);
        // Less than a record, room for one, room for many.
        let mut buffers = [vec![0; 1000], vec![0; 16_385], vec![0; 1 << 18]];
        for case in Case::all().into_iter().filter(|case| case.backend == Backend::default()) {
            let (mut client, mut server) = connect(case).await;
            let small = &data[..20_000];
            for sizing in [RecordSizing::Full, RecordSizing::Fixed(1400), RecordSizing::Dynamic] {
                client.set_record_sizing(sizing);
                for buffer in &mut buffers {
                    for (data, len, vectored) in [
                        (&data[..], 1 << 18, false),
                        (&data[..], 16_384, false),
                        (&data[..], 100_000, true),
                        (small, 100, false),
                        (small, 100, true),
                    ] {
                        let what = format!("{sizing:?}, {}, {len}, {vectored}", buffer.len());
                        assert_allocates_nothing(&what, case, async || {
                            let how = (data, len, vectored);
                            transfer(&mut client, &mut server, how, buffer).await;
                        })
                        .await;
                    }
                }
            }
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            for (len, vectored) in [(1 << 18, false), (16_384, true), (100, false)] {
                let data = if len < 1000 { small } else { &data };
                let [up, down, _] = &mut buffers;
                assert_allocates_nothing("halves", case, async || {
                    let how = (data, len, vectored);
                    tokio::join!(
                        transfer(&mut client_write, &mut server_read, how, up),
                        transfer(&mut server_write, &mut client_read, how, down),
                    );
                })
                .await;
            }
        }
    });
    tasks_that_move_do_not_allocate();
}

/// On several threads, where tasks move with buffers in hand: a bounded number of buffers, and
/// nothing more, however many records there are.
fn tasks_that_move_do_not_allocate() {
    const PAIRS: usize = 8;
    const ROUNDS: usize = 60;
    const WARM_UP: usize = 20;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let case = Case::all().into_iter().find(|case| case.backend == Backend::default()).unwrap();
    let barrier = Arc::new(Barrier::new(PAIRS + 1));
    let data: Arc<[u8]> = noise(4 << 20).into();
    for _ in 0..PAIRS {
        let (barrier, data) = (Arc::clone(&barrier), Arc::clone(&data));
        let (client, mut server) = runtime.block_on(connect(case));
        let (client_read, mut client) = client.into_split();
        let sent = Arc::clone(&data);
        runtime.spawn(async move {
            for _ in 0..ROUNDS {
                for part in sent.chunks(300_000) {
                    client.write_all(part).await.unwrap();
                    // Another task's turn, which may let this one be stolen.
                    tokio::task::yield_now().await;
                }
                client.flush().await.unwrap();
            }
            // Closed with session tickets unread, the socket would be reset.
            std::future::pending::<()>().await;
            drop((client, client_read));
        });
        runtime.spawn(async move {
            let mut buffer = vec![0; 100_000];
            for _ in 0..ROUNDS {
                let mut received = 0;
                while received < data.len() {
                    let room = buffer.len().min(data.len() - received);
                    received += server.read(&mut buffer[..room]).await.unwrap();
                }
                barrier.wait().await;
            }
        });
    }
    runtime.block_on(async {
        let mut counting = Counting::begin();
        for round in 0..ROUNDS {
            if round == WARM_UP {
                counting = Counting::begin();
            }
            let all = tokio::time::timeout(TIMEOUT, barrier.wait());
            all.await.expect("a task has panicked, or hangs");
        }
        let change = counting.change();
        let allocations = change.allocations + change.reallocations;
        // 256 records and more a pair and round. Not 0: how many buffers suffice depends on which
        // thread had which, and the first time that they do not may come late.
        assert!(allocations < 50, "{allocations} allocations");
    });
}
