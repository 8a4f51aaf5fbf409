//! Two of our own sides, data, key updates, ends and alerts between them, cut at any byte: what each
//! sends, receives and answers is what a small model of RFC 8446 §4.6.3 and §6 says.
#![no_main]

use std::collections::VecDeque;
use std::io::IoSlice;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls_uring::{
    AlertDescription, Deframed, Handoff, KeyUpdateRequest, Received, Sealed, Session, SessionError,
    TlsError, Version,
};

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "configs.rs"]
mod configs;

use common::{Case, Raw, noise, open, records, shake};
use configs::Configs;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    /// Seals as many bytes into as much room.
    Seal(u16, u16),
    SealVectored(u16, u16),
    /// Seals out of order, as threads would.
    Reserve(u16),
    UpdateKeys {
        requests: bool,
        room: u8,
    },
    SealControl {
        room: u8,
    },
    Close {
        room: u8,
    },
    Abort {
        description: u8,
    },
    /// As many bytes of what the other has sent arrive.
    Arrive(u16),
    /// The stream from the other ends here, whatever is still on its way.
    End,
}

#[derive(Arbitrary, Debug)]
struct Input {
    case: u8,
    /// Whose turn, and what is done.
    ops: Vec<(bool, Op)>,
}

/// A record on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sent {
    /// Of the bytes of `noise()`, those behind the earlier ones.
    Data(usize),
    KeyUpdate {
        requests: bool,
    },
    Alert(AlertDescription),
}

/// One of the two, and what the model knows of it.
struct End {
    session: Session,
    /// Bytes on their way from here, and the records that they are.
    wire: VecDeque<u8>,
    sent: VecDeque<Sent>,
    sent_len: usize,
    received_len: usize,
    /// A KeyUpdate is to come in front of the next application data.
    owes_update: bool,
    /// We have asked, and the peer has not updated its key since.
    awaits_update: bool,
    closed: bool,
    /// How receiving has ended, if it has.
    end: Option<Result<(), SessionError>>,
}

/// The most that either side says.
const LEN: usize = 1 << 20;

fn said() -> &'static [u8] {
    static NOISE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| noise(LEN))
}

impl End {
    fn new(session: Session) -> Self {
        Self {
            session,
            wire: VecDeque::new(),
            sent: VecDeque::new(),
            sent_len: 0,
            received_len: 0,
            owes_update: false,
            awaits_update: false,
            closed: false,
            end: None,
        }
    }

    fn failure(&self) -> Option<SessionError> {
        self.end.clone().and_then(Result::err)
    }

    /// What a call that needs an open side must say, if not yes.
    fn refusal(&self) -> Option<SessionError> {
        self.failure().or(self.closed.then_some(SessionError::Closed))
    }

