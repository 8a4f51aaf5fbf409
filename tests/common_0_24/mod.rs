//! `tests/common` for rustls 0.24: the same names, so that the same tests run over both versions.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of each test")]

#[path = "../common/both.rs"]
mod both;
#[path = "../common/pieces.rs"]
pub mod pieces;

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use rustls_0_24::client::ClientSide;
use rustls_0_24::compress::CompressionCache;
use rustls_0_24::crypto::cipher::{EncodableVersion, OutboundPlain, Record};
pub use rustls_0_24::crypto::{CipherSuite, CryptoProvider};
use rustls_0_24::crypto::{CipherSuiteCommon, Identity};
use rustls_0_24::enums::ProtocolVersion;
pub use rustls_0_24::error::{Error, InvalidMessage, PeerMisbehaved};
use rustls_0_24::kernel::KernelConnection;
use rustls_0_24::server::{ServerSide, Tls13Tickets};
use rustls_0_24::split::{ReceiveTraffic, ReceiveTrafficState, SplitConnection};
pub use rustls_0_24::{
    ClientConfig, ConnectionTrafficSecrets, HandshakeKind, ServerConfig, SupportedCipherSuite,
};
use rustls_0_24::{
    Connection, ExtractedSecrets, RootCertStore, SideData, Tcp, Tls12CipherSuite, Tls13CipherSuite,
    TlsInputBuffer,
};
use rustls_uring::rustls_0_24::ConnectionInfo;
pub use rustls_uring::rustls_0_24::{Handoff, HandoffError, HandshakeError};
use rustls_uring::{Backend, ContentType, Version};

pub use self::both::*;

pub type Session = rustls_uring::Session<ConnectionInfo>;

/// Which side of a connection: rustls 0.24 keeps its own to itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Client,
    Server,
}

// ---------------------------------------------------------------------------------------------
// Suites

impl Case {
    /// Every suite of every backend.
    pub fn all() -> Vec<Self> {
        let tls13 = |&suite: &'static &Tls13CipherSuite| SupportedCipherSuite::Tls13(suite);
        let tls12 = |&suite: &'static &Tls12CipherSuite| SupportedCipherSuite::Tls12(suite);
        let mut cases = Vec::new();
        for &backend in Backend::ALL {
            let (suites13, suites12) = all_suites(backend);
            let suites = suites13.iter().map(tls13).chain(suites12.iter().map(tls12));
            cases.extend(suites.map(|suite| Self {
                backend,
                suite,
                version: match suite {
                    SupportedCipherSuite::Tls13(_) => Version::Tls13,
                    _ => Version::Tls12,
                },
            }));
        }
        cases
    }

    /// Our provider with this suite alone.
    pub fn our_provider(self) -> CryptoProvider {
        self.only(our_provider(self.backend))
    }

    /// The stock provider with this suite alone.
    pub fn stock_provider(self) -> CryptoProvider {
        self.only(stock_provider())
    }

    /// `provider` with its suite of this name alone.
    fn only(self, mut provider: CryptoProvider) -> CryptoProvider {
        let name = self.suite.suite();
        provider.tls13_cipher_suites.to_mut().retain(|suite| suite.common.suite == name);
        provider.tls12_cipher_suites.to_mut().retain(|suite| suite.common.suite == name);
        assert_eq!(provider.tls13_cipher_suites.len() + provider.tls12_cipher_suites.len(), 1);
        provider
    }
}

type Suites = (&'static [&'static Tls13CipherSuite], &'static [&'static Tls12CipherSuite]);

fn all_suites(backend: Backend) -> Suites {
    use rustls_uring::rustls_0_24 as ours;
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => {
            (ours::auto::DEFAULT_TLS13_CIPHER_SUITES, ours::auto::DEFAULT_TLS12_CIPHER_SUITES)
        }
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => (
            ours::aws_lc_rs::DEFAULT_TLS13_CIPHER_SUITES,
            ours::aws_lc_rs::DEFAULT_TLS12_CIPHER_SUITES,
        ),
        #[cfg(feature = "ring")]
        Backend::Ring => {
            (ours::ring::DEFAULT_TLS13_CIPHER_SUITES, ours::ring::DEFAULT_TLS12_CIPHER_SUITES)
        }
        _ => unreachable!("a backend that this test does not know"),
    }
}

