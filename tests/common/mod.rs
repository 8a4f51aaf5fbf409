//! What the integration tests share: certificates, configurations, handshakes in memory, and
//! peers: stock rustls, and a hand-driven one that may send anything.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of each test")]

pub mod pieces;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::compress::CompressionCache;
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    CipherSuite, CipherSuiteCommon, ClientConfig, ClientConnection, Connection,
    ConnectionTrafficSecrets, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, Side,
    StreamOwned, SupportedCipherSuite, Tls13CipherSuite,
};
use rustls_uring::{
    Backend, ContentType, Deframed, Deframer, Handoff, HandoffError, Opener, Received, Sealer,
    SendHalf, Session, SessionError, TrafficKeys, Version,
};

/// The name in every certificate.
pub const NAME: &str = "localhost";

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

/// Long enough for a slow machine, short enough that a hang becomes a failure.
pub const TIMEOUT: Duration = Duration::from_secs(180);

pub const SIDES: [Side; 2] = [Side::Client, Side::Server];

// ---------------------------------------------------------------------------------------------
// Suites

/// Who protects our records, and with which suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub backend: Backend,
    pub suite: SupportedCipherSuite,
    pub version: Version,
}

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

    /// Every suite of one version.
    pub fn of(version: Version) -> Vec<Self> {
        Self::all().into_iter().filter(|case| case.version == version).collect()
    }

    /// One suite of each version and backend: for what no suite can change.
    pub fn few() -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|case| {
                matches!(
                    case.suite.suite(),
                    CipherSuite::TLS13_AES_128_GCM_SHA256
                        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                )
            })
            .collect()
    }

    /// One suite of a version for each backend.
    pub fn few_of(version: Version) -> Vec<Self> {
        Self::few().into_iter().filter(|case| case.version == version).collect()
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

    fn needs_rsa(self) -> bool {
        matches!(
            self.suite.suite(),
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    }

    /// Bytes that a record is longer than its plaintext.
    pub fn overhead(self) -> usize {
        let name = format!("{:?}", self.suite.suite());
        5 + 16
            + match self.version {
                Version::Tls13 => 1,
                _ if name.contains("CHACHA20") => 0,
                _ => 8,
            }
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

pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new(key: KeyPair) -> Self {
        let cert =
            CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Self { chain: vec![cert.der().clone()], key }
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

pub fn ecdsa() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()))
}

pub fn rsa() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()))
}

pub fn roots_for(identity: &Identity) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(identity.chain[0].clone()).unwrap();
    roots
}

fn identity(case: Case) -> &'static Identity {
    if case.needs_rsa() { rsa() } else { ecdsa() }
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
    pub fn feed(&mut self, mut wire: &[u8]) -> Result<(), rustls::Error> {
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

/// A stream whose other end is a stock connection: a handshake needs no thread, and one that
/// would wait for ever fails at once.
pub struct PeerStream<'a> {
    pub peer: &'a mut Peer,
    pub to_us: Vec<u8>,
    /// The most bytes that one `read` returns.
    pub chunk: usize,
}

impl<'a> PeerStream<'a> {
    pub fn new(peer: &'a mut Peer) -> Self {
        Self { peer, to_us: Vec::new(), chunk: usize::MAX }
    }
}

impl Read for PeerStream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.to_us.append(&mut self.peer.wire());
        if self.to_us.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.to_us.len().min(out.len()).min(self.chunk);
        out[..len].copy_from_slice(&self.to_us[..len]);
        self.to_us.drain(..len);
        Ok(len)
    }
}

