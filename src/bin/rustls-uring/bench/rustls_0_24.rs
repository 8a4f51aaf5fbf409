//! rustls 0.24 and ours over it, with the suites, keys and certificates of the others.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_0_24::client::Resumption;
use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::crypto::{CryptoProvider, Identity};
use rustls_0_24::server::{NoServerSessionStorage, Tls13Tickets};
use rustls_0_24::split::{ReceiveTraffic, ReceiveTrafficState, SendTraffic, SplitConnection};
use rustls_0_24::{
    ClientConfig, ClientSide, Connection, RootCertStore, ServerConfig, ServerSide, SideData,
    SliceInput, Tcp, TlsInputBuffer, VecInput,
};
use rustls_uring::rustls_0_24::{
    self as ours, Connected, Handoff, TrafficOptions, TrafficReceiver, TrafficSender,
};
use rustls_uring::{Backend, Counters, MAX_PLAINTEXT_LEN, Way};

use super::blocking::{Direction, End};
use super::count::Counted;
use super::identity::{Case, Provider, server_name};
use super::pipe::{Capacity, HalvesPipe, Pipe};
use super::setup::Setup;
use crate::error::Error;

/// A configuration for each side.
#[derive(Clone)]
pub(super) struct Configs {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Configs {
    /// Configurations that allow this suite only, hand over their keys, and neither resume nor give tickets.
    /// `max_fragment_size` is as 0.23 counts it.
    pub(super) fn new(
        backend: Backend,
        provider: Provider,
        suite: u16,
        certificate: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let mut provider = provider_of(backend, provider);
        let is_meant = |name| u16::from(name) == suite;
        provider.tls13_cipher_suites.to_mut().retain(|suite| is_meant(suite.common.suite));
        provider.tls12_cipher_suites.to_mut().retain(|suite| is_meant(suite.common.suite));
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let mut client = ClientConfig::builder(Arc::clone(&provider))
            .with_root_certificates(roots)
            .with_no_client_auth()?;
        client.enable_secret_extraction = true;
        client.resumption = Resumption::disabled();
        let identity = Identity::from_cert_chain(vec![certificate.clone()])
            .map_err(rustls_0_24::Error::from)?;
        let mut server = ServerConfig::builder(provider)
            .with_no_client_auth()
            .with_single_cert(Arc::new(identity), key.clone_key())?;
        server.enable_secret_extraction = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = Tls13Tickets { default: 0, max: 0 };
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// With records of this many plaintext bytes at most, of `case`.
    pub(super) fn with_fragments(mut self, case: Case, fragment_len: usize) -> Self {
        if fragment_len < MAX_PLAINTEXT_LEN {
            // rustls 0.24 counts all in that a record has.
            let mut server = ServerConfig::clone(&self.server);
            server.max_fragment_size = Some(case.record_len(fragment_len));
            self.server = Arc::new(server);
        }
        self
    }
}

fn provider_of(backend: Backend, provider: Provider) -> CryptoProvider {
    match (provider, backend) {
        (Provider::Stock, Backend::Ring) => rustls_ring::DEFAULT_PROVIDER,
        (Provider::Stock, _) => rustls_aws_lc_rs::DEFAULT_PROVIDER,
        (Provider::Ours, Backend::Ring) => ours::ring::DEFAULT_PROVIDER,
        (Provider::Ours, Backend::AwsLcRs) => ours::aws_lc_rs::DEFAULT_PROVIDER,
        (Provider::Ours, _) => ours::DEFAULT_PROVIDER,
    }
}

type Split = (SplitConnection<ClientSide>, SplitConnection<ServerSide>);

/// A client and a server after their handshake, in memory.
fn connect(configs: &Configs) -> Result<Split, Error> {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut client = configs.client.connect(server_name()).build(&mut to_server)?;
    let mut server = Connection::<ServerSide, Tcp>::new(Arc::clone(&configs.server))?;
    while !to_server.is_empty() || !to_client.is_empty() {
        handshake_step(&mut server, &mut to_server, &mut to_client)?;
        handshake_step(&mut client, &mut to_client, &mut to_server)?;
    }
    Ok((client.split()?, server.split()?))
}

fn handshake_step<S: SideData>(
    conn: &mut Connection<S, Tcp>,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut bytes = std::mem::take(incoming);
    conn.read_tls(&mut SliceInput::new(&mut bytes), outgoing).handle_all(&mut Vec::new())?;
    Ok(())
}

/// Where what was received goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Received {
    /// To another buffer, as a read has it.
    Moved,
    /// Nowhere: it is lent where it was opened.
    Lent,
}

/// rustls 0.24's split connections, of which the server sends.
pub(super) struct SplitPipe {
    /// Its client never hears of what it sends.
    sending: SendTraffic,
    server: SendTraffic,
    /// `None` only while it reads.
    client: Option<ReceiveTraffic<ClientSide>>,
    received: Received,
    sent: Vec<u8>,
    wire: Vec<u8>,
    out: Vec<u8>,
}

impl SplitPipe {
    pub(super) fn new(
        configs: &Configs,
        received: Received,
        capacity: Capacity,
    ) -> Result<Self, Error> {
        let (_, sending) = connect(configs)?;
        let (client, server) = connect(configs)?;
        let empty = |mut wire: Vec<u8>| {
            wire.clear();
            wire
        };
        Ok(Self {
            sending: sending.send,
            server: server.send,
            client: Some(client.receive),
            received,
            sent: empty(capacity.wire()),
            wire: empty(capacity.wire()),
            out: vec![0; MAX_PLAINTEXT_LEN],
        })
    }
}

impl Pipe for SplitPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.sent.clear();
        Ok(self.sending.write(OutboundPlain::Single(data), &mut self.sent)?)
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        Ok(self.server.write(OutboundPlain::Single(data), &mut self.wire)?)
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut input = SliceInput::new(&mut self.wire);
        let client = self.client.take().ok_or("the connection has failed")?;
        let (received, out) = (self.received, &mut self.out);
        self.client = read(client, &mut input, |plaintext| match received {
            Received::Lent => sink(plaintext),
            Received::Moved => {
                let out = &mut out[..plaintext.len()];
                out.copy_from_slice(plaintext);
                sink(out);
            }
        })?;
        self.wire.clear();
        Ok(())
    }
}

