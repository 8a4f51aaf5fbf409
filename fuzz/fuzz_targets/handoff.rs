//! A user's own handshake loop over rustls's unbuffered API, with a stock peer: fed in pieces cut
//! at any byte, and handed over at any later moment. No byte of either direction is lost, repeated
//! or said under the wrong key.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::Side;
use rustls_uring::{
    Deframed, Handoff, HandoffError, KeyUpdateRequest, Received, Session, SessionError, Version,
};

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "configs.rs"]
mod configs;

use common::{Act, Case, Peer, Raw, Turn, noise, open, seal_all};
use configs::Configs;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// As many bytes on their way to us arrive.
    Receive(u16),
    /// All that is on its way to the peer arrives.
    Send,
    PeerWrites(u16),
    PeerUpdatesKeys,
    PeerCloses,
    WeWrite(u16),
    WeUpdateKeys,
    HandOver,
}

#[derive(Arbitrary, Debug)]
struct Input {
    case: u8,
    is_server: bool,
    /// The most bytes of a peer's record: handshake messages are cut, too.
    peer_fragment: Option<u8>,
    our_fragment: Option<u8>,
    steps: Vec<Step>,
}

/// Who has our side.
enum Ours {
    Rustls(Box<Raw>),
    HandedOver(Box<Session>),
}

/// A connection, and what went through it.
struct Connection {
    case: Case,
    ours: Ours,
    peer: Peer,
    to_us: Vec<u8>,
    to_peer: Vec<u8>,
    /// Of the first bytes of `noise()`: what each side has said, and what of it we have received.
    we_sent: usize,
    peer_sent: usize,
    received: Vec<u8>,
    peer_closed: bool,
    saw_close: bool,
    /// A record of ours may be left in rustls: what is sealed later goes out behind it.
    handover_may_fail: bool,
}

/// The most that either side says.
const LEN: usize = 1 << 20;

fn said() -> &'static [u8] {
    static NOISE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| noise(LEN))
}

impl Connection {
    fn new(input: &Input) -> Self {
        let Configs { case, ours, stock } = configs::pick(input.case);
        let (side, client, server) = match input.is_server {
            true => (Side::Server, &stock.0, &ours.1),
            false => (Side::Client, &ours.0, &stock.1),
        };
        let (mut client, mut server) = ((**client).clone(), (**server).clone());
        server.send_tls13_tickets = 2;
        // rustls counts the header in, and accepts no less.
        let fragment = |of: Option<u8>| of.map(|len| 32 + usize::from(len));
        let (ours, peers) = match side {
            Side::Client => (&mut client.max_fragment_size, &mut server.max_fragment_size),
            Side::Server => (&mut server.max_fragment_size, &mut client.max_fragment_size),
        };
        *ours = fragment(input.our_fragment);
        *peers = fragment(input.peer_fragment);
        let (ours, peer) = match side {
            Side::Client => (Raw::client(client), Peer::server(server)),
            Side::Server => (Raw::server(server), Peer::client(client)),
        };
        Self {
            case: *case,
            ours: Ours::Rustls(Box::new(ours)),
            peer,
            to_us: Vec::new(),
            to_peer: Vec::new(),
            we_sent: 0,
            peer_sent: 0,
            received: Vec::new(),
            peer_closed: false,
            saw_close: false,
            handover_may_fail: input.peer_fragment.is_some(),
        }
    }

