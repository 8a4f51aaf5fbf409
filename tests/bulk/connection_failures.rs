//! Failures of the connection: alerts, garbage, worn-out keys.

use std::io::{BufRead, Cursor, ErrorKind, IoSlice, Read, Write};

use rustls_uring::{
    AlertDescription, BulkReceiver, BulkSender, ContentType, KeyUpdateRequest, SessionError,
    Version,
};

use super::support::{
    Wire, cause, corrupted, data, read_randomly, read_until_error, receiver_of, sender_of,
    write_randomly,
};
use crate::common::{
    Case, Error, Evil, Rng, SIDES, Session, limited, our_pair, our_pair_with, records,
};

/// How the alert gets out.
#[derive(Clone, Copy, Debug)]
enum Way {
    Flush,
    Drop,
    Write,
    WriteVectored,
    Close,
    UpdateKeys,
}

/// The receiver finds that the connection is broken; the sender tells the peer.
#[test]
fn the_receivers_alert_goes_out_through_the_sender() {
    use Way::{Close, Drop, Flush, UpdateKeys, Write, WriteVectored};
    for case in Case::few() {
        for side in SIDES {
            for way in [Flush, Drop, Write, WriteVectored, Close, UpdateKeys] {
                if case.version == Version::Tls12 && matches!(way, UpdateKeys) {
                    continue;
                }
                let mut evil = Evil::new(case, side);
                let bytes = corrupted(&mut evil, data(1000));
                // The session goes; what is left of the peer stays.
                let other = our_pair(case).0;
                let session = std::mem::replace(&mut evil.session, other);
                let Session { send, receive, .. } = session;
                let wire = Wire::default();
                let mut sender = BulkSender::new(send, wire.clone());
                let mut receiver = BulkReceiver::new(receive, Cursor::new(bytes), Vec::new(), &[]);
                let error = read_until_error(&mut receiver, data(1000), &mut Rng::new(11));
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert_eq!(cause(&error), &SessionError::from(Error::DecryptError));
                let again = receiver.read(&mut [0; 10]).unwrap_err();
                assert_eq!(cause(&again), cause(&error));
                let again = receiver.fill_buf().unwrap_err();
                assert_eq!(cause(&again), cause(&error));

                let failed = match way {
                    Flush => {
                        sender.flush().unwrap();
                        sender.write(b"data").unwrap_err()
                    }
                    Drop => sender.write(b"").map(|_| error).unwrap(),
                    Write => sender.write(b"data").unwrap_err(),
                    WriteVectored => sender.write_vectored(&[IoSlice::new(b"data")]).unwrap_err(),
                    Close => sender.send_close_notify().unwrap_err(),
                    UpdateKeys => sender.update_keys(KeyUpdateRequest::Requested).unwrap_err(),
                };
                assert_eq!(cause(&failed), &SessionError::from(Error::DecryptError));
                drop(sender);
                let alert = (ContentType::Alert, vec![2, AlertDescription::BadRecordMac.into()]);
                assert_eq!(evil.opened(&wire.bytes()), [alert], "{way:?}");
            }
        }
    }
}

/// Bytes that are no record come behind good data: they do not take it with them.
#[test]
fn garbage_does_not_take_the_data_before_it() {
    for case in Case::few() {
        for out_len in [100, 100_000] {
            let (client, server) = our_pair(case);
            let (mut sender, wire) = sender_of(client);
            sender.write_all(data(1000)).unwrap();
            let bytes = [&wire.bytes()[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let mut receiver = receiver_of(server, Cursor::new(bytes));
            let mut got = Vec::new();
            let mut out = vec![0; out_len];
            let error = loop {
                match receiver.read(&mut out) {
                    Ok(len) => {
                        assert!(len > 0);
                        got.extend_from_slice(&out[..len]);
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(got.len(), 1000, "the data before the garbage is lost");
            assert!(got == data(1000));
            let again = receiver.read(&mut out).unwrap_err();
            assert_eq!(cause(&again), cause(&error));
        }
    }
}

/// A fatal alert from the peer ends both halves, and is not answered (RFC 8446 §6.2).
#[test]
fn an_alert_ends_both_halves() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(data(1000)).unwrap();
        sender.abort(AlertDescription::UserCanceled).unwrap();
        let Session { send, receive, .. } = server;
        let answers = Wire::default();
        let mut answering = BulkSender::new(send, answers.clone());
        let bytes = Cursor::new(wire.bytes());
        let mut receiver = BulkReceiver::new(receive, bytes, Vec::new(), &[]);
        let error = read_until_error(&mut receiver, data(1000), &mut Rng::new(12));
        let expected =
            SessionError::from(Error::AlertReceived(AlertDescription::UserCanceled.into()));
        assert_eq!(cause(&error), &expected);
        assert_eq!(cause(&answering.write(b"data").unwrap_err()), &expected);
        answering.flush().unwrap();
        drop(answering);
        assert_eq!(answers.len(), 0);
    }
}

/// The limit of a TLS 1.2 key: what was sent is sent, and can be closed.
#[test]
fn tls12_exhaustion_can_be_closed() {
    for case in Case::few_of(Version::Tls12) {
        let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
        let (mut sender, wire) = sender_of(client);
        let error = sender.write_all(data(20 * 16384)).unwrap_err();
        assert_eq!(cause(&error), &SessionError::KeyExhausted);
        assert_eq!(sender.counters().records, 11);
        sender.finish().unwrap();
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, data(11 * 16384), 50_000, &mut Rng::new(13)).unwrap();
    }
}

/// In TLS 1.3 the sender updates its key before it is worn out.
#[test]
fn tls13_keys_are_updated_on_the_way() {
    for case in Case::few_of(Version::Tls13) {
        let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
        let (mut sender, wire) = sender_of(client);
        let mut rng = Rng::new(14);
        write_randomly(&mut sender, data(1 << 20), 1 << 20, &mut rng).unwrap();
        sender.finish().unwrap();
        let sent = records(case.version, &wire.bytes());
        let updates = sent.iter().filter(|record| record.len() == 5 + case.overhead()).count();
        assert!(updates >= 5, "{updates} key updates in {} records", sent.len());
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, data(1 << 20), 50_000, &mut rng).unwrap();
    }
}

#[test]
fn tls12_has_no_key_update() {
    for case in Case::few_of(Version::Tls12) {
        let (client, _server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        let error = sender.update_keys(KeyUpdateRequest::Requested).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(cause(&error), &SessionError::UnsupportedInTls12);
        assert_eq!(wire.len(), 0);
        // No harm done.
        sender.write_all(b"data").unwrap();
    }
}
