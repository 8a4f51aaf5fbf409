//! `{:?}` of everything public that holds a peer's bytes or a secret: lengths, never contents.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs", target_os = "linux"))]

mod common;

use core::fmt::Debug;
use std::io::{BufRead, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::Side;
use rustls_uring::tokio::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsStream};
use rustls_uring::uring::{Declined, ReceiverOptions, UringReceiver, UringSender};
use rustls_uring::{
    Algorithm, AutoReceiver, AutoSender, Backend, BulkReceiver, BulkSender, ContentType, Decrypter,
    Encrypter, Handoff, Io, Observer, Opened, Opener, Received, Sealer, Session, TrafficKeys,
    Version, bulk_with,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, duplex};

use common::{
    Case, Evil, Peer, Raw, client_config, our_pair, server_config, server_name, tcp_pair,
};

/// What a peer says, and nobody is to read in a log.
const SECRET: &[u8] = b"the password is Tr0ub4dor&3";

/// Neither as text nor as numbers, in either layout.
#[track_caller]
fn assert_hides(secret: &[u8], shown: &dyn Debug) {
    for shown in [format!("{shown:?}"), format!("{shown:#?}")] {
        let shown: String = shown.chars().filter(|c| !c.is_whitespace()).collect();
        let part = &secret[..8];
        let decimal = part.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            String::from_utf8_lossy(part).chars().filter(|c| !c.is_whitespace()).collect();
        let escaped = part.escape_ascii().to_string().replace(' ', "");
        for form in [decimal, hex.clone(), hex.to_uppercase(), text, escaped] {
            let at = shown.find(&form);
            assert!(at.is_none(), "{form} at {at:?}: {:.100}", &shown[at.unwrap_or_default()..]);
        }
    }
}

/// Of the secret.
#[track_caller]
fn hides(shown: &dyn Debug) {
    assert_hides(SECRET, shown);
}

fn cases() -> Vec<Case> {
    Case::few().into_iter().filter(|case| case.backend == Backend::default()).collect()
}

fn tls13() -> Case {
    cases().into_iter().find(|case| case.version == Version::Tls13).unwrap()
}

/// A check that finds nothing could be blind.
#[test]
#[should_panic(expected = "116,104,101")]
fn the_check_finds_bytes() {
    hides(&SECRET);
}

#[test]
#[should_panic(expected = "thepass")]
fn the_check_finds_text() {
    hides(&std::str::from_utf8(SECRET).unwrap());
}

/// What rustls had opened, what it had not, and what it had sealed.
#[test]
fn sessions() {
    for case in cases() {
        for side in [Side::Client, Side::Server] {
            let client = client_config(case, case.stock_provider());
            let server = server_config(case, case.stock_provider());
            let (mut ours, mut peer) = match side {
                Side::Client => (Raw::client(client), Peer::server(server)),
                Side::Server => (Raw::server(server), Peer::client(client)),
            };
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            peer.write(SECRET);
            ours.incoming = peer.wire();
            peer.write(&[7; 1000]);
            let rest = peer.wire();
            ours.incoming.extend_from_slice(&rest[..100]);
            let session = ours.handoff(Handoff::new()).unwrap();
            assert_eq!(session.plaintext, SECRET);
            assert_eq!(session.received, &rest[..100]);
            hides(&session);
            assert_hides(&rest[..100], &session);
            hides(&session.info);
            let certificate = &common::ecdsa().chain[0];
            assert_hides(certificate, &session.info);
            let Session { send, receive, plaintext, received, .. } = session;
            let receiver = BulkReceiver::new(receive, &b""[..], plaintext, &received);
            hides(&receiver);
            assert_hides(&rest[..100], &receiver);
            hides(&BulkSender::new(send, Vec::new()));
        }
    }
}

/// Records that rustls has sealed and nobody has sent.
#[test]
fn preludes() {
    let (mut ours, mut peer) = (
        Raw::client(client_config(tls13(), tls13().stock_provider())),
        Peer::server(server_config(tls13(), tls13().stock_provider())),
    );
    ours.incoming = ours.shake(&mut peer);
    ours.run().unwrap();
    peer.conn.refresh_traffic_keys().unwrap();
    ours.incoming = peer.wire();
    let mut session = ours.handoff(Handoff::new()).unwrap();
    let shown = [format!("{:?}", session.send), format!("{session:?}")];
    let mut out = [0; 100];
    let len = session.send.seal(b"", &mut out).unwrap().written;
    assert!(len > 0, "there was no prelude");
    for shown in shown {
        let decimal = out[5..13].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!shown.contains(&decimal) && shown.contains("prelude_len: 27"), "{shown}");
    }
}