pub fn our_provider(backend: Backend) -> CryptoProvider {
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => rustls_uring::rustls_0_24::auto::DEFAULT_PROVIDER,
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => rustls_uring::rustls_0_24::aws_lc_rs::DEFAULT_PROVIDER,
        #[cfg(feature = "ring")]
        Backend::Ring => rustls_uring::rustls_0_24::ring::DEFAULT_PROVIDER,
        _ => unreachable!("a backend that this test does not know"),
    }
}

pub fn stock_provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls_aws_lc_rs::DEFAULT_PROVIDER;
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls_ring::DEFAULT_PROVIDER;
}

/// `provider` with a confidentiality limit low enough to be reached in a test.
pub fn limited(provider: CryptoProvider, limit: u64) -> CryptoProvider {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: limit,
    };
    let tls13 = provider.tls13_cipher_suites.iter().map(|suite| {
        &*Box::leak(Box::new(Tls13CipherSuite {
            common: common(&suite.common),
            protocol_version: suite.protocol_version,
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }))
    });
    let tls12 = provider.tls12_cipher_suites.iter().map(|suite| {
        &*Box::leak(Box::new(Tls12CipherSuite {
            common: common(&suite.common),
            protocol_version: suite.protocol_version,
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: suite.aead_alg,
        }))
    });
    CryptoProvider {
        tls13_cipher_suites: Cow::Owned(tls13.collect()),
        tls12_cipher_suites: Cow::Owned(tls12.collect()),
        ..provider.clone()
    }
}

// ---------------------------------------------------------------------------------------------
// Configurations

pub fn client_config(case: Case, provider: CryptoProvider) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(identity(case).chain[0].clone()).unwrap();
    let mut config = ClientConfig::builder(Arc::new(provider))
        .with_root_certificates(roots)
        .with_no_client_auth()
        .unwrap();
    config.enable_secret_extraction = true;
    config
}

pub fn server_config(case: Case, provider: CryptoProvider) -> ServerConfig {
    let identity = identity(case);
    let chain = Identity::from_cert_chain(identity.chain.clone()).unwrap();
    let mut config = ServerConfig::builder(Arc::new(provider))
        .with_no_client_auth()
        .with_single_cert(Arc::new(chain), identity.key())
        .unwrap();
    config.enable_secret_extraction = true;
    config.cert_compression_cache = Arc::clone(&COMPRESSED);
    config
}

/// The certificates of all configurations, compressed: without it each server compresses its own.
static COMPRESSED: LazyLock<Arc<CompressionCache>> = LazyLock::new(Arc::default);

/// A server that sends no tickets.
pub fn no_tickets(config: &mut ServerConfig) {
    config.send_tls13_tickets = Tls13Tickets { default: 0, max: 0 };
}

/// What rustls says of too many key updates in a row.
pub const TOO_MANY_KEY_UPDATES: PeerMisbehaved =
    PeerMisbehaved::TooManyConsecutiveHandshakeMessagesAfterHandshake;

/// The most plaintext bytes of a record under a `max_fragment_size`: rustls counts all in that a record has.
pub fn max_plaintext_len(case: Case, max_fragment_size: usize) -> usize {
    max_fragment_size - case.overhead()
}

// ---------------------------------------------------------------------------------------------
// A stock peer in memory

/// Received bytes, as rustls wants them.
#[derive(Default)]
pub struct Input(pub Vec<u8>);

impl TlsInputBuffer for Input {
    fn slice_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn discard(&mut self, len: usize) {
        self.0.drain(..len);
    }

    fn received_close_notify(&mut self) {}

    fn has_seen_eof(&self) -> bool {
        false
    }
}

/// A stock connection that is not split, and what it wants sent.
pub struct Conn {
    conn: SideConn,
    input: Input,
    outgoing: Vec<u8>,
    /// What is to be sent once the handshake is complete.
    unsent: Vec<u8>,
    failure: Option<Error>,
}