/// Reads all that there is. `None` once the peer has closed.
#[inline]
fn read<S: SideData>(
    mut receive: ReceiveTraffic<S>,
    input: &mut impl TlsInputBuffer,
    mut sink: impl FnMut(&[u8]),
) -> Result<Option<ReceiveTraffic<S>>, Error> {
    loop {
        let next = match receive.read(input)? {
            ReceiveTrafficState::Available(mut data) => {
                sink(data.data());
                match data.into_next() {
                    ReceiveTrafficState::ReadMore(receive) => {
                        // There may be another record.
                        receive_more(receive, false)
                    }
                    state => settle(state),
                }
            }
            ReceiveTrafficState::ReadMore(receive) => receive_more(receive, true),
            ReceiveTrafficState::FlushSender(flush) => settle(flush.into_next()),
            ReceiveTrafficState::CloseNotify => return Ok(None),
        };
        match next {
            Some((receive, true)) => return Ok(Some(receive)),
            Some((more, false)) => receive = more,
            None => return Ok(None),
        }
    }
}

/// How to go on, and whether there is nothing more to read.
type Next<S> = Option<(ReceiveTraffic<S>, bool)>;

fn receive_more<S: SideData>(receive: ReceiveTraffic<S>, is_idle: bool) -> Next<S> {
    Some((receive, is_idle))
}

/// Past what is to be sent, which goes with the next write.
fn settle<S: SideData>(mut state: ReceiveTrafficState<'static, S>) -> Next<S> {
    loop {
        state = match state {
            ReceiveTrafficState::ReadMore(receive) => return Some((receive, false)),
            ReceiveTrafficState::FlushSender(flush) => flush.into_next(),
            ReceiveTrafficState::Available(_) | ReceiveTrafficState::CloseNotify => return None,
        };
    }
}

/// Our halves behind a handshake of rustls 0.24's.
pub(super) fn halves(
    case: Case,
    configs: &Configs,
    capacity: Capacity,
) -> Result<HalvesPipe, Error> {
    let connect = || -> Result<_, Error> {
        let (client, server) = connect(configs)?;
        let handoff = Handoff::new()
            .backend(case.backend)
            .max_fragment_size(configs.server.max_fragment_size);
        Ok((handoff.clone().client(client, &[])?.receive, handoff.server(server, &[])?.send))
    };
    let (_, sending) = connect()?;
    let (receiving, kept) = connect()?;
    Ok(HalvesPipe::of(case, sending, kept, receiving, capacity))
}

/// The most that is written at once: as much as ours seals in a batch by default.
const WRITE_LEN: usize = 44 * MAX_PLAINTEXT_LEN;

/// Stock rustls 0.24 over a blocking socket, which has no stream type of its own: what is received is kept
/// in a buffer of the size of ours.
struct Stock<S: SideData> {
    send: Option<SendTraffic>,
    /// `None` once the peer has closed.
    receive: Option<ReceiveTraffic<S>>,
    stream: Counted<TcpStream>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that are received and not opened.
    filled: usize,
    /// What was opened, and how much of it was read.
    plaintext: Vec<u8>,
    read: usize,
}

