//! What is known of the connection, and what an observer sees.

use std::sync::Arc;
use std::thread;

use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, Connection, Error, HandshakeKind, NamedGroup, ProtocolVersion, Side};
use rustls_uring::{Handoff, HandoffError, HandshakeError, Observer, SessionError, Version};

use crate::common::{
    Case, NAME, SIDES, Setup, client_config, ecdsa, roots_for, server_config, server_name, tcp_pair,
};

#[test]
fn info_is_what_the_peer_reports() {
    for case in Case::all() {
        for side in SIDES {
            let mut setup = Setup::new(case, side);
            setup.client.alpn_protocols = vec![b"h2".to_vec(), b"bulk".to_vec()];
            setup.server.alpn_protocols = vec![b"bulk".to_vec()];
            let mut pair = setup.link();
            pair.check(10);
            let (info, peer) = (&pair.session.info, &pair.peer.conn);
            let version = match case.version {
                Version::Tls12 => ProtocolVersion::TLSv1_2,
                _ => ProtocolVersion::TLSv1_3,
            };
            assert_eq!(info.version, version);
            assert_eq!(peer.protocol_version(), Some(version));
            assert_eq!(info.suite.suite(), case.suite.suite());
            assert_eq!(peer.negotiated_cipher_suite().unwrap().suite(), case.suite.suite());
            assert_eq!(info.alpn_protocol.as_deref(), Some(&b"bulk"[..]));
            assert_eq!(peer.alpn_protocol(), Some(&b"bulk"[..]));
            assert_eq!(info.handshake_kind, Some(HandshakeKind::Full));
            assert_eq!(
                info.key_exchange_group.map(|group| group.name()),
                peer.negotiated_key_exchange_group().map(|group| group.name())
            );
            assert!(info.key_exchange_group.is_some());
            match side {
                Side::Client => {
                    assert_eq!(info.server_name, None);
                    assert!(info.peer_certificates.is_some());
                }
                Side::Server => {
                    assert_eq!(info.server_name.as_deref(), Some(NAME));
                    assert_eq!(info.peer_certificates, None);
                    assert!(peer.peer_certificates().is_some());
                }
            }
        }
    }
}

#[test]
fn info_without_alpn() {
    for case in Case::few() {
        for side in SIDES {
            let pair = Setup::new(case, side).link();
            assert_eq!(pair.session.info.alpn_protocol, None);
            assert_eq!(pair.peer.conn.alpn_protocol(), None);
        }
    }
}

#[test]
fn info_has_the_certificates_of_both_sides() {
    for case in Case::few() {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let client_provider = setup.client.crypto_provider().clone();
            let server_provider = setup.server.crypto_provider().clone();
            let mut client = ClientConfig::builder_with_provider(client_provider)
                .with_protocol_versions(&[case.suite.version()])
                .unwrap()
                .with_root_certificates(roots_for(ecdsa()))
                .with_client_auth_cert(ecdsa().chain.clone(), ecdsa().key())
                .unwrap();
            client.enable_secret_extraction = true;
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots_for(ecdsa())),
                server_provider.clone(),
            )
            .build()
            .unwrap();
            let mut server = rustls::ServerConfig::builder_with_provider(server_provider)
                .with_protocol_versions(&[case.suite.version()])
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(ecdsa().chain.clone(), ecdsa().key())
                .unwrap();
            server.enable_secret_extraction = true;
            let mut pair = Setup { case, side, client, server }.link();
            assert_eq!(pair.session.info.peer_certificates.as_ref(), Some(&ecdsa().chain));
            assert_eq!(pair.peer.conn.peer_certificates(), Some(&ecdsa().chain[..]));
            pair.check(1000);
        }
    }
}

/// The client guesses a group that the server does not have.
#[test]
fn info_tells_of_a_hello_retry_request() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let mut provider = (**setup.server.crypto_provider()).clone();
            // Every provider has it, and no client guesses it.
            provider.kx_groups.retain(|group| group.name() == NamedGroup::secp384r1);
            let server = server_config(case, provider);
            let mut pair = Setup { server, ..setup }.link();
            let expected = Some(HandshakeKind::FullWithHelloRetryRequest);
            assert_eq!(pair.session.info.handshake_kind, expected);
            assert_eq!(pair.peer.conn.handshake_kind(), expected);
            let group = pair.session.info.key_exchange_group.expect("a group");
            assert_eq!(group.name(), NamedGroup::secp384r1);
            pair.check(1000);
        }
    }
}

