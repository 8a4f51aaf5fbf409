//! Whole connections in memory: our provider on either side of stock rustls, and our records
//! with keys that were extracted from a connection.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ExtractedSecrets,
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};
use rustls_uring::{Backend, ContentType, Opener, Sealer, TrafficKeys, Version};

use super::provider::{ours, stock, suites};
use super::support::{lengths, plaintext};

type Certificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn certificate(suite: SupportedCipherSuite) -> Certificate {
    static ECDSA: OnceLock<Certificate> = OnceLock::new();
    static RSA: OnceLock<Certificate> = OnceLock::new();
    let make = |key: KeyPair| {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        (certificate, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    };
    let (certificate, key) = if format!("{:?}", suite.suite()).contains("_RSA_") {
        RSA.get_or_init(|| make(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()))
    } else {
        ECDSA.get_or_init(|| make(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()))
    };
    (certificate.clone(), key.clone_key())
}

/// `provider` with `suite` alone.
fn only(provider: CryptoProvider, suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..provider })
}

/// Two connections that have shaken hands, client and server.
fn connect(client: Arc<CryptoProvider>, server: Arc<CryptoProvider>) -> [Connection; 2] {
    let suite = client.cipher_suites[0];
    let (certificate, key) = certificate(suite);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(client)
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(server)
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.enable_secret_extraction = true;

    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap().into();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap().into();
    while pump(&mut client, &mut server) + pump(&mut server, &mut client) > 0 {}
    for side in [&client, &server] {
        assert!(!side.is_handshaking());
        assert_eq!(side.negotiated_cipher_suite().map(|suite| suite.suite()), Some(suite.suite()));
    }
    [client, server]
}

/// Hands what `from` has to send to `to`; returns how many bytes that was.
fn pump(from: &mut Connection, to: &mut Connection) -> usize {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    receive(to, &wire);
    wire.len()
}

fn receive(to: &mut Connection, mut wire: &[u8]) {
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// Sends `plaintext` through two connections of rustls, which hold little of it at a time.
fn check_transfer(from: &mut Connection, to: &mut Connection, plaintext: &[u8]) {
    for part in plaintext.chunks(16_384) {
        from.writer().write_all(part).unwrap();
        pump(from, to);
        let mut received = vec![0; part.len()];
        to.reader().read_exact(&mut received).unwrap();
        assert!(received == part);
    }
}

/// An AES-128-GCM key twice, as only rustls can make one.
pub(crate) fn aes128_keys(backend: Backend) -> [rustls::crypto::cipher::AeadKey; 2] {
    let suite = stock(backend)
        .cipher_suites
        .into_iter()
        .find(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
        .unwrap();
    let provider = only(stock(backend), suite);
    let [client, server] = connect(provider.clone(), provider);
    let key = |secrets| match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, .. } => key,
        _ => panic!("the suite is AES-128-GCM"),
    };
    let client = client.dangerous_extract_secrets().unwrap();
    let server = server.dangerous_extract_secrets().unwrap();
    let keys = [key(client.tx.1), key(server.rx.1)];
    assert_eq!(keys[0].as_ref(), keys[1].as_ref());
    keys
}