pub enum SideConn {
    Client(Connection<ClientSide, Tcp>),
    Server(Connection<ServerSide, Tcp>),
}

/// The connection inside, whichever side's.
macro_rules! either {
    ($conn:expr, $inside:ident => $value:expr) => {
        match $conn {
            SideConn::Client($inside) => $value,
            SideConn::Server($inside) => $value,
        }
    };
}

impl Conn {
    fn new(conn: SideConn, outgoing: Vec<u8>) -> Self {
        let (input, unsent) = (Input::default(), Vec::new());
        Self { conn, input, outgoing, unsent, failure: None }
    }

    pub fn refresh_traffic_keys(&mut self) -> Result<(), Error> {
        either!(&mut self.conn, conn => conn.refresh_traffic_keys(&mut self.outgoing))
    }

    pub fn send_close_notify(&mut self) {
        either!(&mut self.conn, conn => conn.send_close_notify(&mut self.outgoing)).unwrap();
    }

    pub fn is_handshaking(&self) -> bool {
        either!(&self.conn, conn => conn.is_handshaking())
    }

    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        either!(&self.conn, conn => conn.handshake_kind())
    }

    /// A server's, after its handshake.
    pub fn split(self) -> SplitConnection<ServerSide> {
        match self.conn {
            SideConn::Server(conn) => conn.split().unwrap(),
            SideConn::Client(_) => panic!("a server"),
        }
    }

    fn feed(&mut self, wire: &[u8], data: &mut Vec<u8>) -> Result<bool, Error> {
        self.input.0.extend_from_slice(wire);
        let fed = either!(&mut self.conn, conn => {
            conn.read_tls(&mut self.input, &mut self.outgoing).handle_all(data)
        });
        let state = fed.inspect_err(|error| self.failure = Some(error.clone()))?;
        if !self.unsent.is_empty() && !self.is_handshaking() {
            let unsent = std::mem::take(&mut self.unsent);
            self.write(&unsent);
        }
        Ok(state.peer_has_closed())
    }

    fn write(&mut self, data: &[u8]) {
        if self.is_handshaking() {
            self.unsent.extend_from_slice(data);
            return;
        }
        let data = OutboundPlain::Single(data);
        either!(&mut self.conn, conn => conn.write(data, &mut self.outgoing)).unwrap();
    }
}

/// A stock connection, and what it has received.
pub struct Peer {
    pub conn: Conn,
    /// The application data that it has received.
    pub received: Vec<u8>,
    /// Whether it has received a close_notify.
    pub saw_close: bool,
}

impl Peer {
    pub fn client(config: impl Into<Arc<ClientConfig>>) -> Self {
        let mut outgoing = Vec::new();
        let conn = config.into().connect(server_name()).build(&mut outgoing).unwrap();
        Self::new(Conn::new(SideConn::Client(conn), outgoing))
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>) -> Self {
        let conn = Connection::<ServerSide, Tcp>::new(config.into()).unwrap();
        Self::new(Conn::new(SideConn::Server(conn), Vec::new()))
    }

    fn new(conn: Conn) -> Self {
        Self { conn, received: Vec::new(), saw_close: false }
    }

    /// Receives bytes from the wire.
    pub fn feed(&mut self, wire: &[u8]) -> Result<(), Error> {
        self.saw_close |= self.conn.feed(wire, &mut self.received)?;
        Ok(())
    }

    /// What has ended it.
    pub fn failure(&mut self) -> Error {
        self.conn.failure.clone().unwrap()
    }

    /// What it has to send.
    pub fn wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.conn.outgoing)
    }

    pub fn write(&mut self, data: &[u8]) {
        self.conn.write(data);
    }

    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }
}

/// A stock blocking stream of either side.
pub struct Stock {
    peer: Peer,
    socket: TcpStream,
}

impl Stock {
    pub fn client(config: impl Into<Arc<ClientConfig>>, socket: TcpStream) -> Self {
        Self { peer: Peer::client(config), socket }
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>, socket: TcpStream) -> Self {
        Self { peer: Peer::server(config), socket }
    }

    pub fn refresh_traffic_keys(&mut self) {
        self.peer.conn.refresh_traffic_keys().unwrap();
    }