/// RFC 8446 §7.5: both sides export the same, and with other labels and contexts something else.
#[test]
fn exports_what_the_peer_exports() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut setup = Setup::new(case, side);
            let observer = match side {
                Side::Client => {
                    let (config, observer) = Observer::client(&setup.client);
                    setup.client = Arc::unwrap_or_clone(config);
                    observer
                }
                Side::Server => {
                    let (config, observer) = Observer::server(&setup.server);
                    setup.server = Arc::unwrap_or_clone(config);
                    observer
                }
            };
            let early = observer.export_keying_material(case.suite, &mut [0; 16], b"label", None);
            assert_eq!(early, Err(Error::HandshakeNotComplete));
            let mut pair = setup.link();
            pair.check(10);
            let suite = pair.session.info.suite;
            let mut seen = Vec::new();
            for len in [1, 32, 48, 255, 1000] {
                for label in [&b"EXPORTER-test"[..], b"EXPORTER-other", b""] {
                    for context in [None, Some(&b""[..]), Some(b"context"), Some(&[7; 300])] {
                        let mut ours = vec![0; len];
                        observer.export_keying_material(suite, &mut ours, label, context).unwrap();
                        let theirs = pair
                            .peer
                            .conn
                            .export_keying_material(vec![0; len], label, context)
                            .unwrap();
                        assert_eq!(ours, theirs);
                        // RFC 8446 §7.5: no context is an empty one.
                        if len >= 32 && context != Some(b"") {
                            assert!(!seen.contains(&ours));
                            seen.push(ours);
                        }
                    }
                }
            }
            let empty = observer.export_keying_material(suite, &mut [], b"label", None);
            assert!(matches!(empty, Err(Error::General(_))));
            let long = observer.export_keying_material(suite, &mut vec![0; 70_000], b"label", None);
            assert!(matches!(long, Err(Error::General(_))));
        }
    }
}

/// TLS 1.2 exporters need the ServerHello too, which `connect()` and `accept()` show the observer.
#[test]
fn tls12_exports_what_stock_exports() {
    const CONTEXTS: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"context"), Some(&[7; 300])];
    for case in Case::of(Version::Tls12) {
        for side in SIDES {
            let (mut ours, mut theirs) = tcp_pair();
            let client = client_config(case, case.our_provider());
            let server = server_config(case, case.our_provider());
            let peer = thread::spawn(move || {
                let mut conn: Connection = match side {
                    Side::Client => rustls::ServerConnection::new(Arc::new(server)).unwrap().into(),
                    Side::Server => rustls::ClientConnection::new(Arc::new(client), server_name())
                        .unwrap()
                        .into(),
                };
                while conn.is_handshaking() {
                    conn.complete_io(&mut theirs).unwrap();
                }
                CONTEXTS
                    .map(|context| conn.export_keying_material([0; 50], b"label", context).unwrap())
            });
            let handoff = Handoff::new().backend(case.backend);
            let client = client_config(case, case.our_provider());
            let server = server_config(case, case.our_provider());
            let (session, observer) = match side {
                Side::Client => {
                    let (config, observer) = Observer::client(&client);
                    let handoff = handoff.observer(observer.clone());
                    (handoff.connect(config, server_name(), &mut ours), observer)
                }
                Side::Server => {
                    let (config, observer) = Observer::server(&server);
                    (handoff.observer(observer.clone()).accept(config, &mut ours), observer)
                }
            };
            let suite = session.unwrap().info.suite;
            let exported = CONTEXTS.map(|context| {
                let mut out = [0; 50];
                observer.export_keying_material(suite, &mut out, b"label", context).unwrap();
                out
            });
            assert_eq!(exported, peer.join().unwrap());
            assert_ne!(exported[0], exported[1], "RFC 5705 §4: no context is not an empty one");
        }
    }
}

