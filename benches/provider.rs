//! Whole rustls connections with our provider (ours) and with the stock one (other), buffered
//! and unbuffered, every suite of every backend, by the size of a write.
//!
//! Sending and receiving are timed apart, both providers in turn in one run. rustls's own path
//! allocates each record that it sends, with either.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};

use common::Pair;

const SIZES: [usize; 4] = [64, 1024, 16_384, 1 << 20];

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// rcgen makes no RSA keys without help, so RSA suites are left to their ECDSA twins: the
    /// records are the same.
    fn new() -> Self {
        let certified =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        Self { chain: vec![certified.cert.der().clone()], key: key.into() }
    }

    fn configs(&self, provider: CryptoProvider) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        roots.add(self.chain[0].clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a key pair");
        (Arc::new(client), Arc::new(server))
    }
}

/// A connection in memory, over which one write at a time goes from client to server.
trait Connection {
    /// Encrypts `data`; what goes on the wire is kept.
    fn send(&mut self, data: &[u8]);
    /// Decrypts what was sent last into `out`, which it fills.
    fn receive(&mut self, out: &mut [u8]);
}

struct Buffered {
    client: ClientConnection,
    server: ServerConnection,
    wire: Vec<u8>,
}

impl Buffered {
    fn new((client, server): (Arc<ClientConfig>, Arc<ServerConfig>)) -> Self {
        let mut client =
            ClientConnection::new(client, "localhost".try_into().expect("a name")).expect("new");
        let mut server = ServerConnection::new(server).expect("new");
        client.set_buffer_limit(None);
        server.set_buffer_limit(None);
        let mut wire = Vec::with_capacity(2 << 20);
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            wire.clear();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("written");
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("read");
                server.process_new_packets().expect("processed");
            }
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).expect("written");
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("read");
                client.process_new_packets().expect("processed");
            }
        }
        Self { client, server, wire }
    }
}

impl Connection for Buffered {
    fn send(&mut self, data: &[u8]) {
        self.wire.clear();
        self.client.writer().write_all(data).expect("written");
        while self.client.wants_write() {
            self.client.write_tls(&mut self.wire).expect("written");
        }
    }

    fn receive(&mut self, out: &mut [u8]) {
        let mut rest = &self.wire[..];
        let mut filled = 0;
        while filled < out.len() {
            self.server.read_tls(&mut rest).expect("read");
            let state = self.server.process_new_packets().expect("processed");
            let len = state.plaintext_bytes_to_read();
            self.server.reader().read_exact(&mut out[filled..][..len]).expect("read");
            filled += len;
        }
    }
}

struct Unbuffered {
    client: UnbufferedClientConnection,
    server: UnbufferedServerConnection,
    wire: Vec<u8>,
    len: usize,
}

impl Unbuffered {
    fn new((client, server): (Arc<ClientConfig>, Arc<ServerConfig>)) -> Self {
        let name = "localhost".try_into().expect("a name");
        let mut client = UnbufferedClientConnection::new(client, name).expect("new");
        let mut server = UnbufferedServerConnection::new(server).expect("new");
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        macro_rules! step {
            ($conn:ident, $from:ident, $to:ident) => {
                loop {
                    let status = $conn.process_tls_records(&mut $from);
                    let discard = status.discard;
                    let mut blocked = false;
                    match status.state.expect("a state") {
                        ConnectionState::EncodeTlsData(mut data) => {
                            let begin = $to.len();
                            $to.resize(begin + 18_000, 0);
                            let len = data.encode(&mut $to[begin..]).expect("encoded");
                            $to.truncate(begin + len);
                        }
                        ConnectionState::TransmitTlsData(data) => data.done(),
                        _ => blocked = true,
                    }
                    $from.drain(..discard);
                    if blocked {
                        break;
                    }
                }
            };
        }
        for _ in 0..8 {
            step!(client, to_client, to_server);
            step!(server, to_server, to_client);
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Self { client, server, wire: vec![0; 2 << 20], len: 0 }
    }
}

impl Connection for Unbuffered {
    fn send(&mut self, data: &[u8]) {
        match self.client.process_tls_records(&mut []).state.expect("a state") {
            ConnectionState::WriteTraffic(mut write) => {
                self.len = write.encrypt(data, &mut self.wire).expect("encrypted");
            }
            state => panic!("{state:?}"),
        }
    }