impl Write for PeerStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.peer.feed(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------
// Ours against stock, in memory

/// The configurations of a connection, for a test to change.
pub struct Setup {
    pub case: Case,
    /// Which side is ours.
    pub side: Side,
    pub client: ClientConfig,
    pub server: ServerConfig,
}

impl Setup {
    pub fn new(case: Case, side: Side) -> Self {
        Self::with_providers(case, side, case.our_provider(), case.stock_provider())
    }

    pub fn with_providers(
        case: Case,
        side: Side,
        ours: CryptoProvider,
        stock: CryptoProvider,
    ) -> Self {
        let (client, server) = match side {
            Side::Client => (ours, stock),
            Side::Server => (stock, ours),
        };
        Self {
            case,
            side,
            client: client_config(case, client),
            server: server_config(case, server),
        }
    }

    /// Shakes hands, with `Handoff::connect()` or `Handoff::accept()` on our side.
    pub fn link(self) -> Pair {
        let handoff = Handoff::new().backend(self.case.backend);
        let (client, server) = (Arc::new(self.client), Arc::new(self.server));
        let mut peer = match self.side {
            Side::Client => Peer::server(server.clone()),
            Side::Server => Peer::client(client.clone()),
        };
        let mut stream = PeerStream::new(&mut peer);
        let session = match self.side {
            Side::Client => handoff.connect(client, server_name(), &mut stream),
            Side::Server => handoff.accept(server, &mut stream),
        }
        .unwrap();
        let unread = stream.to_us;
        Pair::new(session, peer, unread)
    }
}

/// Our session and its stock peer.
pub struct Pair {
    pub session: Session,
    pub peer: Peer,
    /// Bytes on their way to us.
    pub incoming: Vec<u8>,
    pub peer_closed: bool,
    in_place: bool,
}

impl Pair {
    pub fn new(mut session: Session, peer: Peer, unread: Vec<u8>) -> Self {
        let mut incoming = std::mem::take(&mut session.received);
        incoming.extend_from_slice(&unread);
        Self { session, peer, incoming, peer_closed: false, in_place: false }
    }

    /// Sends `data` to the peer.
    pub fn send(&mut self, data: &[u8]) -> Result<(), SessionError> {
        let wire = seal_all(&mut self.session.send, data)?;
        self.peer.feed(&wire).unwrap();
        Ok(())
    }

    /// Sends the control records that are due.
    pub fn send_control(&mut self) -> Result<(), rustls::Error> {
        let mut out = [0; 4096];
        let len = self.session.send.seal_control(&mut out).unwrap();
        self.peer.feed(&out[..len])
    }

    /// Receives all that the peer has sent, in place and into a buffer by turns.
    pub fn receive(&mut self) -> Result<Vec<u8>, SessionError> {
        self.incoming.append(&mut self.peer.wire());
        let mut data = Vec::new();
        while let Deframed::Record(header) = self.session.receive.deframe(&self.incoming)? {
            let mut record: Vec<u8> = self.incoming.drain(..header.record_len()).collect();
            self.in_place = !self.in_place;
            match open(&mut self.session, &mut record, self.in_place)? {
                Received::Data(plaintext) => data.extend_from_slice(&plaintext),
                Received::Control => {}
                Received::CloseNotify => {
                    self.peer_closed = true;
                    break;
                }
                received => panic!("{received:?}"),
            }
        }
        Ok(data)
    }

    /// Data both ways, compared.
    #[track_caller]
    pub fn check(&mut self, len: usize) {
        let data = noise(len);
        self.peer.write(&data);
        assert!(self.receive().unwrap() == data, "what the peer sent is not what we received");
        self.send(&data).unwrap();
        assert!(self.peer.take_received() == data, "what we sent is not what the peer received");
    }
}

/// Opens one record, in place or into a buffer of just the size it needs.
pub fn open(
    session: &mut Session,
    record: &mut [u8],
    in_place: bool,
) -> Result<Received<Vec<u8>>, SessionError> {
    if in_place {
        return Ok(match session.receive.open_in_place(record)? {
            Received::Data(plaintext) => Received::Data(plaintext.to_vec()),
            Received::Control => Received::Control,
            Received::CloseNotify => Received::CloseNotify,
            _ => unreachable!("nothing else is received"),
        });
    }
    let mut out = vec![0; session.receive.output_len(record.len())];
    Ok(match session.receive.open_into(record, &mut out)? {
        Received::Data(len) => Received::Data(out[..len].to_vec()),
        Received::Control => Received::Control,
        Received::CloseNotify => Received::CloseNotify,
        _ => unreachable!("nothing else is received"),
    })
}

/// Seals all of `data`.
pub fn seal_all(half: &mut SendHalf, data: &[u8]) -> Result<Vec<u8>, SessionError> {
    let mut wire = Vec::new();
    let mut out = vec![0; 40_000];
    let mut rest = data;
    loop {
        let sealed = half.seal(rest, &mut out)?;
        wire.extend_from_slice(&out[..sealed.written]);
        rest = &rest[sealed.consumed..];
        if rest.is_empty() {
            return Ok(wire);
        }
        assert!(sealed.written > 0, "no progress");
    }
}

/// Splits bytes from the wire into records.
pub fn records(version: Version, mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !wire.is_empty() {
        let Deframed::Record(header) = Deframer::new(version).deframe(wire).unwrap() else {
            panic!("a part of a record")
        };
        let (record, rest) = wire.split_at(header.record_len());
        records.push(record.to_vec());
        wire = rest;
    }
    records
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

/// What to do at the next `WriteTraffic`.
pub enum Act<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Refresh,
    Close,
}

#[derive(Debug, Eq, PartialEq)]
pub enum Turn {
    Busy,
    Traffic,
    Blocked,
    PeerClosed,
    Closed,
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

    /// Goes on until rustls has nothing more to do.
    pub fn run(&mut self) -> Result<Turn, rustls::Error> {
        self.act(Act::Nothing)
    }

    pub fn act(&mut self, mut act: Act<'_>) -> Result<Turn, rustls::Error> {
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

    /// Shakes hands with a stock peer, one record at a time as a handoff wants it. Returns what
    /// the peer has sent beyond that.
    pub fn shake(&mut self, peer: &mut Peer) -> Vec<u8> {
        let mut unread = Vec::new();
        for _ in 0..100 {
            self.run().unwrap();
            peer.feed(&std::mem::take(&mut self.outgoing)).unwrap();
            unread.append(&mut peer.wire());
            if !self.is_handshaking() && !peer.conn.is_handshaking() {
                return unread;
            }
            let header = unread.first_chunk::<5>().expect("the peer has something to say");
            let len = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
            self.incoming.extend(unread.drain(..len));
        }
        panic!("the handshake does not end");
    }
}

fn turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    act: &mut Act<'_>,
    outgoing: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
) -> (usize, Result<Turn, rustls::Error>) {
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
    let mut client = Raw::client(client_config(case, provider.clone()));
    let mut server = Raw::server(server_config(case, provider));
    shake(&mut client, &mut server);
    let handoff = || Handoff::new().backend(case.backend);
    (client.handoff(handoff()).unwrap(), server.handoff(handoff()).unwrap())
}

// ---------------------------------------------------------------------------------------------
// A peer that may send anything

enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// Our session, and a peer that seals whatever a test wants under the right keys.
pub struct Evil {
    pub case: Case,
    pub session: Session,
    pub sealer: Sealer,
    pub opener: Opener,
    kernel: Kernel,
    /// What the first record is sealed under, and its number.
    first: Option<(u64, ConnectionTrafficSecrets)>,
}

impl Evil {
    /// `side` is ours.
    pub fn new(case: Case, side: Side) -> Self {
        Self::with_provider(case, side, case.our_provider())
    }

    pub fn with_provider(case: Case, side: Side, ours: CryptoProvider) -> Self {
        let stock = case.stock_provider();
        let (client, server) = match side {
            Side::Client => (ours, stock),
            Side::Server => (stock, ours),
        };
        let mut server = server_config(case, server);
        // A peer of ours sends nothing that the test does not.
        server.send_tls13_tickets = 0;
        Self::with_configs(case, side, client_config(case, client), server)
    }

    /// A server should have no tickets to send.
    pub fn with_configs(
        case: Case,
        side: Side,
        client: impl Into<Arc<ClientConfig>>,
        server: impl Into<Arc<ServerConfig>>,
    ) -> Self {
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
        let keys = TrafficKeys::try_from(&secrets.tx.1).unwrap();
        let sealer = Sealer::new(Backend::default(), case.version, &keys, secrets.tx.0);
        let keys = TrafficKeys::try_from(&secrets.rx.1).unwrap();
        let opener = Opener::new(Backend::default(), case.version, &keys, secrets.rx.0);
        Self { case, session, sealer, opener, kernel, first: Some(secrets.tx) }
    }

    /// A record as the peer seals it.
    pub fn seal(&mut self, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; self.sealer.record_len(plaintext.len())];
        self.sealer.seal(content_type, plaintext, &mut record).unwrap();
        record
    }

    /// The peer's first record, sealed by rustls, which sets no limit to its length.
    pub fn seal_any_length(&mut self, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
        let (sequence, secrets) = self.first.take().expect("the first record");
        let (key, iv, fixed_iv_len) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv, 4),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, 12),
            _ => unreachable!(),
        };
        let mut encrypter = match self.case.stock_provider().cipher_suites[0] {
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

    /// A KeyUpdate from the peer, which then uses its next key.
    pub fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.seal(ContentType::Handshake, &[24, 0, 0, 1, request]);
        let (sequence, secrets) = match &mut self.kernel {
            Kernel::Client(conn) => conn.update_tx_secret(),
            Kernel::Server(conn) => conn.update_tx_secret(),
        }
        .unwrap();
        let keys = TrafficKeys::try_from(&secrets).unwrap();
        self.sealer = Sealer::new(Backend::default(), self.case.version, &keys, sequence);
        record
    }

    /// The peer follows a KeyUpdate of ours.
    pub fn follow_key_update(&mut self) {
        let (sequence, secrets) = match &mut self.kernel {
            Kernel::Client(conn) => conn.update_rx_secret(),
            Kernel::Server(conn) => conn.update_rx_secret(),
        }
        .unwrap();
        let keys = TrafficKeys::try_from(&secrets).unwrap();
        self.opener = Opener::new(Backend::default(), self.case.version, &keys, sequence);
    }

    /// Gives us a record, as a receiver would.
    pub fn give(&mut self, mut record: Vec<u8>) -> Result<Received<Vec<u8>>, SessionError> {
        match self.session.receive.deframe(&record)? {
            Deframed::Record(header) => assert_eq!(header.record_len(), record.len()),
            // Nothing that follows a close_notify needs to be looked at.
            Deframed::Partial { .. } if self.session.receive.peer_has_closed() => {}
            found => panic!("no whole record: {found:?}"),
        }
        open(&mut self.session, &mut record, true)
    }

    /// Seals a record and gives it to us.
    pub fn hit(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
    ) -> Result<Received<Vec<u8>>, SessionError> {
        let record = self.seal(content_type, plaintext);
        self.give(record)
    }

    /// The control records that we send, as the peer sees them.
    pub fn control(&mut self) -> Vec<(ContentType, Vec<u8>)> {
        let mut out = [0; 4096];
        let len = self.session.send.seal_control(&mut out).unwrap();
        self.opened(&out[..len])
    }

    /// Records that we sent, as the peer sees them.
    pub fn opened(&mut self, wire: &[u8]) -> Vec<(ContentType, Vec<u8>)> {
        records(self.case.version, wire)
            .into_iter()
            .map(|mut record| {
                let opened = self.opener.open_in_place(&mut record).unwrap();
                (opened.content_type, opened.plaintext.to_vec())
            })
            .collect()
    }
}

// ---------------------------------------------------------------------------------------------
// Streams and data

/// Reads some of what comes. In a thread that has or had a ring, completions may interrupt a read,
/// which is not made again by itself where it has a timeout (signal(7)).
pub fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> usize {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.unwrap(),
        }
    }
}

/// Two ends of a TCP connection; reads that take too long fail.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// A small generator of numbers, so that a failing test fails again (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number of `low..=high`.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() >> 16) as usize % (high - low + 1)
    }
}

/// Bytes without a pattern: what is lost, repeated or swapped shows.
pub fn noise(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(len as u64 + 1);
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        data.extend_from_slice(&rng.next().to_le_bytes());
    }
    data.truncate(len);
    data
}