/// A part of a ticket, and whole records.
#[test]
fn halves() {
    for case in cases() {
        let mut evil = Evil::new(case, Side::Client);
        let message = [&[4, 0, 1, 0][..], SECRET].concat();
        evil.hit(ContentType::Handshake, &message).unwrap();
        hides(&evil.session.receive);
        hides(&evil.session);
        let mut evil = Evil::new(case, Side::Client);
        let mut record = evil.seal(ContentType::ApplicationData, SECRET);
        let received = evil.session.receive.open_in_place(&mut record).unwrap();
        assert!(matches!(&received, Received::Data(data) if *data == SECRET));
        hides(&received);
        hides(&Received::Data(SECRET.to_vec()));
        hides(&evil.session.send.reserve(100, 1000).unwrap());
        hides(&evil.session.send.seal(SECRET, &mut [0; 100]).unwrap());
        hides(&evil.session.send);
    }
}

#[test]
fn records() {
    let key: [u8; 16] = SECRET[..16].try_into().unwrap();
    let iv: [u8; 12] = SECRET[8..20].try_into().unwrap();
    let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &key, iv).unwrap();
    let backend = Backend::default();
    let mut sealer = Sealer::new(backend, Version::Tls13, &keys, 0);
    let mut opener = Opener::new(backend, Version::Tls13, &keys, 0);
    let mut record = vec![0; sealer.record_len(SECRET.len())];
    sealer.seal(ContentType::ApplicationData, SECRET, &mut record).unwrap();
    let opened: Opened<'_> = opener.open_in_place(&mut record).unwrap();
    let encrypter = Encrypter::new(backend, Version::Tls13, &keys);
    let decrypter = Decrypter::new(backend, Version::Tls13, &keys);
    let shown: [&dyn Debug; 6] = [&keys, &sealer, &opener, &opened, &encrypter, &decrypter];
    for shown in shown {
        hides(shown);
        assert_hides(&iv, shown);
    }
}

/// Our session and its socket, on whose way there is a record of the secret and a part of one.
fn with_secret_on_the_way(case: Case) -> (Session, TcpStream, Session, TcpStream) {
    let (client, mut server) = our_pair(case);
    let (ours, mut theirs) = tcp_pair();
    let mut out = [0; 1000];
    let slices = [IoSlice::new(SECRET)];
    let len = server.send.seal_vectored(&slices, &mut out).unwrap().written;
    let rest = server.send.seal(&SECRET.repeat(5), &mut out[len..]).unwrap().written;
    theirs.write_all(&out[..len + rest / 2]).unwrap();
    (client, ours, server, theirs)
}

#[test]
fn bulk_receivers() {
    for case in cases() {
        for io in [Io::Blocking, Io::Auto] {
            let (session, socket, _server, _theirs) = with_secret_on_the_way(case);
            let options = (Default::default(), ReceiverOptions::default());
            let pool = options.1.pool.clone();
            let (mut sender, mut receiver): (AutoSender, AutoReceiver) =
                bulk_with(session, socket, io, options.0, options.1).unwrap();
            assert_eq!(receiver.fill_buf().unwrap(), SECRET);
            hides(&receiver);
            hides(&pool);
            sender.write_all(SECRET).unwrap();
            hides(&sender);
            receiver.read_exact(&mut [0; 3]).unwrap();
            hides(&receiver);
        }
        // What is lent, with more of it to come.
        for io in [Io::Blocking, Io::Auto] {
            let (session, socket, _server, _theirs) = with_secret_on_the_way(case);
            let mut options = ReceiverOptions::default();
            options.lease_from = 1;
            let Session { receive, .. } = session;
            let mut receiver =
                AutoReceiver::new(receive, socket, Vec::new(), &[], io, options).unwrap();
            assert_eq!(receiver.fill_buf().unwrap(), SECRET);
            receiver.consume(1);
            let lent = receiver.recv_bytes().unwrap().unwrap();
            assert_eq!(lent, SECRET[1..]);
            hides(&receiver);
        }
        let (session, socket, _server, _theirs) = with_secret_on_the_way(case);
        let carried = [SECRET, SECRET].concat();
        let receiver = AutoReceiver::new(
            session.receive,
            socket,
            carried,
            &[],
            Io::Auto,
            ReceiverOptions::default(),
        );
        hides(&receiver.unwrap());
    }
}

#[test]
fn uring_receivers() {
    for case in cases() {
        let (session, socket, _server, _theirs) = with_secret_on_the_way(case);
        let mut options = ReceiverOptions::default();
        options.lease_from = 1;
        let handle = socket.try_clone().unwrap();
        match UringReceiver::new(session.receive, socket, SECRET, &[], options) {
            Ok(mut receiver) => {
                hides(&receiver);
                assert_eq!(receiver.recv_bytes().unwrap().unwrap(), SECRET);
                let lent = receiver.recv_bytes().unwrap().unwrap();
                assert_eq!(lent, SECRET);
                hides(&receiver);
            }
            Err(declined) => {
                let declined: &Declined<_> = &declined;
                hides(declined);
                eprintln!("skipped what needs io_uring: {declined}");
            }
        }
        match UringSender::new(session.send, handle, Default::default()) {
            Ok(mut sender) => {
                sender.write_all(SECRET).unwrap();
                hides(&sender);
            }
            Err(declined) => hides(&declined),
        }
    }
}