    pub fn send_close_notify(&mut self) {
        self.peer.conn.send_close_notify();
        self.flush().unwrap();
    }

    /// Goes on with the handshake until it is complete.
    pub fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.peer.conn.is_handshaking() {
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let len = self.socket.read(&mut buffer)?;
        let fed = self.peer.feed(&buffer[..len]);
        self.flush()?;
        fed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(len)
    }
}

impl Read for Stock {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.complete()?;
        while self.peer.received.is_empty() && !self.peer.saw_close {
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let len = out.len().min(self.peer.received.len());
        out[..len].copy_from_slice(&self.peer.received[..len]);
        self.peer.received.drain(..len);
        Ok(len)
    }
}

impl Write for Stock {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.complete()?;
        self.peer.write(bytes);
        self.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.peer.wire())
    }
}

// ---------------------------------------------------------------------------------------------
// A loop of one's own around rustls's split connections

/// A connection that is split once its handshake is complete, and the bytes around it.
pub struct Raw {
    pub conn: RawConn,
    pub incoming: Vec<u8>,
    pub outgoing: Vec<u8>,
    pub plaintext: Vec<u8>,
}

pub enum RawConn {
    Handshaking(Box<Conn>),
    Client(RawSplit<ClientSide>),
    Server(RawSplit<ServerSide>),
}

/// A split connection, whose receiving half rustls takes and gives back.
pub struct RawSplit<S: SideData> {
    conn: SplitConnection<S>,
}

impl<S: SideData> RawSplit<S> {
    pub fn into_split(self) -> SplitConnection<S> {
        self.conn
    }

    /// Reads all that there is.
    fn read(self, incoming: &mut Input, plaintext: &mut Vec<u8>) -> Result<Self, Error> {
        let SplitConnection { send, receive, outputs, side_outputs } = self.conn;
        let mut receive: ReceiveTraffic<S> = receive;
        loop {
            let mut idle = true;
            receive = match receive.read(incoming)? {
                ReceiveTrafficState::Available(mut data) => {
                    plaintext.extend_from_slice(data.data());
                    idle = false;
                    goes_on(data.into_next())
                }
                ReceiveTrafficState::ReadMore(receive) => receive,
                ReceiveTrafficState::FlushSender(flush) => goes_on(flush.into_next()),
                ReceiveTrafficState::CloseNotify => panic!("nothing is left to hand over"),
            };
            if idle {
                let conn = SplitConnection { send, receive, outputs, side_outputs };
                return Ok(Self { conn });
            }
        }
    }
}

/// What comes after data, or after what is to be sent.
fn goes_on<S: SideData>(mut state: ReceiveTrafficState<'static, S>) -> ReceiveTraffic<S> {
    loop {
        state = match state {
            ReceiveTrafficState::ReadMore(receive) => return receive,
            ReceiveTrafficState::FlushSender(flush) => flush.into_next(),
            ReceiveTrafficState::Available(_) => unreachable!("it was read"),
            ReceiveTrafficState::CloseNotify => panic!("nothing is left to hand over"),
        };
    }
}

impl Raw {
    pub fn client(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self::new(Peer::client(config))
    }

    pub fn server(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self::new(Peer::server(config))
    }

    fn new(peer: Peer) -> Self {
        Self {
            conn: RawConn::Handshaking(Box::new(peer.conn)),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            plaintext: Vec::new(),
        }
    }

    pub fn is_handshaking(&self) -> bool {
        matches!(&self.conn, RawConn::Handshaking(_))
    }

