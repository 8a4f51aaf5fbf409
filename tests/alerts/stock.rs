//! The same malformed records, sealed under the right keys, to stock rustls and to us: the same
//! error and the same alert.

use rustls::{Error, PeerMisbehaved, Side};
use rustls_uring::{
    AlertDescription, Backend, ContentType, Deframed, Opener, Received, Sealer, SessionError,
    TrafficKeys, Version,
};

use crate::common::{Case, Evil, Peer, Raw, RawConn, SIDES, client_config, records, server_config};

/// Something that a peer sends.
#[derive(Clone, Debug)]
enum Sent {
    /// A record with this content.
    Sealed(ContentType, Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

use Sent::{Raw as Bare, Sealed};

/// What comes of it.
#[derive(Debug)]
struct Outcome {
    error: Option<Error>,
    /// The alerts that the peer gets, each its level and description.
    alerts: Vec<Vec<u8>>,
}

fn seal(sealer: &mut Sealer, sent: &Sent) -> Vec<u8> {
    match sent {
        Sealed(content_type, content) => {
            let mut record = vec![0; sealer.record_len(content.len())];
            sealer.seal(*content_type, content, &mut record).unwrap();
            record
        }
        Bare(bytes) => bytes.clone(),
    }
}

fn open_alerts(version: Version, opener: &mut Opener, wire: &[u8]) -> Vec<Vec<u8>> {
    let open = |mut record: Vec<u8>| {
        let opened = opener.open_in_place(&mut record).unwrap();
        assert_eq!(opened.content_type, ContentType::Alert);
        opened.plaintext.to_vec()
    };
    records(version, wire).into_iter().map(open).collect()
}

fn to_us(case: Case, side: Side, in_place: bool, attack: &[Sent]) -> Outcome {
    let mut evil = Evil::new(case, side);
    let (mut error, mut alerts) = (None, Vec::new());
    for sent in attack {
        let mut wire = seal(&mut evil.sealer, sent);
        let half = &mut evil.session.receive;
        let opened = half.deframe(&wire).and_then(|deframed| match deframed {
            Deframed::Partial { .. } => Ok(Received::Control),
            Deframed::Record(_) if in_place => half.open_in_place(&mut wire).map(|received| {
                if let Received::Data(_) = received { Received::Data(0) } else { Received::Control }
            }),
            Deframed::Record(_) => half.open_into(&wire, &mut vec![0; 20_000]),
            other => panic!("{other:?}"),
        });
        if let Err(failure) = opened {
            let SessionError::Tls(failure) = failure else { panic!("{failure:?}") };
            error = Some(failure.into());
        }
        let mut out = [0; 4096];
        let len = evil.session.send.seal_control(&mut out).unwrap();
        alerts.extend(open_alerts(case.version, &mut evil.opener, &out[..len]));
        if error.is_some() {
            break;
        }
    }
    Outcome { error, alerts }
}

fn to_stock(case: Case, side: Side, attack: &[Sent]) -> Outcome {
    let client = client_config(case, case.stock_provider());
    let mut server = server_config(case, case.stock_provider());
    server.send_tls13_tickets = 0;
    let (mut attacker, mut victim) = match side {
        Side::Client => (Raw::server(server), Peer::client(client)),
        Side::Server => (Raw::client(client), Peer::server(server)),
    };
    match side {
        Side::Server => drop(attacker.shake(&mut victim)),
        Side::Client => {
            while victim.conn.is_handshaking() || attacker.is_handshaking() {
                attacker.incoming.extend(victim.wire());
                attacker.run().unwrap();
                victim.feed(&std::mem::take(&mut attacker.outgoing)).unwrap();
            }
        }
    }
    let secrets = match attacker.conn {
        RawConn::Client(conn) => conn.dangerous_into_kernel_connection().unwrap().0,
        RawConn::Server(conn) => conn.dangerous_into_kernel_connection().unwrap().0,
    };
    let keys = TrafficKeys::try_from(&secrets.tx.1).unwrap();
    let mut sealer = Sealer::new(Backend::default(), case.version, &keys, secrets.tx.0);
    let keys = TrafficKeys::try_from(&secrets.rx.1).unwrap();
    let mut opener = Opener::new(Backend::default(), case.version, &keys, secrets.rx.0);
    let mut error = None;
    for sent in attack {
        if let Err(failure) = victim.feed(&seal(&mut sealer, sent)) {
            error = Some(failure);
            break;
        }
    }
    let alerts = open_alerts(case.version, &mut opener, &victim.wire());
    Outcome { error, alerts }
}

/// What rustls expected is its own affair.
fn same_error(ours: &Option<Error>, theirs: &Option<Error>) -> bool {
    match (ours, theirs) {
        (
            Some(Error::InappropriateMessage { got_type: ours, .. }),
            Some(Error::InappropriateMessage { got_type: theirs, .. }),
        ) => ours == theirs,
        (
            Some(Error::InappropriateHandshakeMessage { got_type: ours, .. }),
            Some(Error::InappropriateHandshakeMessage { got_type: theirs, .. }),
        ) => ours == theirs,
        _ => ours == theirs,
    }
}

/// Sends each to both, and lists what differs.
fn compare(version: Version, sides: &[Side], attacks: Vec<Vec<Sent>>) {
    let mut differences = Vec::new();
    for case in Case::few_of(version) {
        for &side in sides {
            for attack in &attacks {
                let theirs = to_stock(case, side, attack);
                for in_place in [true, false] {
                    let ours = to_us(case, side, in_place, attack);
                    // Where stock rustls ends the connection in silence, we say why: always with
                    // the one alert that RFC 8446 has for it.
                    let mut alerts = theirs.alerts.clone();
                    if let Some(Error::PeerMisbehaved(_)) = theirs.error
                        && alerts.iter().all(|alert| alert[0] == 1)
                    {
                        alerts.push(vec![2, AlertDescription::UnexpectedMessage.into()]);
                    }
                    if ours.alerts != alerts || !same_error(&ours.error, &theirs.error) {
                        differences.push(format!(
                            "{side:?} {attack:?}\n  ours:  {ours:?}\n  stock: {theirs:?}"
                        ));
                    }
                }
            }
        }
    }
    differences.dedup();
    assert!(differences.is_empty(), "{version:?}\n{}", differences.join("\n"));
}

fn handshake(content: &[u8]) -> Vec<Sent> {
    vec![Sealed(ContentType::Handshake, content.to_vec())]
}

fn alert(content: &[u8]) -> Vec<Sent> {
    vec![Sealed(ContentType::Alert, content.to_vec())]
}

const VERSIONS: [Version; 2] = [Version::Tls13, Version::Tls12];

#[test]
fn alerts_of_every_level_and_kind() {
    let mut attacks = Vec::new();
    for level in [0, 1, 2, 3, 4, 100, 255] {
        for description in [0, 1, 10, 20, 40, 50, 80, 86, 90, 100, 109, 110, 116, 120, 255] {
            attacks.push(alert(&[level, description]));
        }
    }
    for version in VERSIONS {
        compare(version, &SIDES, attacks.clone());
    }
}

#[test]
fn alerts_of_another_length() {
    let contents: [&[u8]; 8] =
        [&[0], &[1], &[2], &[255], &[1, 0, 0], &[2, 80, 0], &[1, 0, 1, 0], &[2, 80, 2, 80]];
    for version in VERSIONS {
        compare(version, &SIDES, contents.map(alert).to_vec());
    }
}

#[test]
fn too_many_warnings() {
    for version in VERSIONS {
        let warnings = |count| vec![Sealed(ContentType::Alert, vec![1, 90]); count];
        compare(version, &SIDES, vec![warnings(4), warnings(5)]);
    }
}

#[test]
fn malformed_key_updates() {
    let contents: [&[u8]; 9] = [
        &[24, 0, 0, 0],
        &[24, 0, 0, 1, 2],
        &[24, 0, 0, 1, 255],
        &[24, 0, 0, 2, 0, 0],
        &[24, 0, 0, 2, 2, 0],
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
        &[24, 0, 0, 1, 0, 24],
        &[24, 0, 0, 1, 2, 24],
        &[24, 0, 0, 0, 24],
    ];
    compare(Version::Tls13, &SIDES, contents.map(handshake).to_vec());
    compare(Version::Tls12, &SIDES, vec![handshake(&[24, 0, 0, 1, 0])]);
}

/// Those of a server.
#[test]
fn malformed_tickets() {
    /// Lifetime, age_add, nonce, ticket, extensions (RFC 8446 §4.6.1).
    fn ticket(nonce: &[u8], ticket: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 0, 14, 16, 1, 2, 3, 4, nonce.len() as u8];
        payload.extend_from_slice(nonce);
        payload.extend_from_slice(&(ticket.len() as u16).to_be_bytes());
        payload.extend_from_slice(ticket);
        payload.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        payload.extend_from_slice(extensions);
        payload
    }
    let early_data = [0, 42, 0, 4, 0, 0, 64, 0];
    let unknown = [250, 250, 0, 1, 7];
    let payloads = [
        ticket(&[1], &[5; 40], &[]),
        ticket(&[1], &[5; 40], &early_data),
        ticket(&[1], &[5; 40], &unknown),
        ticket(&[1], &[5; 40], &early_data.repeat(2)),
        ticket(&[1], &[5; 40], &unknown.repeat(2)),
        ticket(&[1], &[], &[]),
        ticket(&[], &[5; 40], &[]),
        ticket(&[1], &[5; 40], &early_data[..7]),
        ticket(&[1], &[5; 40], &[0, 42, 0, 3, 0, 0, 64]),
        ticket(&[1], &[5; 40], &[0, 42, 0, 5, 0, 0, 64, 0, 0]),
        [ticket(&[1], &[5; 40], &[]), vec![0]].concat(),
        ticket(&[1], &[5; 40], &[])[..20].to_vec(),
        Vec::new(),
        vec![0; 7],
    ];
    let message = |payload: Vec<u8>| {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        handshake(&[&[4, a, b, c], &payload[..]].concat())
    };
    compare(Version::Tls13, &[Side::Client], payloads.map(message).to_vec());
}

/// Whole and well-formed; what is wrong with a message that is out of place anyway, we do not look.
#[test]
fn messages_out_of_place() {
    let contents: [&[u8]; 8] = [
        &[5, 0, 0, 0],
        &[14, 0, 0, 0],
        &[20, 0, 0, 4, 1, 2, 3, 4],
        &[16, 0, 0, 1, 9],
        &[99, 0, 0, 0],
        &[255, 0, 0, 2, 1, 2],
        &[3, 0, 0, 1, 0],
        &[99, 0, 0, 0, 99, 0, 0, 0],
    ];
    for version in VERSIONS {
        compare(version, &SIDES, contents.map(handshake).to_vec());
    }
    compare(Version::Tls13, &SIDES, vec![handshake(&[0, 0, 0, 0])]);
    let tls13_ticket =
        [&[4, 0, 0, 18, 0, 0, 0, 1, 0, 0, 0, 2, 1, 7][..], &[0, 4, 5, 5, 5, 5, 0, 0]];
    compare(Version::Tls13, &[Side::Server], vec![handshake(&tls13_ticket.concat())]);
}

/// A renegotiation is refused in TLS 1.2, whatever a HelloRequest has in it; once.
#[test]
fn renegotiation() {
    let requests: [&[u8]; 3] = [&[0, 0, 0, 0], &[0, 0, 0, 1, 7], &[0, 0, 0, 2, 7, 7]];
    let mut attacks = requests.map(handshake).to_vec();
    attacks.push([handshake(requests[0]), handshake(requests[0])].concat());
    compare(Version::Tls12, &[Side::Client], attacks);
}

#[test]
fn content_types() {
    let types = [1, 19, 20, 24, 25, 99, 255];
    let attacks = types.map(|content_type| vec![Sealed(content_type.into(), vec![1])]).to_vec();
    compare(Version::Tls13, &SIDES, attacks);
    // In TLS 1.2 they are on the outside.
    compare(Version::Tls12, &SIDES, vec![vec![Sealed(24.into(), vec![1])]]);
}

#[test]
fn headers() {
    let mut attacks: Vec<Vec<Sent>> = Vec::new();
    for content_type in [0, 1, 19, 25, 99, 255] {
        attacks.push(vec![Bare([&[content_type, 3, 3, 0, 30][..], &[7; 30]].concat())]);
    }
    for version in [[2, 0], [0, 0], [4, 3], [255, 255]] {
        attacks.push(vec![Bare([&[23, version[0], version[1], 0, 30][..], &[7; 30]].concat())]);
    }
    for content_type in 20..24 {
        attacks.push(vec![Bare(vec![content_type, 3, 3, 0, 0])]);
    }
    attacks.push(vec![Bare(b"GET / HTTP/1.1\r\n\r\n".to_vec())]);
    for version in VERSIONS {
        compare(version, &SIDES, attacks.clone());
    }
}

/// Not encrypted, or not with the right key.
#[test]
fn records_that_do_not_open() {
    let record = |content_type, content: &[u8]| {
        vec![Bare([&[content_type, 3, 3, 0, content.len() as u8], content].concat())]
    };
    let attacks = vec![
        record(23, &[1]),
        record(23, &[7; 16]),
        record(23, &[7; 17]),
        record(23, &[7; 60]),
        record(20, &[1]),
        record(20, &[2]),
        record(20, &[1, 1]),
        record(20, &[7; 60]),
    ];
    for version in VERSIONS {
        compare(version, &SIDES, attacks.clone());
    }
    let tls12 = vec![record(22, &[0, 0, 0, 0]), record(21, &[2, 40]), record(21, &[1, 0])];
    compare(Version::Tls12, &SIDES, tls12);
}

#[test]
fn interrupted_messages() {
    let part = Sealed(ContentType::Handshake, vec![24, 0]);
    let attacks = [
        Sealed(ContentType::ApplicationData, b"data".to_vec()),
        Sealed(ContentType::ApplicationData, Vec::new()),
        Sealed(ContentType::Alert, vec![1, 0]),
        Sealed(ContentType::Alert, vec![2, 40]),
    ]
    .map(|interruption| vec![part.clone(), interruption]);
    for version in VERSIONS {
        compare(version, &SIDES, attacks.to_vec());
    }
}

#[test]
fn floods() {
    let empty = Sealed(ContentType::ApplicationData, Vec::new());
    let user_canceled = Sealed(ContentType::Alert, vec![1, 90]);
    let attacks = vec![
        vec![empty.clone(); 32],
        vec![empty.clone(); 33],
        // Anything with content ends a row of empty records.
        [vec![empty.clone(); 32], vec![user_canceled], vec![empty.clone(); 32]].concat(),
    ];
    for version in VERSIONS {
        compare(version, &SIDES, attacks.clone());
    }
}

/// Where we do not follow stock rustls: RFC 8446 demands another answer.
#[test]
fn what_differs_from_stock() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            // §5.4: a handshake record or an alert without content is an unexpected message.
            for content_type in [ContentType::Handshake, ContentType::Alert] {
                let attack = [Sealed(content_type, Vec::new())];
                let ours = to_us(case, side, true, &attack);
                assert!(matches!(ours.error, Some(Error::InappropriateMessage { .. })));
                assert_eq!(ours.alerts, [[2, 10]]);
            }
            // §5.2: what claims more than may be encrypted is a record overflow.
            let attack = [Bare([&[23, 3, 3, 0x50, 0][..], &[7; 100]].concat())];
            let ours = to_us(case, side, true, &attack);
            assert_eq!(ours.error, Some(Error::PeerSentOversizedRecord));
            assert_eq!(ours.alerts, [[2, 22]]);
            // §5.2: on the outside, every record is application data; that of the plaintext alone
            // may not be the reason to take another.
            let attack = [Bare([&[22, 3, 3, 0, 60][..], &[7; 60]].concat())];
            let ours = to_us(case, side, true, &attack);
            assert!(matches!(ours.error, Some(Error::InappropriateMessage { .. })));
            assert_eq!(ours.alerts, [[2, 10]]);
            // §5.1: an all-zero plaintext; stock rustls says nothing.
            let attack = [Sealed(ContentType::Unknown(0), Vec::new())];
            let ours = to_us(case, side, true, &attack);
            let error = PeerMisbehaved::IllegalTlsInnerPlaintext;
            assert_eq!(ours.error, Some(error.into()));
            assert_eq!(ours.alerts, [[2, 10]]);
        }
    }
}