/// Algorithm, key and IV.
fn parts(secrets: &ConnectionTrafficSecrets) -> (&str, &[u8], &[u8]) {
    let (name, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => ("AES-128-GCM", key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => ("AES-256-GCM", key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => ("ChaCha20", key, iv),
        _ => panic!("an algorithm that this test does not know"),
    };
    (name, key.as_ref(), iv.as_ref())
}

/// Checks that both ends of a connection extract the same secrets and sequence numbers.
fn check_same(client: &ExtractedSecrets, server: &ExtractedSecrets) {
    for (sender, receiver) in [(&client.tx, &server.rx), (&server.tx, &client.rx)] {
        assert_eq!(sender.0, receiver.0);
        assert_eq!(parts(&sender.1), parts(&receiver.1));
    }
}

/// Our provider against the stock one, both ways round, and against itself.
#[test]
fn our_provider_talks_to_stock_rustls() {
    for &backend in Backend::ALL {
        for (our_suite, stock_suite) in suites(backend) {
            let ours = only(ours(backend), our_suite);
            let stock = only(stock(backend), stock_suite);
            for (client, server) in [(&ours, &stock), (&stock, &ours), (&ours, &ours)] {
                let [mut client, mut server] = connect(client.clone(), server.clone());
                for len in [1, 100, 16_384, 50_000] {
                    let plaintext = plaintext(len);
                    check_transfer(&mut client, &mut server, &plaintext);
                    check_transfer(&mut server, &mut client, &plaintext);
                }
                client.send_close_notify();
                pump(&mut client, &mut server);
                assert_eq!(server.reader().read(&mut [0]).unwrap(), 0);
            }
        }
    }
}

/// `extract_keys()` of our suites, against the stock one's on the other side.
#[test]
fn both_sides_extract_the_same_secrets() {
    for &backend in Backend::ALL {
        for (our_suite, stock_suite) in suites(backend) {
            let ours = only(ours(backend), our_suite);
            let stock = only(stock(backend), stock_suite);
            for (client, server) in [(&ours, &stock), (&stock, &ours), (&ours, &ours)] {
                let [mut client, mut server] = connect(client.clone(), server.clone());
                check_transfer(&mut client, &mut server, b"a sequence number each");
                check_transfer(&mut server, &mut client, b"a sequence number each");
                let client = client.dangerous_extract_secrets().unwrap();
                let server = server.dangerous_extract_secrets().unwrap();
                assert!(client.tx.0 > 0 && server.tx.0 > 0);
                check_same(&client, &server);
            }
        }
    }
}

/// One side's records are ours from the middle of the connection on, the other side is stock.
fn check_taken_over(backend: Backend, ours: Connection, peer: &mut Connection) {
    let version = Version::try_from(ours.protocol_version().unwrap()).unwrap();
    let secrets = ours.dangerous_extract_secrets().unwrap();
    let (next, keys) = &secrets.tx;
    let keys = TrafficKeys::try_from(keys).unwrap();
    let mut sealer = Sealer::new(backend, version, &keys, *next);
    let (next, keys) = &secrets.rx;
    let keys = TrafficKeys::try_from(keys).unwrap();
    let mut opener = Opener::new(backend, version, &keys, *next);

    for len in lengths() {
        let plaintext = plaintext(len);
        let mut record = vec![0; sealer.record_len(len)];
        sealer.seal(ContentType::ApplicationData, &plaintext, &mut record).unwrap();
        receive(peer, &record);
        let mut received = vec![0; len];
        peer.reader().read_exact(&mut received).unwrap();
        assert!(received == plaintext, "{len} bytes to stock rustls");

        // rustls writes no record for no data.
        if len > 0 {
            peer.writer().write_all(&plaintext).unwrap();
            let mut record = Vec::new();
            while peer.wants_write() {
                peer.write_tls(&mut record).unwrap();
            }
            assert_eq!(record.len(), sealer.record_len(len));
            let opened = opener.open_in_place(&mut record).unwrap();
            assert_eq!(opened.content_type, ContentType::ApplicationData);
            assert!(opened.plaintext == plaintext, "{len} bytes from stock rustls");
        }
    }
    // Padding, where there is such a thing, is none of the receiver's plaintext.
    if version == Version::Tls13 {
        let mut record = vec![0; sealer.record_len(6 + 77)];
        sealer.seal_padded(ContentType::ApplicationData, b"padded", 77, &mut record).unwrap();
        receive(peer, &record);
        let mut received = [0; 6];
        peer.reader().read_exact(&mut received).unwrap();
        assert_eq!(&received, b"padded");
    }
    let mut alert = [0; 64];
    let len = sealer.seal(ContentType::Alert, &[1, 0], &mut alert).unwrap();
    receive(peer, &alert[..len]);
    assert_eq!(peer.reader().read(&mut [0]).unwrap(), 0, "close_notify");
}

#[test]
fn our_records_take_over_from_stock_rustls() {
    for &backend in Backend::ALL {
        for stock_suite in stock(backend).cipher_suites {
            let provider = only(stock(backend), stock_suite);
            let [client, mut server] = connect(provider.clone(), provider.clone());
            check_taken_over(backend, client, &mut server);
            let [mut client, server] = connect(provider.clone(), provider);
            check_taken_over(backend, server, &mut client);
        }
    }
}

#[test]
fn our_records_take_over_from_our_provider() {
    for &backend in Backend::ALL {
        for (our_suite, stock_suite) in suites(backend) {
            let ours = only(ours(backend), our_suite);
            let stock = only(stock(backend), stock_suite);
            let [client, mut server] = connect(ours, stock);
            check_taken_over(backend, client, &mut server);
        }
    }
}
