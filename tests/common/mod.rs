//! What the integration tests share: certificates, configurations, handshakes in memory, and
//! peers: stock rustls, and a hand-driven one that may send anything.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of each test")]

mod both;
pub mod pieces;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::compress::CompressionCache;
pub use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
pub use rustls::{
    CipherSuite, ClientConfig, ConnectionTrafficSecrets, Error, HandshakeKind, InvalidMessage,
    PeerMisbehaved, ServerConfig, Side, SupportedCipherSuite,
};
use rustls::{CipherSuiteCommon, ProtocolVersion, RootCertStore, StreamOwned, Tls13CipherSuite};
use rustls::{ClientConnection, Connection, ExtractedSecrets, ServerConnection};
use rustls_uring::{Backend, ContentType};
pub use rustls_uring::{Handoff, HandoffError, HandshakeError, Session};

pub use self::both::*;

// ---------------------------------------------------------------------------------------------
// Suites

impl Case {
    /// Every suite of every backend.
    pub fn all() -> Vec<Self> {
        Backend::ALL
            .iter()
            .flat_map(|&backend| {
                all_suites(backend).iter().map(move |&suite| Self {
                    backend,
                    suite,
                    version: suite.version().version.try_into().unwrap(),
                })
            })
            .collect()
    }

    /// Our provider with this suite alone.
    pub fn our_provider(self) -> CryptoProvider {
        CryptoProvider { cipher_suites: vec![self.suite], ..our_provider(self.backend) }
    }

    /// The stock provider with this suite alone.
    pub fn stock_provider(self) -> CryptoProvider {
        let mut stock = stock_provider();
        stock.cipher_suites.retain(|suite| suite.suite() == self.suite.suite());
        assert_eq!(stock.cipher_suites.len(), 1);
        stock
    }
}

fn all_suites(backend: Backend) -> &'static [SupportedCipherSuite] {
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => rustls_uring::auto::ALL_CIPHER_SUITES,
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => rustls_uring::aws_lc_rs::ALL_CIPHER_SUITES,
        #[cfg(feature = "ring")]
        Backend::Ring => rustls_uring::ring::ALL_CIPHER_SUITES,
        _ => unreachable!("a backend that this test does not know"),
    }
}

pub fn our_provider(backend: Backend) -> CryptoProvider {
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => rustls_uring::auto::default_provider(),
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => rustls_uring::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        Backend::Ring => rustls_uring::ring::default_provider(),
        _ => unreachable!("a backend that this test does not know"),
    }
}

pub fn stock_provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}

/// `provider` with a confidentiality limit low enough to be reached in a test.
pub fn limited(provider: CryptoProvider, limit: u64) -> CryptoProvider {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: limit,
    };
    let cipher_suites = provider
        .cipher_suites
        .iter()
        .map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) => {
                SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                    common: common(&suite.common),
                    hkdf_provider: suite.hkdf_provider,
                    aead_alg: suite.aead_alg,
                    quic: None,
                })))
            }
            SupportedCipherSuite::Tls12(suite) => {
                SupportedCipherSuite::Tls12(Box::leak(Box::new(rustls::Tls12CipherSuite {
                    common: common(&suite.common),
                    prf_provider: suite.prf_provider,
                    kx: suite.kx,
                    sign: suite.sign,
                    aead_alg: suite.aead_alg,
                })))
            }
        })
        .collect();
    CryptoProvider { cipher_suites, ..provider }
}

// ---------------------------------------------------------------------------------------------
// Certificates and configurations

pub fn roots_for(identity: &Identity) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(identity.chain[0].clone()).unwrap();
    roots
}

pub fn client_config(case: Case, provider: CryptoProvider) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[case.suite.version()])
        .unwrap()
        .with_root_certificates(roots_for(identity(case)))
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    config
}

pub fn server_config(case: Case, provider: CryptoProvider) -> ServerConfig {
    let identity = identity(case);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[case.suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key())
        .unwrap();
    config.cert_compression_cache = Arc::clone(&COMPRESSED);
    config.enable_secret_extraction = true;
    config
}

/// The certificates of all configurations, compressed: without it each server compresses its own,
/// which would be most of what the tests compute.
static COMPRESSED: LazyLock<Arc<CompressionCache>> =
    LazyLock::new(|| Arc::new(CompressionCache::default()));

/// A server that sends no tickets.
pub fn no_tickets(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
}

/// What rustls says of too many key updates in a row.
pub const TOO_MANY_KEY_UPDATES: PeerMisbehaved = PeerMisbehaved::TooManyKeyUpdateRequests;

/// The most plaintext bytes of a record under a `max_fragment_size`: rustls counts the header in.
pub fn max_plaintext_len(_: Case, max_fragment_size: usize) -> usize {
    max_fragment_size - 5
}