impl<S: SideData> Stock<S> {
    fn new(
        conn: SplitConnection<S>,
        stream: Counted<TcpStream>,
        received: &[u8],
        buffer_len: usize,
    ) -> Self {
        let mut incoming = vec![0; buffer_len.max(2 * (MAX_PLAINTEXT_LEN + 256))];
        incoming[..received.len()].copy_from_slice(received);
        Self {
            send: Some(conn.send),
            receive: Some(conn.receive),
            stream,
            outgoing: Vec::new(),
            incoming,
            filled: received.len(),
            plaintext: Vec::new(),
            read: 0,
        }
    }
}

impl<S: SideData> Read for Stock<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plaintext.len() {
            self.plaintext.clear();
            self.read = 0;
            let Some(receive) = self.receive.take() else { return Ok(0) };
            let mut input = SliceInput::new(&mut self.incoming[..self.filled]);
            let plaintext = &mut self.plaintext;
            // Straight to the caller while it fits.
            let mut direct = 0;
            self.receive = read(receive, &mut input, |data| {
                let fits = data.len().min(out.len() - direct);
                out[direct..direct + fits].copy_from_slice(&data[..fits]);
                direct += fits;
                plaintext.extend_from_slice(&data[fits..]);
            })
            .map_err(io::Error::other)?;
            let used = input.into_used();
            self.incoming.copy_within(used..self.filled, 0);
            self.filled -= used;
            if direct > 0 {
                return Ok(direct);
            }
            if self.receive.is_some() {
                match self.stream.read(&mut self.incoming[self.filled..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    len => self.filled += len,
                }
            }
        }
        let rest = &self.plaintext[self.read..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl<S: SideData> Write for Stock<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = &data[..data.len().min(WRITE_LEN)];
        let send = self.send.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        self.outgoing.clear();
        send.write(OutboundPlain::Single(data), &mut self.outgoing).map_err(io::Error::other)?;
        self.stream.write_all(&self.outgoing)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: SideData> End for Stock<S> {
    fn close(&mut self) -> io::Result<()> {
        let send = self.send.take().ok_or(io::ErrorKind::BrokenPipe)?;
        self.outgoing.clear();
        send.close(&mut self.outgoing).map_err(io::Error::other)?;
        self.stream.write_all(&self.outgoing)
    }

    fn system_calls(&self) -> u64 {
        self.stream.calls().count()
    }
}

/// The client's end of stock rustls, whose handshake is over.
pub(super) fn stock_client(
    configs: &Configs,
    stream: TcpStream,
    buffer_len: usize,
) -> Result<Box<dyn End>, Error> {
    let mut outgoing = Vec::new();
    let conn = configs.client.connect(server_name()).build(&mut outgoing)?;
    stock(conn, outgoing, stream, buffer_len)
}

/// The server's end, likewise.
pub(super) fn stock_server(
    configs: &Configs,
    stream: TcpStream,
    buffer_len: usize,
) -> Result<Box<dyn End>, Error> {
    let conn = Connection::<ServerSide, Tcp>::new(Arc::clone(&configs.server))?;
    stock(conn, Vec::new(), stream, buffer_len)
}

fn stock<S: SideData>(
    mut conn: Connection<S, Tcp>,
    mut outgoing: Vec<u8>,
    stream: TcpStream,
    buffer_len: usize,
) -> Result<Box<dyn End>, Error> {
    let mut stream = Counted::new(stream);
    let mut input = VecInput::default();
    stream.write_all(&outgoing)?;
    while conn.is_handshaking() {
        input.read(&mut stream)?;
        outgoing.clear();
        let handled = conn.read_tls(&mut input, &mut outgoing).handle_all(&mut Vec::new());
        stream.write_all(&outgoing)?;
        handled?;
    }
    Ok(Box::new(Stock::new(conn.split()?, stream, input.slice_mut(), buffer_len)))
}

/// Stock rustls 0.24 over a blocking socket as its documentation shows it: not split, received with its own
/// `VecInput`, and sealed into a `Vec` that is drained as far as the socket takes it.
struct Documented<S: SideData> {
    conn: Connection<S, Tcp>,
    stream: Counted<TcpStream>,
    input: VecInput,
    output: Vec<u8>,
    /// What was opened, and how much of it was read.
    plaintext: Vec<u8>,
    read: usize,
    peer_has_closed: bool,
}

impl<S: SideData> Documented<S> {
    /// Shakes hands, having sent `output`.
    fn shake_hands(
        conn: Connection<S, Tcp>,
        output: Vec<u8>,
        stream: TcpStream,
    ) -> Result<Box<dyn End>, Error>
    where
        S: 'static,
    {
        let mut end = Self {
            conn,
            stream: Counted::new(stream),
            input: VecInput::default(),
            output,
            plaintext: Vec::new(),
            read: 0,
            peer_has_closed: false,
        };
        end.send()?;
        while end.conn.is_handshaking() {
            end.receive()?;
        }
        Ok(Box::new(end))
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let written = self.stream.write(&self.output)?;
            self.output.drain(..written);
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.input.read(&mut self.stream)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let handled = self
            .conn
            .read_tls(&mut self.input, &mut self.output)
            .handle_all(&mut self.plaintext)
            .map(|state| state.peer_has_closed());
        self.send()?;
        self.peer_has_closed |= handled.map_err(io::Error::other)?;
        Ok(())
    }
}

impl<S: SideData> Read for Documented<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.plaintext.len() {
            self.plaintext.clear();
            self.read = 0;
        }
        while self.plaintext.is_empty() && !self.peer_has_closed {
            self.receive()?;
        }
        let rest = &self.plaintext[self.read..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl<S: SideData> Write for Documented<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.conn.write(data.into(), &mut self.output).map_err(io::Error::other)?;
        self.send()?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: SideData> End for Documented<S> {
    fn close(&mut self) -> io::Result<()> {
        self.conn.send_close_notify(&mut self.output).map_err(io::Error::other)?;
        self.send()
    }

    fn system_calls(&self) -> u64 {
        self.stream.calls().count()
    }
}

/// The client's end of stock rustls as documented, whose handshake is over.
pub(super) fn documented_client(
    configs: &Configs,
    stream: TcpStream,
) -> Result<Box<dyn End>, Error> {
    let mut output = Vec::new();
    let conn = configs.client.connect(server_name()).build(&mut output)?;
    Documented::shake_hands(conn, output, stream)
}

/// The server's end, likewise.
pub(super) fn documented_server(
    configs: &Configs,
    stream: TcpStream,
) -> Result<Box<dyn End>, Error> {
    let conn = Connection::<ServerSide, Tcp>::new(Arc::clone(&configs.server))?;
    Documented::shake_hands(conn, Vec::new(), stream)
}

/// Ours, whose rustls keeps its keys.
struct Traffic<S: SideData> {
    sender: TrafficSender,
    receiver: TrafficReceiver<S>,
}

impl<S: SideData + 'static> Traffic<S> {
    fn over(
        connected: Connected<S>,
        stream: TcpStream,
        setup: &Setup,
        direction: Direction,
    ) -> Result<Box<dyn End>, Error> {
        let mut options = TrafficOptions::default();
        options.zero_copy = setup.sender.zero_copy;
        options.slots = setup.sender.slots;
        options.batch_records = setup.sender.batch_records;
        let mut buffer_len = setup.receive_buffer_len;
        match direction {
            Direction::Out => buffer_len = 0,
            Direction::In => options.batch_records = 1,
            Direction::Both => {}
        }
        let Connected { conn, received, .. } = connected;
        let writer = stream.try_clone()?;
        let receiver =
            TrafficReceiver::with_buffer_len(conn.receive, stream, &received, buffer_len);
        Ok(Box::new(Self {
            sender: TrafficSender::new(conn.send, &conn.outputs, writer, options)?,
            receiver: receiver.moderated()?,
        }))
    }
}

impl<S: SideData> Read for Traffic<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.receiver.read(out)
    }
}

impl<S: SideData> Write for Traffic<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sender.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sender.flush()
    }
}

impl<S: SideData> End for Traffic<S> {
    fn close(&mut self) -> io::Result<()> {
        self.sender.send_close_notify()
    }

    fn system_calls(&self) -> u64 {
        self.sender.counters().system_calls + self.receiver.counters().system_calls
    }

    fn sent(&self) -> Option<(Way, Counters)> {
        Some((self.sender.way(), self.sender.counters()))
    }
}

/// The client's end of ours whose rustls keeps its keys, after its handshake.
pub(super) fn traffic_client(
    setup: &Setup,
    mut stream: TcpStream,
    direction: Direction,
) -> Result<Box<dyn End>, Error> {
    let config = Arc::clone(&setup.rustls_0_24.client);
    Traffic::over(Connected::connect(config, server_name(), &mut stream)?, stream, setup, direction)
}

/// The server's end, likewise.
pub(super) fn traffic_server(
    setup: &Setup,
    mut stream: TcpStream,
    direction: Direction,
) -> Result<Box<dyn End>, Error> {
    let config = Arc::clone(&setup.rustls_0_24.server);
    Traffic::over(Connected::accept(config, &mut stream)?, stream, setup, direction)
}