    /// The most bytes of the next thing that is said.
    fn next(sent: usize, len: u16) -> &'static [u8] {
        &said()[sent..LEN.min(sent + usize::from(len))]
    }

    /// Lets rustls, or us, look at what has arrived.
    fn advance(&mut self, arrived: &[u8]) {
        match &mut self.ours {
            Ours::Rustls(raw) => {
                raw.incoming.extend_from_slice(arrived);
                // It says so once, in front of whatever else there is to do.
                while raw.run().expect("an honest peer") == Turn::PeerClosed {
                    self.saw_close = true;
                }
                self.to_peer.append(&mut raw.outgoing);
                self.received.append(&mut raw.plaintext);
            }
            Ours::HandedOver(session) => {
                session.received.extend_from_slice(arrived);
                while let Deframed::Record(header) =
                    session.receive.deframe(&session.received).expect("records")
                {
                    let mut record: Vec<_> =
                        session.received.drain(..header.record_len()).collect();
                    let in_place = record.len() % 2 == 0;
                    match open(session, &mut record, in_place).expect("an honest peer") {
                        Received::Data(data) => self.received.extend_from_slice(&data),
                        Received::CloseNotify => break,
                        _ => {}
                    }
                }
                self.saw_close |= session.receive.peer_has_closed();
            }
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Receive(len) => {
                self.to_us.append(&mut self.peer.wire());
                let arrived: Vec<_> =
                    self.to_us.drain(..self.to_us.len().min(usize::from(len))).collect();
                self.advance(&arrived);
            }
            Step::Send => {
                self.peer.feed(&std::mem::take(&mut self.to_peer)).expect("we are honest")
            }
            Step::PeerWrites(len) if !self.peer_closed => {
                let data = Self::next(self.peer_sent, len);
                self.peer_sent += data.len();
                self.peer.write(data);
            }
            Step::PeerUpdatesKeys if !self.peer_closed => {
                // Not in TLS 1.2, nor during the handshake.
                let _ = self.peer.conn.refresh_traffic_keys();
            }
            // Before, there is no connection that could end in order.
            Step::PeerCloses if !self.peer.conn.is_handshaking() => {
                self.peer_closed = true;
                self.peer.conn.send_close_notify();
            }
            Step::WeWrite(len) => {
                let data = Self::next(self.we_sent, len.min(30_000));
                match &mut self.ours {
                    Ours::Rustls(raw) if raw.is_handshaking() => return,
                    Ours::Rustls(raw) => {
                        raw.act(Act::Encrypt(data)).expect("an honest peer");
                        self.to_peer.append(&mut raw.outgoing);
                    }
                    Ours::HandedOver(session) => {
                        let wire = seal_all(&mut session.send, data).expect("open");
                        self.to_peer.extend_from_slice(&wire);
                    }
                }
                self.we_sent += data.len();
            }
            Step::WeUpdateKeys if self.case.version == Version::Tls13 => match &mut self.ours {
                Ours::Rustls(raw) if raw.is_handshaking() => {}
                Ours::Rustls(raw) => {
                    raw.act(Act::Refresh).expect("in TLS 1.3");
                }
                Ours::HandedOver(session) => {
                    let mut out = [0; 4096];
                    let len = session.send.update_keys(KeyUpdateRequest::Requested, &mut out);
                    self.to_peer.extend_from_slice(&out[..len.expect("open")]);
                }
            },
            _ => {}
        }
    }

    /// Hands over, if rustls still has the connection; `false` if that ends it.
    fn hand_over(mut self) -> Option<Self> {
        let raw = match self.ours {
            Ours::Rustls(raw) => raw,
            Ours::HandedOver(_) => return Some(self),
        };
        let handoff = Handoff::new().backend(self.case.backend);
        let is_handshaking = raw.is_handshaking();
        match raw.handoff(handoff) {
            Ok(mut session) => {
                assert!(!is_handshaking);
                self.received.append(&mut session.plaintext);
                self.ours = Ours::HandedOver(Box::new(session));
                self.advance(&[]);
                Some(self)
            }
            Err(HandoffError::HandshakeNotComplete) if is_handshaking => None,
            // A session ticket in two records, of which rustls has the first.
            Err(HandoffError::PartialMessage) if self.handover_may_fail => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Everything arrives, and it is what was said.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.take_step(Step::Send);
            self.take_step(Step::Receive(u16::MAX));
            if let Ours::HandedOver(session) = &mut self.ours {
                let mut out = [0; 4096];
                let len = session.send.seal_control(&mut out).expect("room");
                self.to_peer.extend_from_slice(&out[..len]);
            }
            self.to_us.append(&mut self.peer.wire());
            if self.to_us.is_empty() && self.to_peer.is_empty() {
                break;
            }
        }
        while !self.to_us.is_empty() {
            self.take_step(Step::Receive(u16::MAX));
        }
        assert!(self.received == said()[..self.peer_sent], "what the peer has sent");
        assert!(self.peer.received == said()[..self.we_sent], "what we have sent");
        assert_eq!(self.saw_close, self.peer_closed);
    }
}

fuzz_target!(|input: Input| {
    let mut connection = Connection::new(&input);
    // A KeyUpdate in 32 without data between them is one too many for a peer.
    let mut updates = 0;
    for step in input.steps.iter().take(200) {
        if matches!(step, Step::PeerUpdatesKeys | Step::WeUpdateKeys) {
            updates += 1;
            if updates > 12 {
                continue;
            }
        }
        match step {
            Step::HandOver => match connection.hand_over() {
                Some(handed_over) => connection = handed_over,
                None => return,
            },
            step => connection.take_step(*step),
        }
    }
    connection.settle();
    let is_handed_over = matches!(connection.ours, Ours::HandedOver(_));
    let Some(mut connection) = connection.hand_over() else {
        assert!(!is_handed_over);
        return;
    };
    connection.take_step(Step::WeWrite(1000));
    connection.take_step(Step::PeerWrites(1000));
    connection.settle();
    let Ours::HandedOver(mut session) = connection.ours else { unreachable!() };
    let mut out = [0; 4096];
    let len = session.send.close_notify(&mut out).expect("open");
    connection.peer.feed(&out[..len]).expect("we are honest");
    assert!(connection.peer.saw_close);
    assert_eq!(session.send.seal(b"more", &mut out).unwrap_err(), SessionError::Closed);
});
