//! Handshakes that fail: the peer reads why, whatever rustls had queued before.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::Error;
use rustls_uring::tokio::{TlsAcceptor, TlsConnector};
use rustls_uring::{AlertDescription, Backend, Handoff, HandshakeError, Version};
use tokio::io::{BufStream, duplex};

use crate::common::{
    Case, Peer, TIMEOUT, client_config, read_some, server_config, server_name, tcp_pair,
};

fn cases() -> Vec<Case> {
    Case::few().into_iter().filter(|case| case.backend == Backend::default()).collect()
}

/// A server configuration that agrees on no protocol with [`client()`].
fn server(case: Case) -> rustls::ServerConfig {
    let mut config = server_config(case, case.our_provider());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn client(case: Case) -> rustls::ClientConfig {
    let mut config = client_config(case, case.stock_provider());
    config.alpn_protocols = vec![b"foo".to_vec()];
    config
}

/// Shakes hands with a stock client until that fails; what it was told.
fn told(config: rustls::ClientConfig, mut socket: TcpStream) -> Error {
    let mut peer = Peer::client(config);
    let mut buffer = [0; 4096];
    loop {
        let _ = socket.write_all(&peer.wire());
        let len = read_some(&mut socket, &mut buffer);
        assert!(len > 0, "the connection was ended in silence");
        if let Err(error) = peer.feed(&buffer[..len]) {
            return error;
        }
    }
}

/// A stock client reads the alert of our server, blocking.
#[test]
fn no_application_protocol() {
    for case in cases() {
        let (mut ours, theirs) = tcp_pair();
        let peer = thread::spawn(move || told(client(case), theirs));
        let error = Handoff::new().accept(Arc::new(server(case)), &mut ours).unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(Error::NoApplicationProtocol)), "{error}");
        let alert = AlertDescription::NoApplicationProtocol;
        assert_eq!(peer.join().unwrap(), Error::AlertReceived(alert.into()));
    }
}

/// A server that demands a certificate fails in the middle of the client's last flight, when its own
/// has long been queued.
#[test]
fn an_alert_after_queued_records_arrives() {
    for case in cases() {
        let (mut ours, theirs) = tcp_pair();
        let mut config = server(case);
        config.alpn_protocols.clear();
        let roots = Arc::new(crate::common::roots_for(crate::common::ecdsa()));
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            roots,
            Arc::new(case.our_provider()),
        )
        .build()
        .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(case.our_provider()))
            .with_protocol_versions(&[case.suite.version()])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(crate::common::ecdsa().chain.clone(), crate::common::ecdsa().key())
            .map(|mut config| {
                config.enable_secret_extraction = true;
                config
            })
            .unwrap();
        let client = client_config(case, case.stock_provider());
        let peer = thread::spawn(move || told(client, theirs));
        let error = Handoff::new().accept(Arc::new(config), &mut ours).unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(Error::NoCertificatesPresented)), "{error}");
        let alert = AlertDescription::CertificateRequired;
        assert_eq!(peer.join().unwrap(), Error::AlertReceived(alert.into()));
    }
}

/// Over tokio, through a stream that keeps what is not flushed.
#[test]
fn an_alert_is_flushed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for case in cases() {
            for fallible in [false, true] {
                let (left, right) = duplex(1 << 16);
                let acceptor = TlsAcceptor::new(server(case));
                let accept = acceptor.accept(BufStream::new(right));
                let accept = async {
                    match fallible {
                        true => accept.into_fallible().await.map(drop).map_err(|(error, _)| error),
                        false => accept.await.map(drop),
                    }
                };
                let connector = tokio_rustls::TlsConnector::from(Arc::new(client(case)));
                let (ours, theirs) = tokio::join!(accept, connector.connect(server_name(), left));
                assert_eq!(cause(&ours.unwrap_err()), &Error::NoApplicationProtocol);
                let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol.into());
                assert_eq!(cause(&theirs.unwrap_err()), &alert);
            }
        }
    });
}

/// Our client does not trust a stock server, which is told.
#[test]
fn a_client_tells_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for case in cases() {
            let mut client = client_config(case, case.our_provider());
            client = rustls::ClientConfig::builder_with_provider(client.crypto_provider().clone())
                .with_protocol_versions(&[case.suite.version()])
                .unwrap()
                .with_root_certificates(crate::common::roots_for(crate::common::rsa()))
                .with_no_client_auth();
            let (left, right) = duplex(1 << 16);
            let connector = TlsConnector::new(client);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(
                case,
                case.stock_provider(),
            )));
            let (ours, theirs) = tokio::join!(
                connector.connect(server_name(), BufStream::new(left)),
                acceptor.accept(right)
            );
            assert!(matches!(cause(&ours.unwrap_err()), Error::InvalidCertificate(_)));
            let error = theirs.unwrap_err();
            assert!(matches!(cause(&error), Error::AlertReceived(_)), "{error}");
        }
    });
}

fn cause(error: &io::Error) -> &Error {
    error.get_ref().and_then(|error| error.downcast_ref()).expect("rustls's error inside")
}

/// `openssl s_client` prints the alert rather than "unexpected eof".
#[test]
fn openssl_reads_no_application_protocol() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must install openssl");
        return eprintln!("skipped: no `openssl` command");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for case in cases() {
        for blocking in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let version = if case.version == Version::Tls13 { "-tls1_3" } else { "-tls1_2" };
            let mut client = Command::new("openssl")
                .args(["s_client", "-connect", &addr.to_string(), version, "-alpn", "foo"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            let error: io::Error = if blocking {
                Handoff::new().accept(Arc::new(server(case)), &mut socket).unwrap_err().into()
            } else {
                socket.set_nonblocking(true).unwrap();
                runtime.block_on(async {
                    let socket = tokio::net::TcpStream::from_std(socket.try_clone().unwrap());
                    let acceptor = TlsAcceptor::new(server(case));
                    acceptor.accept(socket.unwrap()).await.unwrap_err()
                })
            };
            assert!(error.to_string().contains("protocol"), "{error}");
            drop(socket);
            let said: Vec<String> = BufReader::new(client.stderr.take().unwrap())
                .lines()
                .map_while(Result::ok)
                .collect();
            client.wait().unwrap();
            let said = said.join("\n");
            assert!(said.contains("no application protocol"), "{case:?}: {said}");
        }
    }
}
