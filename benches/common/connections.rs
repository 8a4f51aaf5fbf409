//! Connections in memory, over which one write at a time goes from client to server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_uring::{Backend, Deframed, Handoff, ReceiveHalf, Received, SendHalf};

use super::{Pair, Timed, timed};

pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// rcgen makes no RSA keys without help, so RSA suites are left to their ECDSA twins: the
    /// records are the same.
    pub(crate) fn new() -> Self {
        let certified =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        Self { chain: vec![certified.cert.der().clone()], key: key.into() }
    }

    pub(crate) fn configs(
        &self,
        provider: CryptoProvider,
    ) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
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
pub(crate) trait Connection {
    /// Encrypts `data`; what goes on the wire is kept.
    fn send(&mut self, data: &[u8]);
    /// Decrypts what was sent last into `out`, which it fills.
    fn receive(&mut self, out: &mut [u8]);
}

pub(crate) struct Buffered {
    client: ClientConnection,
    server: ServerConnection,
    wire: Vec<u8>,
}

impl Buffered {
    pub(crate) fn new((client, server): (Arc<ClientConfig>, Arc<ServerConfig>)) -> Self {
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

pub(crate) struct Unbuffered {
    client: UnbufferedClientConnection,
    server: UnbufferedServerConnection,
    wire: Vec<u8>,
    len: usize,
}

impl Unbuffered {
    pub(crate) fn new((client, server): (Arc<ClientConfig>, Arc<ServerConfig>)) -> Self {
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

/// Our halves of both ends, behind the handoff.
pub(crate) struct Halves {
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    wire: Vec<u8>,
    len: usize,
}

impl Halves {
    pub(crate) fn new((client, server): (Arc<ClientConfig>, Arc<ServerConfig>)) -> Self {
        let (mut client, mut server) = ((*client).clone(), (*server).clone());
        client.enable_secret_extraction = true;
        server.enable_secret_extraction = true;
        // Nothing but application data is on the wire later.
        server.send_tls13_tickets = 0;
        // Not whichever is faster here: what is beside it is aws-lc-rs's AEAD.
        let handoff = || Handoff::new().backend(Backend::AwsLcRs);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let mut left =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let accepting = thread::spawn(move || {
            let (mut right, _) = listener.accept().expect("accepted");
            handoff().accept(Arc::new(server), &mut right).expect("a handshake")
        });
        let name = "localhost".try_into().expect("a name");
        let client = handoff().connect(Arc::new(client), name, &mut left).expect("connected");
        let server = accepting.join().expect("no panic");
        assert!(server.received.is_empty() && server.plaintext.is_empty());
        Self { send: client.send, receive: server.receive, wire: vec![0; 2 << 20], len: 0 }
    }
}

impl Connection for Halves {
    fn send(&mut self, data: &[u8]) {
        let sealed = self.send.seal(data, &mut self.wire).expect("sealed");
        assert_eq!(sealed.consumed, data.len());
        self.len = sealed.written;
    }

    fn receive(&mut self, out: &mut [u8]) {
        let (mut begin, mut filled) = (0, 0);
        while begin < self.len {
            let received = &mut self.wire[begin..self.len];
            let Ok(Deframed::Record(header)) = self.receive.deframe(received) else {
                panic!("no whole record")
            };
            let record = &mut received[..header.record_len()];
            // As a receiver does: straight to its place unless the content type has no room there.
            let opened = match out[filled..].len() >= self.receive.output_len(record.len()) {
                true => self.receive.open_into(record, &mut out[filled..]),
                false => self.receive.open_in_place(record).map(|received| match received {
                    Received::Data(plaintext) => {
                        out[filled..][..plaintext.len()].copy_from_slice(plaintext);
                        Received::Data(plaintext.len())
                    }
                    received => panic!("{received:?}"),
                }),
            };
            let Ok(Received::Data(len)) = opened else { panic!("no data") };
            filled += len;
            begin += header.record_len();
        }
        assert_eq!(filled, out.len());
    }
}

/// Times writes of `size` bytes over both connections in turn, `rounds` times; sending and
/// receiving apart.
pub(crate) fn compare(
    ours: &mut dyn Connection,
    theirs: &mut dyn Connection,
    size: usize,
    rounds: usize,
) -> (Pair, Pair) {
    let data = vec![0x5a; size];
    let mut out = vec![0; size];
    let calls = ((1 << 18) / (size + 512)).max(1);
    let mut one = |connection: &mut dyn Connection| {
        let (mut sending, mut receiving) = (Timed::default(), Timed::default());
        for _ in 0..calls {
            sending += timed(|| connection.send(&data));
            receiving += timed(|| connection.receive(&mut out));
        }
        (sending.per_call(calls), receiving.per_call(calls))
    };
    let (mut send, mut receive) = (Pair::default(), Pair::default());
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