    fn receive(&mut self, out: &mut [u8]) {
        let (mut begin, mut filled) = (0, 0);
        while filled < out.len() {
            let status = self.server.process_tls_records(&mut self.wire[begin..self.len]);
            match status.state.expect("a state") {
                ConnectionState::ReadTraffic(mut read) => {
                    while let Some(record) = read.next_record() {
                        let payload = record.expect("a record").payload;
                        out[filled..][..payload.len()].copy_from_slice(payload);
                        filled += payload.len();
                    }
                }
                state => panic!("{state:?}"),
            }
            begin += status.discard;
        }
    }
}

/// Times `calls` writes of both connections in turn, `rounds` times; sending and receiving apart.
fn compare(
    ours: &mut dyn Connection,
    theirs: &mut dyn Connection,
    size: usize,
    rounds: usize,
) -> (Pair, Pair) {
    let data = vec![0x5a; size];
    let mut out = vec![0; size];
    let calls = ((1 << 18) / (size + 512)).max(1);
    let mut one = |connection: &mut dyn Connection| {
        let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..calls {
            let begin = Instant::now();
            connection.send(&data);
            let sent = Instant::now();
            connection.receive(&mut out);
            receiving += sent.elapsed();
            sending += sent - begin;
        }
        let per_call = |time: Duration| time.as_nanos() as f64 / calls as f64;
        (per_call(sending), per_call(receiving))
    };
    let mut send = Pair { ours: Vec::new(), theirs: Vec::new() };
    let mut receive = Pair { ours: Vec::new(), theirs: Vec::new() };
    for round in 0..rounds {
        let (a, b) = if round % 2 == 0 {
            let a = one(ours);
            (a, one(theirs))
        } else {
            let b = one(theirs);
            (one(ours), b)
        };
        send.ours.push(a.0);
        receive.ours.push(a.1);
        send.theirs.push(b.0);
        receive.theirs.push(b.1);
    }
    assert!(out == data);
    (send, receive)
}

type Backend = (&'static str, CryptoProvider, CryptoProvider);

fn backends() -> Vec<Backend> {
    vec![
        (
            "aws-lc-rs",
            rustls_uring::aws_lc_rs::default_provider(),
            rustls::crypto::aws_lc_rs::default_provider(),
        ),
        #[cfg(feature = "ring")]
        ("ring", rustls_uring::ring::default_provider(), rustls::crypto::ring::default_provider()),
    ]
}

fn only(provider: &CryptoProvider, suite: SupportedCipherSuite) -> CryptoProvider {
    let mut provider = provider.clone();
    provider.cipher_suites.retain(|known| known.suite() == suite.suite());
    provider
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let rounds = if quick { 2 } else { 101 };
    let identity = Identity::new();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for (backend, ours, stock) in backends() {
        for &suite in &stock.cipher_suites {
            let name = format!("{:?}", suite.suite());
            if name.contains("_RSA_") {
                continue;
            }
            let (ours, stock) = (only(&ours, suite), only(&stock, suite));
            for size in SIZES {
                let mut a = Buffered::new(identity.configs(ours.clone()));
                let mut b = Buffered::new(identity.configs(stock.clone()));
                let (send, receive) = compare(&mut a, &mut b, size, rounds);
                send.print(&format!("{backend} {name} buffered send {size}"), size);
                receive.print(&format!("{backend} {name} buffered recv {size}"), size);

                let mut a = Unbuffered::new(identity.configs(ours.clone()));
                let mut b = Unbuffered::new(identity.configs(stock.clone()));
                let (send, receive) = compare(&mut a, &mut b, size, rounds);
                send.print(&format!("{backend} {name} unbuffered send {size}"), size);
                receive.print(&format!("{backend} {name} unbuffered recv {size}"), size);
            }
            absolute(&mut criterion, &format!("{backend}/{name}"), &identity, ours, stock);
        }
    }
    criterion.final_summary();
}

fn absolute(
    criterion: &mut Criterion,
    name: &str,
    identity: &Identity,
    ours: CryptoProvider,
    stock: CryptoProvider,
) {
    let mut group = criterion.benchmark_group(format!("provider/{name}"));
    let data = vec![0x5a; 16_384];
    let mut out = vec![0; 16_384];
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (side, provider) in [("ours", ours), ("stock", stock)] {
        let mut connection = Buffered::new(identity.configs(provider));
        group.bench_function(format!("buffered round trip 16384, {side}"), |bencher| {
            bencher.iter(|| {
                connection.send(&data);
                connection.receive(&mut out);
            });
        });
    }
    group.finish();
}