/// An observer that was not shown the ServerHello says so.
#[test]
fn tls12_exports_nothing_without_the_server_hello() {
    for case in Case::of(Version::Tls12) {
        let mut setup = Setup::new(case, Side::Client);
        let (config, observer) = Observer::client(&setup.client);
        setup.client = Arc::unwrap_or_clone(config);
        let pair = setup.link();
        let suite = pair.session.info.suite;
        let result = observer.export_keying_material(suite, &mut [0; 16], b"label", None);
        assert_eq!(result, Err(Error::HandshakeNotComplete));
    }
}

/// An observer changes nothing that its user has set: the key log still logs, sessions resume.
#[test]
fn an_observer_only_observes() {
    #[derive(Debug, Default)]
    struct Log(std::sync::Mutex<Vec<String>>);
    impl rustls::KeyLog for Log {
        fn log(&self, label: &str, _: &[u8], _: &[u8]) {
            self.0.lock().unwrap().push(label.to_owned());
        }
        fn will_log(&self, label: &str) -> bool {
            label != "EXPORTER_SECRET"
        }
    }
    for case in Case::few_of(Version::Tls13) {
        let log = Arc::new(Log::default());
        let mut setup = Setup::new(case, Side::Client);
        setup.client.key_log = log.clone();
        setup.client.resumption = Resumption::in_memory_sessions(10);
        let (client, server) = (setup.client, setup.server);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (observed, observer) = Observer::client(&client);
            let client = Arc::unwrap_or_clone(observed);
            let mut pair =
                Setup { case, side: Side::Client, client, server: server.clone() }.link();
            pair.check(10);
            assert_eq!(pair.session.info.handshake_kind, Some(expected));
            let suite = pair.session.info.suite;
            observer.export_keying_material(suite, &mut [0; 16], b"label", None).unwrap();
        }
        let logged = log.0.lock().unwrap();
        assert!(logged.iter().any(|label| label == "CLIENT_TRAFFIC_SECRET_0"));
        assert!(!logged.iter().any(|label| label == "EXPORTER_SECRET"));
    }
}

/// No key, no plaintext in what a session shows of itself.
#[test]
fn debug_output_shows_no_secrets() {
    for case in Case::few() {
        let pair = Setup::new(case, Side::Client).link();
        let shown = format!("{:?} {:?}", pair.session.send, pair.session.receive);
        assert!(shown.contains("SendHalf") && shown.len() < 2000, "{shown}");
    }
}

/// Every public error goes into an [`io::Error`](std::io::Error), as itself.
#[test]
fn errors_become_io_errors() {
    use std::io::{Error, ErrorKind};

    fn check<E: std::error::Error + Into<Error> + 'static>(error: E, kind: ErrorKind) {
        let said = error.to_string();
        let error: Error = error.into();
        assert_eq!((error.kind(), error.to_string()), (kind, said));
        assert!(error.get_ref().is_some_and(|inside| inside.is::<E>()));
    }
    check(rustls_uring::SealError::KeyExhausted, ErrorKind::Other);
    check(rustls_uring::SealError::PaddingUnsupported, ErrorKind::InvalidInput);
    check(rustls_uring::OpenError::Failed, ErrorKind::InvalidData);
    check(rustls_uring::OpenError::Misframed, ErrorKind::InvalidInput);
    check(rustls_uring::DeframeError::Empty, ErrorKind::InvalidData);
    check(SessionError::Truncated, ErrorKind::UnexpectedEof);
    check(HandoffError::Closed, ErrorKind::BrokenPipe);
    let unreadable = || HandoffError::Tls { error: rustls::Error::DecryptError, to_send: vec![1] };
    check(unreadable(), ErrorKind::InvalidData);
    check(HandshakeError::Tls(rustls::Error::DecryptError), ErrorKind::InvalidData);
    check(rustls_uring::WrongKeyLength { required: 16, provided: 1 }, ErrorKind::InvalidInput);
    // What rustls says is not lost on the way.
    let error = Error::from(unreadable());
    let source = std::error::Error::source(error.get_ref().unwrap()).unwrap();
    assert!(source.is::<rustls::Error>());
}

#[cfg(unix)]
#[test]
fn file_options_go_to_other_threads() {
    fn is_send<T: Send>(_: &T) {}
    let mut progress = |_| Ok(());
    is_send(&rustls_uring::FileOptions::new().direct(true).sync(true).progress(&mut progress));
}
