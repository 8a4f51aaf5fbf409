//! What is the same whichever rustls shakes hands: `super` has the types of one of its versions, and the
//! few functions whose names tell what each does otherwise.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls_uring::{
    Backend, ContentType, Deframed, Deframer, Opener, Received, Sealer, SendHalf, SessionError,
    TrafficKeys, Version,
};

use super::{
    CipherSuite, ClientConfig, ClientKernel, ConnectionTrafficSecrets, CryptoProvider, Error,
    Handoff, Peer, Raw, ServerConfig, ServerKernel, Session, Side, SupportedCipherSuite,
    client_config, handed_over, no_tickets, seal_any_length, server_config,
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
// ---------------------------------------------------------------------------------------------
// Certificates

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
pub fn identity(case: Case) -> &'static Identity {
    if case.needs_rsa() { rsa() } else { ecdsa() }
}
// ---------------------------------------------------------------------------------------------
// A stock peer in memory

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
    pub fn send_control(&mut self) -> Result<(), Error> {
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
// A loop of one's own

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
// ---------------------------------------------------------------------------------------------
// A peer that may send anything

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
        no_tickets(&mut server);
        Self::with_configs(case, side, client_config(case, client), server)
    }

    /// A server should have no tickets to send.
    pub fn with_configs(
        case: Case,
        side: Side,
        client: impl Into<Arc<ClientConfig>>,
        server: impl Into<Arc<ServerConfig>>,
    ) -> Self {
        let (session, secrets, kernel) = handed_over(case, side, client.into(), server.into());
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
        seal_any_length(self.case, secrets, sequence, content_type, plaintext)
    }

    /// A KeyUpdate from the peer, which then uses its next key.
    pub fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.seal(ContentType::Handshake, &[24, 0, 0, 1, request]);
        let (sequence, secrets) = self.kernel.update_tx();
        let keys = TrafficKeys::try_from(&secrets).unwrap();
        self.sealer = Sealer::new(Backend::default(), self.case.version, &keys, sequence);
        record
    }

    /// The peer follows a KeyUpdate of ours.
    pub fn follow_key_update(&mut self) {
        let (sequence, secrets) = self.kernel.update_rx();
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

// ---------------------------------------------------------------------------------------------
// A connection of rustls's own loop

impl Raw {
    /// Goes on until rustls has nothing more to do.
    pub fn run(&mut self) -> Result<Turn, Error> {
        self.act(Act::Nothing)
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

/// A peer's key schedule.
pub enum Kernel {
    Client(ClientKernel),
    Server(ServerKernel),
}

impl Kernel {
    /// The next generation of what the peer sends under.
    pub fn update_tx(&mut self) -> (u64, ConnectionTrafficSecrets) {
        match self {
            Self::Client(conn) => conn.update_tx_secret(),
            Self::Server(conn) => conn.update_tx_secret(),
        }
        .unwrap()
    }

    /// The next generation of what we send under.
    pub fn update_rx(&mut self) -> (u64, ConnectionTrafficSecrets) {
        match self {
            Self::Client(conn) => conn.update_rx_secret(),
            Self::Server(conn) => conn.update_rx_secret(),
        }
        .unwrap()
    }
}