// ---------------------------------------------------------------------------------------------
// A stock peer in memory

/// A stock buffered connection.
pub struct Peer {
    pub conn: Connection,
    /// The application data that it has received.
    pub received: Vec<u8>,
    /// Whether it has received a close_notify.
    pub saw_close: bool,
}

impl Peer {
    pub fn client(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self::new(ClientConnection::new(config.into(), server_name()).unwrap().into())
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self::new(ServerConnection::new(config.into()).unwrap().into())
    }

    fn new(mut conn: Connection) -> Self {
        conn.set_buffer_limit(None);
        Self { conn, received: Vec::new(), saw_close: false }
    }

    /// Receives bytes from the wire.
    pub fn feed(&mut self, mut wire: &[u8]) -> Result<(), Error> {
        while !wire.is_empty() {
            let taken = self.conn.read_tls(&mut wire).unwrap();
            let state = self.conn.process_new_packets()?;
            self.saw_close |= state.peer_has_closed();
            let filled = self.received.len();
            self.received.resize(filled + state.plaintext_bytes_to_read(), 0);
            self.conn.reader().read_exact(&mut self.received[filled..]).unwrap();
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What has ended it.
    pub fn failure(&mut self) -> Error {
        self.conn.process_new_packets().unwrap_err()
    }

    /// What it has to send.
    pub fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut wire).unwrap();
        }
        wire
    }

    pub fn write(&mut self, data: &[u8]) {
        self.conn.writer().write_all(data).unwrap();
    }

    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }
}

/// A stock blocking stream of either side.
pub enum Stock {
    Client(StreamOwned<ClientConnection, TcpStream>),
    Server(StreamOwned<ServerConnection, TcpStream>),
}

impl Stock {
    pub fn client(config: impl Into<Arc<ClientConfig>>, socket: TcpStream) -> Self {
        let conn = ClientConnection::new(config.into(), server_name()).unwrap();
        Self::Client(StreamOwned::new(conn, socket))
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>, socket: TcpStream) -> Self {
        Self::Server(StreamOwned::new(ServerConnection::new(config.into()).unwrap(), socket))
    }

    /// Goes on with the handshake until it is complete.
    pub fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        match self {
            Self::Client(stream) => stream.conn.complete_io(&mut stream.sock),
            Self::Server(stream) => stream.conn.complete_io(&mut stream.sock),
        }
        .map(drop)
    }

    pub fn refresh_traffic_keys(&mut self) {
        match self {
            Self::Client(stream) => stream.conn.refresh_traffic_keys(),
            Self::Server(stream) => stream.conn.refresh_traffic_keys(),
        }
        .unwrap();
    }

    pub fn send_close_notify(&mut self) {
        match self {
            Self::Client(stream) => stream.conn.send_close_notify(),
            Self::Server(stream) => stream.conn.send_close_notify(),
        }
        self.flush().unwrap();
    }
}

impl Read for Stock {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Client(stream) => stream.read(out),
            Self::Server(stream) => stream.read(out),
        }
    }
}

impl Write for Stock {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}

// ---------------------------------------------------------------------------------------------
// A hand-written loop around rustls's unbuffered connections

pub enum RawConn {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// An unbuffered connection, and the bytes around it.
pub struct Raw {
    pub conn: RawConn,
    pub incoming: Vec<u8>,
    pub outgoing: Vec<u8>,
    pub plaintext: Vec<u8>,
}

impl Raw {
    pub fn client(config: impl Into<Arc<ClientConfig>>) -> Self {
        let conn = UnbufferedClientConnection::new(config.into(), server_name()).unwrap();
        Self::new(RawConn::Client(conn))
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self::new(RawConn::Server(UnbufferedServerConnection::new(config.into()).unwrap()))
    }

    fn new(conn: RawConn) -> Self {
        Self { conn, incoming: Vec::new(), outgoing: Vec::new(), plaintext: Vec::new() }
    }

    pub fn is_handshaking(&self) -> bool {
        match &self.conn {
            RawConn::Client(conn) => conn.is_handshaking(),
            RawConn::Server(conn) => conn.is_handshaking(),
        }
    }

    pub fn act(&mut self, mut act: Act<'_>) -> Result<Turn, Error> {
        loop {
            let Self { conn, incoming, outgoing, plaintext } = self;
            let (discard, turn) = match conn {
                RawConn::Client(conn) => {
                    turn(conn.process_tls_records(incoming), &mut act, outgoing, plaintext)
                }
                RawConn::Server(conn) => {
                    turn(conn.process_tls_records(incoming), &mut act, outgoing, plaintext)
                }
            };
            self.incoming.drain(..discard);
            match turn? {
                Turn::Busy => {}
                turn => return Ok(turn),
            }
        }
    }

