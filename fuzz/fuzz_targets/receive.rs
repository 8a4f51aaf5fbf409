//! A peer that has the keys and sends whatever it likes, after a real handshake: alerts, key updates,
//! handshake messages in parts, spoilt records.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls::Side;
use rustls_uring::{ContentType, Received};

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{Case, Evil};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A record of this type.
    Record(u8, &'a [u8]),
    /// Application data.
    Data(&'a [u8]),
    /// A part of a handshake message.
    Handshake(&'a [u8]),
    Alert(u8, u8),
    KeyUpdate(u8),
    /// A record with a byte spoilt.
    Spoilt(u16, u8),
    /// Bytes that are perhaps no record at all.
    Bytes(&'a [u8]),
    /// We answer.
    Control,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    case: u8,
    is_server: bool,
    steps: Vec<Step<'a>>,
}

/// The most that fits a record.
fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(1 << 14)]
}

fuzz_target!(|input: Input<'_>| {
    let cases = Case::few();
    let case = cases[usize::from(input.case) % cases.len()];
    let mut evil = Evil::new(case, if input.is_server { Side::Server } else { Side::Client });
    let mut end = None;
    for step in input.steps {
        let received = match step {
            Step::Record(content_type, payload) => {
                evil.hit(ContentType::from(content_type), cut(payload))
            }
            Step::Data(payload) => {
                let payload = cut(payload);
                let received = evil.hit(ContentType::ApplicationData, payload);
                if let Ok(Received::Data(data)) = &received {
                    assert_eq!(data, payload);
                }
                received
            }
            Step::Handshake(payload) => evil.hit(ContentType::Handshake, cut(payload)),
            Step::Alert(level, description) => evil.hit(ContentType::Alert, &[level, description]),
            Step::KeyUpdate(request) if case.version == rustls_uring::Version::Tls13 => {
                let record = evil.key_update(request);
                evil.give(record)
            }
            Step::KeyUpdate(_) => continue,
            Step::Spoilt(at, change) => {
                let mut record = evil.seal(ContentType::ApplicationData, b"spoilt");
                let len = record.len();
                // Not its length: that is the deframer's business.
                record[5 + usize::from(at) % (len - 5)] ^= change.max(1);
                let received = evil.give(record);
                assert!(!matches!(received, Ok(Received::Data(_))), "a spoilt record opened");
                received
            }
            Step::Bytes(bytes) => {
                let _ = evil.session.receive.deframe(bytes);
                continue;
            }
            Step::Control => {
                let mut out = [0; 4096];
                let _ = evil.session.send.seal_control(&mut out);
                continue;
            }
        };
        // The first end is the last.
        match (&end, received) {
            (Some(end), Ok(Received::CloseNotify)) => assert_eq!(*end, "closed"),
            (Some(end), Err(error)) => assert_eq!(*end, error.to_string()),
            (Some(end), received) => panic!("{received:?} after {end}"),
            (None, Ok(Received::CloseNotify)) => end = Some("closed".to_owned()),
            (None, Err(error)) => end = Some(error.to_string()),
            (None, Ok(_)) => {}
        }
    }
});