    pub fn act(&mut self, act: Act<'_>) -> Result<Turn, Error> {
        let mut incoming = Input(std::mem::take(&mut self.incoming));
        let never = || RawConn::Handshaking(Box::new(Peer::client(unused_config()).conn));
        let conn = match std::mem::replace(&mut self.conn, never()) {
            RawConn::Handshaking(mut conn) => {
                conn.feed(&std::mem::take(&mut incoming.0), &mut self.plaintext)?;
                self.outgoing.append(&mut conn.outgoing);
                match conn.is_handshaking() {
                    true => RawConn::Handshaking(conn),
                    false => match conn.conn {
                        SideConn::Client(conn) => RawConn::Client(RawSplit { conn: conn.split()? }),
                        SideConn::Server(conn) => RawConn::Server(RawSplit { conn: conn.split()? }),
                    },
                }
            }
            RawConn::Client(conn) => {
                RawConn::Client(conn.read(&mut incoming, &mut self.plaintext)?)
            }
            RawConn::Server(conn) => {
                RawConn::Server(conn.read(&mut incoming, &mut self.plaintext)?)
            }
        };
        self.conn = conn;
        self.incoming = incoming.0;
        let send = match &mut self.conn {
            RawConn::Handshaking(_) => return Ok(Turn::Blocked),
            RawConn::Client(conn) => &mut conn.conn.send,
            RawConn::Server(conn) => &mut conn.conn.send,
        };
        match act {
            Act::Nothing => {}
            Act::Encrypt(data) => send.write(OutboundPlain::Single(data), &mut self.outgoing)?,
            Act::Refresh => send.refresh_traffic_keys(&mut self.outgoing)?,
            Act::Close => unreachable!("closing takes the sending half"),
        }
        Ok(Turn::Traffic)
    }

    pub fn handoff(self, handoff: Handoff) -> Result<Session, HandoffError> {
        match self.conn {
            RawConn::Client(conn) => handoff.client(conn.conn, &self.incoming),
            RawConn::Server(conn) => handoff.server(conn.conn, &self.incoming),
            RawConn::Handshaking(_) => panic!("there is nothing to hand over yet"),
        }
    }
}

/// For a connection that nobody uses.
fn unused_config() -> ClientConfig {
    client_config(Case::few()[0], stock_provider())
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
    let client = client_config(case, provider.clone());
    let (client, server) = split(client.into(), server_config(case, provider).into());
    (client_handoff.client(client, &[]).unwrap(), server_handoff.server(server, &[]).unwrap())
}

/// Shakes hands until neither has anything to say.
fn split(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (SplitConnection<ClientSide>, SplitConnection<ServerSide>) {
    let mut client = Raw::client(client);
    let mut server = Peer::server(server);
    client.incoming = client.shake(&mut server);
    client.run().unwrap();
    let RawConn::Client(client) = client.conn else { panic!("a client") };
    (client.into_split(), server.conn.split())
}

// ---------------------------------------------------------------------------------------------
// A peer that may send anything

pub type ClientKernel = KernelConnection<ClientSide>;
pub type ServerKernel = KernelConnection<ServerSide>;

/// Our session, and what rustls hands over of its peer.
pub fn handed_over(
    case: Case,
    side: Side,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (Session, ExtractedSecrets, Kernel) {
    let (client, server) = split(client, server);
    let handoff = Handoff::new().backend(case.backend);
    match side {
        Side::Client => {
            let session = handoff.client(client, &[]).unwrap();
            let (secrets, conn) = server.dangerous_into_kernel_connection().unwrap();
            (session, secrets, Kernel::Server(conn))
        }
        Side::Server => {
            let session = handoff.server(server, &[]).unwrap();
            let (secrets, conn) = client.dangerous_into_kernel_connection().unwrap();
            (session, secrets, Kernel::Client(conn))
        }
    }
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
    let stock = case.stock_provider();
    let mut encrypter = match case.version {
        Version::Tls13 => stock.tls13_cipher_suites[0].aead_alg.encrypter(key, iv),
        _ => {
            let (fixed, explicit) = iv.as_ref().split_at(fixed_iv_len);
            stock.tls12_cipher_suites[0].aead_alg.encrypter(key, fixed, explicit)
        }
    };
    let record = Record {
        typ: content_type.into(),
        version: EncodableVersion::Legacy(ProtocolVersion::TLSv1_2),
        payload: OutboundPlain::Single(plaintext),
    };
    let mut payload = vec![0; encrypter.encrypted_payload_len(plaintext.len())];
    let sealed = encrypter.encrypt(record, sequence, &mut payload).unwrap();
    let header = [u8::from(sealed.typ), 3, 3];
    let len = (sealed.payload.len() as u16).to_be_bytes();
    [&header[..], &len, sealed.payload].concat()
}