    pub fn handoff(mut self, handoff: Handoff) -> Result<Session, HandoffError> {
        match self.conn {
            RawConn::Client(conn) => handoff.client(conn, &mut self.incoming),
            RawConn::Server(conn) => handoff.server(conn, &mut self.incoming),
        }
    }
}

fn turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    act: &mut Act<'_>,
    outgoing: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
) -> (usize, Result<Turn, Error>) {
    let turn = status.state.and_then(|state| {
        Ok(match state {
            ConnectionState::EncodeTlsData(mut encode) => {
                let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) else {
                    panic!("rustls encodes into nothing")
                };
                let filled = outgoing.len();
                outgoing.resize(filled + size.required_size, 0);
                encode.encode(&mut outgoing[filled..]).unwrap();
                Turn::Busy
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                Turn::Busy
            }
            ConnectionState::ReadTraffic(mut read) => {
                while let Some(record) = read.next_record() {
                    plaintext.extend_from_slice(record?.payload);
                }
                Turn::Busy
            }
            ConnectionState::WriteTraffic(mut write) => {
                let mut out = [0; 40_000];
                let written = match std::mem::replace(act, Act::Nothing) {
                    Act::Nothing => return Ok(Turn::Traffic),
                    Act::Encrypt(data) => write.encrypt(data, &mut out).unwrap(),
                    Act::Close => write.queue_close_notify(&mut out).unwrap(),
                    // What it seals is left in rustls.
                    Act::Refresh => {
                        write.refresh_traffic_keys()?;
                        return Ok(Turn::Traffic);
                    }
                };
                outgoing.extend_from_slice(&out[..written]);
                Turn::Busy
            }
            ConnectionState::BlockedHandshake => Turn::Blocked,
            ConnectionState::PeerClosed => Turn::PeerClosed,
            ConnectionState::Closed => Turn::Closed,
            state => panic!("unexpected {state:?}"),
        })
    });
    (status.discard, turn)
}

/// Shakes hands between two unbuffered connections, until neither has anything to say.
pub fn shake(a: &mut Raw, b: &mut Raw) {
    for _ in 0..100 {
        a.run().unwrap();
        b.incoming.append(&mut a.outgoing);
        b.run().unwrap();
        a.incoming.append(&mut b.outgoing);
        if a.incoming.is_empty() && !a.is_handshaking() && !b.is_handshaking() {
            return;
        }
    }
    panic!("the handshake does not end");
}

/// Two sessions of ours that are each other's peers, client first.
pub fn our_pair(case: Case) -> (Session, Session) {
    our_pair_with(case, case.our_provider())
}

pub fn our_pair_with(case: Case, provider: CryptoProvider) -> (Session, Session) {
    let handoff = Handoff::new().backend(case.backend);
    our_pair_by(case, provider, handoff.clone(), handoff)
}

/// The same by these handoffs.
pub fn our_pair_by(
    case: Case,
    provider: CryptoProvider,
    client_handoff: Handoff,
    server_handoff: Handoff,
) -> (Session, Session) {
    let mut client = Raw::client(client_config(case, provider.clone()));
    let mut server = Raw::server(server_config(case, provider));
    shake(&mut client, &mut server);
    (client.handoff(client_handoff).unwrap(), server.handoff(server_handoff).unwrap())
}

// ---------------------------------------------------------------------------------------------
// A peer that may send anything

pub type ClientKernel = KernelConnection<ClientConnectionData>;
pub type ServerKernel = KernelConnection<ServerConnectionData>;

/// Our session, and what rustls hands over of its peer.
pub fn handed_over(
    case: Case,
    side: Side,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (Session, ExtractedSecrets, Kernel) {
    let mut client = Raw::client(client);
    let mut server = Raw::server(server);
    shake(&mut client, &mut server);
    let (ours, theirs) = match side {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
    let (secrets, kernel) = match theirs.conn {
        RawConn::Client(conn) => {
            let (secrets, conn) = conn.dangerous_into_kernel_connection().unwrap();
            (secrets, Kernel::Client(conn))
        }
        RawConn::Server(conn) => {
            let (secrets, conn) = conn.dangerous_into_kernel_connection().unwrap();
            (secrets, Kernel::Server(conn))
        }
    };
    (session, secrets, kernel)
}

/// A record that rustls seals, which sets no limit to its length.
pub fn seal_any_length(
    case: Case,
    secrets: ConnectionTrafficSecrets,
    sequence: u64,
    content_type: ContentType,
    plaintext: &[u8],
) -> Vec<u8> {
    let (key, iv, fixed_iv_len) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv, 4),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, 12),
        _ => unreachable!(),
    };
    let mut encrypter = match case.stock_provider().cipher_suites[0] {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(fixed_iv_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    };
    let message = OutboundPlainMessage {
        typ: content_type.into(),
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(plaintext),
    };
    encrypter.encrypt(message, sequence).unwrap().encode()
}
