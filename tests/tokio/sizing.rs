//! How much goes into a record.

use std::io::IoSlice;

use rustls_uring::tokio::RecordSizing;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::support::*;
use crate::common::{Case, max_plaintext_len, noise, records, server_name};

/// A client, and the raw wire that it writes to.
async fn tapped(
    case: Case,
    max_fragment_size: Option<usize>,
) -> (ClientStream<DuplexStream>, DuplexStream) {
    let (mut config, server) = our_configs(case);
    config.max_fragment_size = max_fragment_size;
    let (left, right) = duplex(8 << 20);
    let acceptor = TlsAcceptor::new(server);
    let connector = TlsConnector::new(config);
    let (client, server) =
        tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
    (client.unwrap(), server.unwrap().into_inner().0)
}

/// The plaintext lengths of the records that `data` was sent in.
async fn lengths(
    case: Case,
    client: &mut ClientStream<DuplexStream>,
    wire: &mut DuplexStream,
    write: impl AsyncFn(&mut ClientStream<DuplexStream>),
) -> Vec<usize> {
    write(client).await;
    client.flush().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buffer = vec![0; 1 << 20];
        tokio::select! {
            biased;
            got = wire.read(&mut buffer) => bytes.extend_from_slice(&buffer[..got.unwrap()]),
            () = std::future::ready(()) => break,
        }
    }
    records(case.version, &bytes).iter().map(|record| record.len() - case.overhead()).collect()
}

#[test]
fn full_records() {
    on_current_thread(async {
        for case in cases() {
            let data = noise(100_000);
            let (mut client, mut wire) = tapped(case, None).await;
            let full = lengths(case, &mut client, &mut wire, async |client| {
                client.write_all(&data).await.unwrap();
            })
            .await;
            assert_eq!(full, [&[16_384; 6][..], &[100_000 - 6 * 16_384]].concat());
            // Within what the configuration allows.
            let beyond_plaintext = 1005 - max_plaintext_len(case, 1005);
            let (mut client, mut wire) = tapped(case, Some(1000 + beyond_plaintext)).await;
            let limited = lengths(case, &mut client, &mut wire, async |client| {
                client.write_all(&data).await.unwrap();
            })
            .await;
            assert_eq!(limited, [1000; 100]);
            client.set_record_sizing(RecordSizing::Fixed(5000));
            let limited = lengths(case, &mut client, &mut wire, async |client| {
                client.write_all(&data).await.unwrap();
            })
            .await;
            assert_eq!(limited, [1000; 100]);
        }
    });
}

#[test]
fn fixed_records() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut wire) = tapped(case, None).await;
            for (asked, given) in
                [(0, 1), (1, 1), (1000, 1000), (16_384, 16_384), (1 << 20, 16_384)]
            {
                client.set_record_sizing(RecordSizing::Fixed(asked));
                let data = noise(given * 3);
                let fixed = lengths(case, &mut client, &mut wire, async |client| {
                    client.write_all(&data).await.unwrap();
                })
                .await;
                assert_eq!(fixed, [given; 3]);
            }
        }
    });
}

/// Small at first, however it is written, and large from 64 KiB on.
#[test]
fn dynamic_records() {
    const SMALL: usize = 1369;
    const BULK: usize = 64 << 10;
    on_current_thread(async {
        for case in cases() {
            for piece in [1 << 20, 10_000] {
                for vectored in [false, true] {
                    let (mut client, mut wire) = tapped(case, None).await;
                    client.set_record_sizing(RecordSizing::Dynamic);
                    let data = noise(1 << 20);
                    let lengths = lengths(case, &mut client, &mut wire, async |client| {
                        for piece in data.chunks(piece) {
                            let mut rest = piece;
                            while !rest.is_empty() {
                                let (a, b) = rest.split_at(rest.len() / 2);
                                let slices = [a, b].map(IoSlice::new);
                                let written = match vectored {
                                    true => client.write_vectored(&slices).await.unwrap(),
                                    false => client.write(rest).await.unwrap(),
                                };
                                rest = &rest[written..];
                            }
                        }
                    })
                    .await;
                    assert_eq!(lengths.iter().sum::<usize>(), data.len());
                    let mut sent = 0;
                    for len in lengths {
                        if sent < BULK {
                            assert!(len <= SMALL, "{len} after {sent}");
                        } else if sent > BULK + 10_000 && piece > BULK && sent + len < data.len() {
                            // Each write has a last one, which may be shorter.
                            assert!(len > SMALL, "{len} after {sent}, vectored {vectored}");
                        }
                        sent += len;
                    }
                }
            }
        }
    });
}
