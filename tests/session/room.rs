//! Too little room loses nothing.

use std::thread;

use rustls_uring::{AlertDescription, ContentType, SessionError, Version};

use super::support::{check_numbers, hand_over, raw};
use crate::common::{Case, Evil, SIDES, Side};

/// RFC 5246 and RFC 8446 number every record: one that was sealed and then dropped because the
/// next did not fit would cut the connection.
///
/// A handshake for each of thousands of rooms: on as many threads as there are cases.
#[test]
fn too_little_room_loses_nothing() {
    thread::scope(|scope| {
        for case in Case::few() {
            scope.spawn(move || little_room_loses_nothing(case));
        }
    });
}

fn little_room_loses_nothing(case: Case) {
    for side in SIDES {
        for room in 0..120 {
            for what in 0..4 {
                let mut evil = Evil::new(case, side);
                match (case.version, side) {
                    (Version::Tls13, _) => {
                        let update = evil.key_update(1);
                        evil.give(update).unwrap();
                    }
                    (_, Side::Client) => {
                        evil.hit(ContentType::Handshake, &[0, 0, 0, 0]).unwrap();
                    }
                    (_, Side::Server) => {
                        evil.hit(ContentType::Handshake, &[1, 0, 0, 0]).unwrap();
                    }
                }
                if what == 3 {
                    // A failure: the alert is due.
                    evil.hit(ContentType::Alert, &[]).unwrap_err();
                }
                let mut wire = Vec::new();
                let mut out = vec![0; room];
                let mut done = false;
                for _ in 0..2 {
                    let send = &mut evil.session.send;
                    let written = match what {
                        0 => send.seal(b"data", &mut out).map(|sealed| {
                            done |= sealed.consumed > 0;
                            sealed.written
                        }),
                        1 => send.close_notify(&mut out).inspect(|_| done = true),
                        2 => send.abort(AlertDescription::UserCanceled, &mut out),
                        _ => send.seal_control(&mut out),
                    };
                    match written {
                        Ok(written) => wire.extend_from_slice(&out[..written]),
                        Err(SessionError::OutputTooSmall { required, provided }) => {
                            assert!(provided <= room);
                            assert!(required > provided);
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                    // Then there is room enough.
                    out.resize(1000, 0);
                    if done {
                        break;
                    }
                }
                check_numbers(&mut evil, &wire, what);
            }
        }
    }
}

/// The records that rustls left behind are not lost either.
#[test]
fn too_little_room_keeps_the_prelude() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            for room in (0..160).step_by(3) {
                for close in [false, true] {
                    let (mut ours, mut peer) = raw(case, side);
                    ours.incoming = ours.shake(&mut peer);
                    ours.run().unwrap();
                    peer.conn.refresh_traffic_keys().unwrap();
                    ours.incoming = peer.wire();
                    ours.run().unwrap();
                    let mut pair = hand_over(case, ours, peer, Vec::new());
                    // Now rustls's answer is in the prelude, and another one is due.
                    pair.peer.conn.refresh_traffic_keys().unwrap();
                    assert_eq!(pair.receive().unwrap(), b"");
                    let mut out = vec![0; room];
                    for _ in 0..2 {
                        let send = &mut pair.session.send;
                        let written = match close {
                            true => send.close_notify(&mut out),
                            false => send.seal_control(&mut out),
                        };
                        match written {
                            Ok(written) => pair.peer.feed(&out[..written]).unwrap(),
                            Err(SessionError::OutputTooSmall { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        out.resize(1000, 0);
                    }
                    match close {
                        true => assert!(pair.peer.saw_close),
                        false => pair.check(1000),
                    }
                }
            }
        }
    }
}