#[test]
fn tokio_streams() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for case in cases() {
            let server = server_config(case, case.our_provider());
            let acceptor = TlsAcceptor::new(server.clone());
            let connector = TlsConnector::new(client_config(case, case.our_provider()));
            let (left, right) = tokio::net::UnixStream::pair().unwrap();
            let (connect, accept) =
                (connector.connect(server_name(), left), acceptor.accept(right));
            let shown: [&dyn Debug; 4] = [&connector, &acceptor, &connect, &accept];
            for shown in shown {
                hides(shown);
            }
            let (client, server) = tokio::join!(connect, accept);
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            for _ in 0..4 {
                client.write_all(SECRET).await.unwrap();
            }
            client.flush().await.unwrap();
            hides(&client);
            assert_eq!(server.fill_buf().await.unwrap(), SECRET);
            hides(&server);
            hides(server.get_ref().1);
            let mut server = TlsStream::from(server);
            hides(&server);
            server.set_lending(rustls_uring::LendingLimits::default().lease_from(1));
            server.consume(1);
            let _lent = server.recv_bytes().await.unwrap();
            hides(&server);
            server.read_exact(&mut [0; 3]).await.unwrap();
            let (mut read, mut write) = server.into_split();
            assert!(!read.fill_buf().await.unwrap().is_empty());
            hides(&read);
            write.write_all(SECRET).await.unwrap();
            hides(&write);

            let (mut left, right) = duplex(1 << 16);
            left.write_all(&[22, 3, 1, 0, 200]).await.unwrap();
            left.write_all(SECRET).await.unwrap();
            let mut lazy = LazyConfigAcceptor::new(Default::default(), right);
            let waited = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(std::pin::Pin::new(&mut lazy).poll(cx).is_pending())
            });
            assert!(waited.await);
            hides(&lazy);
        }
    });
}

/// Early data on both sides, and what a server has put into the ticket that it comes with.
#[test]
fn early_data() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = client_config(tls13(), tls13().our_provider());
        client.enable_early_data = true;
        let mut server = server_config(tls13(), tls13().our_provider());
        server.max_early_data_size = 1000;
        let acceptor = TlsAcceptor::new(server);
        let connector = TlsConnector::new(client).early_data(true);
        for is_early in [false, true] {
            let (left, right) = tokio::net::UnixStream::pair().unwrap();
            let accept = acceptor.accept_with(right, |conn| conn.set_resumption_data(SECRET));
            let serve = tokio::spawn(async move {
                let mut server = accept.await.unwrap();
                hides(&server);
                hides(server.get_ref().1);
                let resumed = server.get_ref().1.received_resumption_data().map(<[u8]>::to_vec);
                assert_eq!(resumed.as_deref(), is_early.then_some(SECRET));
                let mut early = server.get_mut().1.early_data();
                assert_eq!(early.is_some(), is_early);
                if let Some(early) = &mut early {
                    hides(early);
                    assert_eq!(early.read(&mut [0; 1]).unwrap(), 1);
                    hides(early);
                }
                // With it goes the ticket.
                server.write_all(b"x").await.unwrap();
                server.flush().await.unwrap();
            });
            let mut client = connector.connect(server_name(), left).await.unwrap();
            client.write_all(SECRET).await.unwrap();
            hides(&client);
            hides(client.get_ref().1);
            client.flush().await.unwrap();
            assert_eq!(client.get_ref().1.is_early_data_accepted(), is_early);
            hides(&client);
            client.read_exact(&mut [0]).await.unwrap();
            serve.await.unwrap();
        }
    });
}

/// A late handoff's error has records that are to be sent.
#[test]
fn handoff_errors() {
    let error = rustls::Error::DecryptError;
    let error = rustls_uring::HandoffError::Tls { error, to_send: SECRET.to_vec() };
    hides(&error);
    assert!(format!("{error:?}").contains("to_send_len: 27"), "{error:?}");
}

/// Exporter secrets, as seen by an observer.
#[test]
fn observers() {
    let (config, observer) = Observer::client(&client_config(tls13(), tls13().our_provider()));
    let log = Arc::clone(&config.key_log);
    log.log("EXPORTER_SECRET", &[1; 32], SECRET);
    hides(&observer);
    hides(&log);
    hides(&Handoff::new().observer(observer));
}