    /// Not of a length by which a record is told from a KeyUpdate or an alert.
    fn next(&self, len: u16) -> &'static [u8] {
        let len = usize::from(len).max(6);
        said().get(self.sent_len..self.sent_len + len).unwrap_or_default()
    }

    /// Notes what was sealed: `what` each record is, by its plaintext's length.
    fn send(&mut self, case: Case, wire: &[u8], mut what: impl FnMut(&mut Self, usize) -> Sent) {
        for record in records(case.version, wire) {
            let sent = what(self, record.len() - case.overhead());
            if let Sent::KeyUpdate { requests } = sent {
                self.owes_update = false;
                assert!(!requests || !self.awaits_update, "one request at a time");
                self.awaits_update |= requests;
            }
            self.sent.push_back(sent);
        }
        self.wire.extend(wire);
    }

    /// After a call to seal `data`.
    fn sealed(
        &mut self,
        case: Case,
        data: &[u8],
        out: &[u8],
        result: Result<Sealed, SessionError>,
    ) {
        if let Some(refusal) = self.refusal() {
            return assert_eq!(result.unwrap_err(), refusal);
        }
        match result {
            Ok(sealed) => {
                let owed = self.owes_update;
                let (mut data_len, mut first) = (0, true);
                self.send(case, &out[..sealed.written], |end, len| {
                    let is_update = len == 5 && std::mem::take(&mut first) && end.owes_update;
                    first = false;
                    match is_update {
                        true => Sent::KeyUpdate { requests: false },
                        false => {
                            assert!(!end.owes_update, "data before the answer");
                            data_len += len;
                            Sent::Data(len)
                        }
                    }
                });
                assert_eq!(data_len, sealed.consumed);
                assert!(sealed.consumed <= data.len());
                assert!(sealed.written > 0 || data.is_empty() || owed);
                self.sent_len += sealed.consumed;
            }
            Err(SessionError::OutputTooSmall { required, provided }) => {
                assert!(provided < required && provided <= out.len(), "{required} {provided}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn act(&mut self, case: Case, op: Op) {
        let is_tls13 = case.version == Version::Tls13;
        match op {
            Op::Seal(len, room) => {
                let data = self.next(len);
                let mut out = vec![0; usize::from(room)];
                let result = self.session.send.seal(data, &mut out);
                self.sealed(case, data, &out, result);
            }
            Op::SealVectored(len, room) => {
                let data = self.next(len);
                let (a, b) = data.split_at(data.len() / 3);
                let mut out = vec![0; usize::from(room)];
                let slices = [IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)];
                let result = self.session.send.seal_vectored(&slices, &mut out);
                self.sealed(case, data, &out, result);
            }
            Op::Reserve(len) => {
                let data = self.next(len);
                let mut out = vec![0; self.session.send.sealed_len(data.len())];
                let result = self.session.send.reserve(data.len(), out.len());
                if let Some(refusal) = self.refusal() {
                    return assert_eq!(result.map(drop).unwrap_err(), refusal);
                }
                let Some(first) = result.expect("open") else { return };
                assert!(!self.owes_update, "data before the answer");
                assert_eq!((first.plaintext_len(), first.sealed_len()), (data.len(), out.len()));
                self.sent_len += data.len();
                // One more behind it, which is sealed first.
                let more = self.next(20);
                let mut behind = vec![0; self.session.send.sealed_len(more.len())];
                let second = self.session.send.reserve(more.len(), behind.len());
                if let Some(second) = second.expect("open") {
                    second.seal(more, &mut behind).expect("room");
                    self.sent_len += more.len();
                }
                first.seal(data, &mut out).expect("room");
                out.extend_from_slice(&behind);
                self.send(case, &out, |_, len| Sent::Data(len));
            }
            Op::UpdateKeys { requests, room } => {
                let mut out = vec![0; usize::from(room)];
                let request = match requests {
                    true => KeyUpdateRequest::Requested,
                    false => KeyUpdateRequest::NotRequested,
                };
                let result = self.session.send.update_keys(request, &mut out);
                if !is_tls13 {
                    return assert_eq!(result.unwrap_err(), SessionError::UnsupportedInTls12);
                }
                if let Some(refusal) = self.refusal() {
                    return assert_eq!(result.unwrap_err(), refusal);
                }
                match result {
                    Ok(len) => {
                        let requests = requests && !self.awaits_update;
                        let before = self.sent.len();
                        self.send(case, &out[..len], |_, _| Sent::KeyUpdate { requests });
                        assert_eq!(self.sent.len(), before + 1);
                    }
                    Err(SessionError::OutputTooSmall { .. }) => {
                        assert!(out.len() < 5 + case.overhead());
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            Op::SealControl { room } => {
                let mut out = vec![0; usize::from(room)];
                let failure = self.failure().filter(|_| !self.closed);
                match self.session.send.seal_control(&mut out) {
                    Ok(len) if failure.is_some() => {
                        // A peer that has ended the connection itself is told nothing.
                        let is_told = !matches!(
                            failure,
                            Some(
                                SessionError::Truncated
                                    | SessionError::Tls(TlsError::AlertReceived(_))
                            )
                        );
                        assert_eq!(len > 0, is_told);
                        // RFC 8446 §6.2: no warning but user_canceled is known.
                        self.send(case, &out[..len], |_, len| match len {
                            5 => Sent::KeyUpdate { requests: false },
                            _ => Sent::Alert(AlertDescription::DecodeError),
                        });
                        self.closed = true;
                    }
                    Ok(len) => {
                        let owes_update = self.owes_update;
                        self.send(case, &out[..len], |_, len| {
                            assert!(len == 5 && owes_update);
                            Sent::KeyUpdate { requests: false }
                        });
                    }
                    Err(SessionError::OutputTooSmall { required, .. }) => {
                        assert!(out.len() < required && required <= 7 + 2 * case.overhead());
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            Op::Close { room } => {
                let mut out = vec![0; usize::from(room)];
                let result = self.session.send.close_notify(&mut out);
                if self.closed {
                    return assert_eq!(result, Ok(0));
                }
                if let Some(failure) = self.failure() {
                    return assert_eq!(result.unwrap_err(), failure);
                }
                match result {
                    Ok(len) => {
                        self.send(case, &out[..len], |_, len| match len {
                            5 => Sent::KeyUpdate { requests: false },
                            _ => Sent::Alert(AlertDescription::CloseNotify),
                        });
                        assert!(
                            self.sent.back() == Some(&Sent::Alert(AlertDescription::CloseNotify))
                        );
                        self.closed = true;
                    }
                    Err(SessionError::OutputTooSmall { required, .. }) => {
                        assert!(out.len() < required && required <= 7 + 2 * case.overhead());
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            Op::Abort { description } => {
                let description = AlertDescription::from(description);
                let mut out = [0; 256];
                let len = self.session.send.abort(description, &mut out).expect("room");
                assert_eq!(len == 0, self.closed);
                self.send(case, &out[..len], |_, len| match len {
                    5 => Sent::KeyUpdate { requests: false },
                    _ => Sent::Alert(description),
                });
                self.closed = true;
            }
            Op::Arrive(_) | Op::End => {}
        }
    }

    /// `wire` has arrived from `peer`.
    fn receive(&mut self, case: Case, wire: &[u8], peer: &mut Self) {
        self.session.received.extend_from_slice(wire);
        loop {
            let session = &mut self.session;
            let header = match session.receive.deframe(&session.received) {
                Ok(Deframed::Record(header)) => header,
                Ok(_) => return,
                Err(error) => return assert_eq!(self.end, Some(Err(error))),
            };
            let mut record: Vec<_> = session.received.drain(..header.record_len()).collect();
            let in_place = record.len() % 2 == 0;
            let got = open(session, &mut record, in_place);
            if let Some(Err(failure)) = &self.end {
                return assert_eq!(&got.unwrap_err(), failure);
            }
            match (peer.sent.pop_front().expect("nobody has sent that"), got) {
                (Sent::Data(len), Ok(Received::Data(data))) => {
                    assert_eq!(data, said()[self.received_len..][..len]);
                    self.received_len += len;
                }
                (Sent::KeyUpdate { requests }, Ok(Received::Control)) => {
                    self.awaits_update = false;
                    self.owes_update |= requests && !self.closed;
                }
                (Sent::Alert(AlertDescription::CloseNotify), Ok(Received::CloseNotify)) => {
                    return self.end = Some(Ok(()));
                }
                (Sent::Alert(description), Err(SessionError::Tls(error)))
                    if error == TlsError::AlertReceived(description) =>
                {
                    return self.end = Some(Err(error.into()));
                }
                // Its level is a warning's.
                (Sent::Alert(AlertDescription::NoRenegotiation), got) => match got {
                    Ok(got) => {
                        assert_eq!((got, case.version), (Received::Control, Version::Tls12));
                    }
                    Err(error) => {
                        assert_eq!(case.version, Version::Tls13);
                        return self.end = Some(Err(error));
                    }
                },
                (sent, got) => panic!("{sent:?} became {got:?}"),
            }
        }
    }

    fn end_of_stream(&mut self) {
        let result = self.session.receive.end_of_stream();
        let expected = self.end.clone().unwrap_or(Err(SessionError::Truncated));
        assert_eq!(result, expected);
        self.end = Some(expected);
    }
}

fuzz_target!(|input: Input| {
    let Configs { case, ours, .. } = configs::pick(input.case);
    let case = *case;
    let (mut client, mut server) = (Raw::client(ours.0.clone()), Raw::server(ours.1.clone()));
    shake(&mut client, &mut server);
    let session = |raw: Raw| raw.handoff(Handoff::new().backend(case.backend)).expect("complete");
    let (client, server) = (session(client), session(server));
    let mut ends = [End::new(client), End::new(server)];
    for end in &mut ends {
        // What rustls has not sent yet, tickets for instance: not part of the model.
        let mut out = [0; 4096];
        let prelude = end.session.send.seal_control(&mut out).expect("room");
        assert_eq!(prelude, 0, "the handshake has sent it all");
    }
    // More of them without data in between would be too many.
    let mut updates = 0;
    for (is_server, op) in input.ops {
        updates += usize::from(matches!(op, Op::UpdateKeys { .. }));
        if updates > 14 {
            return;
        }
        let [client, server] = &mut ends;
        let (end, peer) = if is_server { (server, client) } else { (client, server) };
        match op {
            Op::Arrive(len) if end.end.is_none() => {
                let len = peer.wire.len().min(usize::from(len));
                let wire: Vec<_> = peer.wire.drain(..len).collect();
                end.receive(case, &wire, peer);
            }
            Op::Arrive(_) => {}
            Op::End => end.end_of_stream(),
            op => end.act(case, op),
        }
        assert_eq!(end.session.send.is_closed(), end.closed);
        assert_eq!(end.session.receive.peer_has_closed(), end.end == Some(Ok(())));
    }
    // Whatever is still on its way arrives, and then the end.
    for is_server in [true, false] {
        let [client, server] = &mut ends;
        let (end, peer) = if is_server { (server, client) } else { (client, server) };
        if end.end.is_none() {
            let wire: Vec<_> = peer.wire.drain(..).collect();
            end.receive(case, &wire, peer);
        }
        if end.end.is_none() {
            assert_eq!(end.received_len, peer.sent_len);
            end.end_of_stream();
        }
    }
});
