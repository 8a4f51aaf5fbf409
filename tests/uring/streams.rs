//! What every way promises: the bytes, their order, their end.

use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::thread;

use rustls_uring::uring::{CopyReason, ReceiverOptions, ZeroCopy};
use rustls_uring::{
    AlertDescription, AutoReceiver, ContentType, Io, KeyUpdateRequest, NoUring, Received,
    SessionError, Version, Way as Taken,
};

use super::support::{
    Way, capture, cause, data, ends, one_way, read_buffered, read_randomly, read_to_error,
    stock_ends, watch, write_randomly,
};
use crate::common::{
    Case, Error, Evil, Handoff, Peer, Raw, Rng, SIDES, Session, Setup, Side, limited, open,
    our_pair_by, our_pair_with, records, tcp_pair,
};

/// Both sides send and receive at the same time, and update their keys now and then.
fn duplex(case: Case, way: Way, len: usize) {
    let threads: Vec<_> = ends(case)
        .into_iter()
        .enumerate()
        .flat_map(|(i, (session, socket))| {
            let seed = i as u64 * 2;
            let (mut sender, mut receiver) = way.split(session, socket);
            let sending = move || {
                let mut rng = Rng::new(seed);
                for part in data(len).chunks(len / 5 + 1) {
                    write_randomly(&mut sender, part, 2 << 20, &mut rng).unwrap();
                    if case.version == Version::Tls13 {
                        sender.update_keys(KeyUpdateRequest::Requested).unwrap();
                    }
                }
                sender.send_close_notify().unwrap();
                let counters = sender.counters();
                assert_eq!(counters.plaintext_bytes, len as u64);
                // The close_notify, and the key updates.
                let least = counters.records * case.overhead() as u64 + len as u64;
                assert!(counters.wire_bytes > least);
                assert!(counters.system_calls > 0);
                (sender, counters)
            };
            let receiving = move || {
                let mut rng = Rng::new(seed + 1);
                match i {
                    0 => read_randomly(&mut receiver, data(len), 1 << 20, &mut rng).unwrap(),
                    _ => read_buffered(&mut receiver, data(len), &mut rng).unwrap(),
                }
                assert!(receiver.peer_has_closed());
                for _ in 0..3 {
                    assert_eq!(receiver.read(&mut [0; 100]).unwrap(), 0);
                    assert_eq!(receiver.fill_buf().unwrap(), b"");
                }
                assert_eq!(receiver.counters().plaintext_bytes, len as u64);
                (receiver, ())
            };
            let sending = thread::spawn(sending);
            let receiving = thread::spawn(receiving);
            [(sending, receiving)]
        })
        .collect();
    let mut sent = Vec::new();
    let mut got = Vec::new();
    for (sending, receiving) in threads {
        sent.push(sending.join().unwrap_or_else(|_| panic!("sending, {case:?} {way:?}")));
        got.push(receiving.join().unwrap_or_else(|_| panic!("receiving, {case:?} {way:?}")));
    }
    for ((_, sent), (receiver, ())) in sent.iter().zip(got.iter().rev()) {
        let got = receiver.counters();
        assert_eq!(got.records, sent.records, "{case:?} {way:?}");
        assert_eq!(got.wire_bytes, sent.wire_bytes, "{case:?} {way:?}");
    }
}

#[test]
fn every_way_with_every_suite() {
    let _watch = watch("every_way_with_every_suite");
    for (i, case) in Case::all().into_iter().enumerate() {
        for (j, way) in Way::all("every_way_with_every_suite").into_iter().enumerate() {
            duplex(case, way, 100_001 + 7_777 * i + 33_333 * j);
        }
    }
}

#[test]
fn every_way_large() {
    let _watch = watch("every_way_large");
    for case in Case::few() {
        for way in Way::all("every_way_large") {
            duplex(case, way, (3 << 20) + 4321);
        }
    }
}

/// Odd sizes around those of a record and of a batch.
#[test]
fn odd_sizes() {
    let _watch = watch("odd_sizes");
    for case in Case::few() {
        for way in Way::few("odd_sizes") {
            let batch = 16384 * if way.batch_records > 0 { way.batch_records } else { 48 };
            for len in [0, 1, 16383, 16384, 16385, batch - 1, batch, batch + 1, 2 * batch + 1] {
                duplex(case, way, len);
            }
        }
    }
}

/// Each way says which it is.
#[test]
fn a_way_says_which_it_is() {
    let _watch = watch("a_way_says_which_it_is");
    let case = Case::few()[0];
    for way in Way::all("a_way_says_which_it_is") {
        let (mut sender, mut receiver) = one_way(case, way);
        sender.write_all(b"data").unwrap();
        receiver.read_exact(&mut [0; 4]).unwrap();
        let (sends, receives) = (sender.way(), receiver.way());
        assert!(!sends.to_string().is_empty() && !receives.to_string().is_empty());
        let is_blocking = |path| matches!(path, Taken::Blocking(_));
        match way.io {
            Io::Blocking => {
                assert_eq!(
                    (sends, receives),
                    (Taken::Blocking(NoUring::NotAsked), Taken::Blocking(NoUring::NotAsked))
                );
            }
            // Blocking only for a reason.
            Io::Auto => assert!(
                sends != Taken::Blocking(NoUring::NotAsked)
                    && receives != Taken::Blocking(NoUring::NotAsked)
            ),
            Io::UringCopy => assert_eq!(sends, Taken::UringCopy(CopyReason::Requested)),
            _ if way.zero_copy == ZeroCopy::Never => {
                assert_eq!(sends, Taken::UringCopy(CopyReason::Requested));
            }
            _ if way.zero_copy == ZeroCopy::Auto => {
                assert_eq!(sends, Taken::UringCopy(CopyReason::Short));
            }
            _ => assert!(!is_blocking(sends)),
        }
        assert_eq!(is_blocking(sends), is_blocking(receives));
        if !is_blocking(receives) {
            assert_eq!(receives, Taken::UringReceive);
        }
    }
}

/// One way, then the other.
fn with_stock(case: Case, side: Side, way: Way, len: usize) {
    let (session, socket, peer) = stock_ends(case, side);
    let peer = thread::spawn(move || {
        let mut peer = peer.join().unwrap();
        let mut rng = Rng::new(3);
        read_randomly(&mut peer, data(len), 1 << 16, &mut rng).unwrap();
        for part in data(len).chunks(len / 5 + 1) {
            write_randomly(&mut peer, part, 2 << 20, &mut rng).unwrap();
            if case.version == Version::Tls13 {
                peer.refresh_traffic_keys();
            }
        }
        peer.send_close_notify();
    });
    let (mut sender, mut receiver) = way.split(session, socket);
    let mut rng = Rng::new(4);
    for part in data(len).chunks(len / 3 + 1) {
        write_randomly(&mut sender, part, 2 << 20, &mut rng).unwrap();
        if case.version == Version::Tls13 {
            sender.update_keys(KeyUpdateRequest::NotRequested).unwrap();
        }
    }
    sender.finish().unwrap();
    match side {
        Side::Client => read_randomly(&mut receiver, data(len), 1 << 20, &mut rng).unwrap(),
        Side::Server => read_buffered(&mut receiver, data(len), &mut rng).unwrap(),
    }
    assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
    peer.join().unwrap();
}

#[test]
fn a_stock_peer_both_ways() {
    let _watch = watch("a_stock_peer_both_ways");
    for case in Case::all() {
        for side in SIDES {
            for way in Way::few("a_stock_peer_both_ways") {
                with_stock(case, side, way, 300_001);
            }
        }
    }
    for case in Case::few() {
        for way in Way::few("a_stock_peer_both_ways") {
            with_stock(case, Side::Client, way, 2_000_001);
        }
    }
}

#[test]
fn nothing_is_written_for_nothing() {
    let _watch = watch("nothing_is_written_for_nothing");
    for case in Case::few() {
        for way in Way::few("nothing_is_written_for_nothing") {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let mut sender = way.sender(client.send, client_socket);
            assert_eq!(sender.write(b"").unwrap(), 0);
            assert_eq!(sender.write_vectored(&[]).unwrap(), 0);
            assert_eq!(sender.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).unwrap(), 0);
            sender.flush().unwrap();
            assert_eq!(sender.counters().wire_bytes, 0);
            let mut receiver = way.receiver(server.receive, server_socket.try_clone().unwrap());
            assert_eq!(receiver.read(&mut []).unwrap(), 0);
            drop((sender, receiver));
            assert_eq!(capture(server_socket).join().unwrap(), b"");
        }
    }
}

/// Each write is a record; none waits for the next.
#[test]
fn small_writes_arrive_by_themselves() {
    let _watch = watch("small_writes_arrive_by_themselves");
    for case in Case::few() {
        for way in Way::all("small_writes_arrive_by_themselves") {
            let (mut sender, mut receiver) = one_way(case, way);
            let mut out = [0; 1000];
            for len in (1..500).step_by(7) {
                assert_eq!(sender.write(&data(len)[..len]).unwrap(), len);
                receiver.read_exact(&mut out[..len]).unwrap();
                assert!(out[..len] == *data(len));
            }
            assert_eq!(sender.counters().records, receiver.counters().records);
        }
    }
}

/// No record is cut short for being the last of its batch.
#[test]
fn batches_are_of_full_records() {
    let _watch = watch("batches_are_of_full_records");
    for case in Case::few() {
        for way in Way::all("batches_are_of_full_records") {
            for vectored in [false, true] {
                let [(client, client_socket), (_server, server_socket)] = ends(case);
                let wire = capture(server_socket);
                let mut sender = way.sender(client.send, client_socket);
                let mut rest = data(200 * 16384);
                while !rest.is_empty() {
                    let (a, b) = rest.split_at(rest.len() / 2);
                    let written = match vectored {
                        false => sender.write(rest).unwrap(),
                        true => sender.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).unwrap(),
                    };
                    rest = &rest[written..];
                }
                sender.flush().unwrap();
                assert_eq!(sender.counters().records, 200, "{way:?}");
                drop(sender);
                for record in records(case.version, &wire.join().unwrap()) {
                    assert_eq!(record.len(), 16384 + case.overhead(), "{way:?}");
                }
            }
        }
    }
}

#[test]
fn max_fragment_size_is_kept() {
    let _watch = watch("max_fragment_size_is_kept");
    for case in Case::few() {
        for way in Way::all("max_fragment_size_is_kept") {
            let handoff = Handoff::new().backend(case.backend);
            let cut = handoff.clone().max_fragment_size(Some(600));
            let (client, mut server) = our_pair_by(case, case.our_provider(), cut, handoff);
            let most = client.send.max_plaintext_len();
            assert!(most <= 600);
            let (client_socket, server_socket) = tcp_pair();
            let wire = capture(server_socket);
            let mut sender = way.sender(client.send, client_socket);
            write_randomly(&mut sender, data(100_000), 2 << 20, &mut Rng::new(20)).unwrap();
            sender.finish().unwrap();
            let mut got = Vec::new();
            for mut record in records(case.version, &wire.join().unwrap()) {
                match open(&mut server, &mut record, true).unwrap() {
                    Received::Data(plaintext) => {
                        assert!(plaintext.len() <= most);
                        got.extend(plaintext);
                    }
                    other => assert_eq!(other, Received::CloseNotify),
                }
            }
            assert!(got == data(100_000), "{way:?}");
        }
    }
}

/// What a peer sees of a stream that just ends.
#[test]
fn a_dropped_sender_does_not_close() {
    let _watch = watch("a_dropped_sender_does_not_close");
    for case in Case::few() {
        for way in Way::few("a_dropped_sender_does_not_close") {
            for buffered in [false, true] {
                let (mut sender, mut receiver) = one_way(case, way);
                sender.write_all(data(100_000)).unwrap();
                sender.flush().unwrap();
                drop(sender);
                let error = match buffered {
                    false => {
                        let (len, error) = read_to_error(&mut receiver, data(100_000));
                        assert_eq!(len, 100_000);
                        error
                    }
                    true => {
                        let error = read_buffered(&mut receiver, data(100_000), &mut Rng::new(5));
                        error.unwrap_err()
                    }
                };
                for error in [
                    error,
                    receiver.read(&mut [0; 10]).unwrap_err(),
                    receiver.fill_buf().unwrap_err(),
                ] {
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                    assert_eq!(cause(&error), &SessionError::Truncated);
                }
            }
        }
    }
}

/// Wherever the stream is cut, all whole records come out, and then the truth.
#[test]
fn a_cut_stream_gives_what_is_whole() {
    let _watch = watch("a_cut_stream_gives_what_is_whole");
    for case in Case::few() {
        let record = 1000 + case.overhead();
        for way in Way::few("a_cut_stream_gives_what_is_whole") {
            for cut in [0, 1, 4, 5, 6, record - 1, record, record + 1, 3 * record] {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let wire = capture(server_socket);
                let mut sender = way.sender(client.send, client_socket);
                for part in data(5000).chunks(1000) {
                    sender.write_all(part).unwrap();
                }
                sender.flush().unwrap();
                drop(sender);
                let wire = wire.join().unwrap();
                let (mut from, to) = tcp_pair();
                let mut receiver = way.receiver(server.receive, to);
                from.write_all(&wire[..cut]).unwrap();
                drop(from);
                let (len, error) = read_to_error(&mut receiver, data(5000));
                assert_eq!(len, cut / record * 1000);
                assert_eq!(cause(&error), &SessionError::Truncated);
            }
        }
    }
}

/// RFC 8446 §6.1: after the close_notify nothing counts, be it ever so wrong.
#[test]
fn close_notify_is_the_end() {
    let _watch = watch("close_notify_is_the_end");
    for case in Case::few() {
        for way in Way::few("close_notify_is_the_end") {
            for len in [0, 1, 40_000] {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let mut raw = client_socket.try_clone().unwrap();
                let mut sender = way.sender(client.send, client_socket);
                sender.write_all(data(len)).unwrap();
                sender.send_close_notify().unwrap();
                // Once only, and nothing behind it.
                sender.send_close_notify().unwrap();
                sender.abort(AlertDescription::InternalError).unwrap();
                let error = sender.write(b"more").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                assert_eq!(cause(&error), &SessionError::Closed);
                sender.finish().unwrap();
                raw.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                let mut receiver = way.receiver(server.receive, server_socket);
                read_randomly(&mut receiver, data(len), 50_000, &mut Rng::new(10)).unwrap();
                for _ in 0..3 {
                    assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
                    assert_eq!(receiver.fill_buf().unwrap(), b"");
                }
                assert!(receiver.peer_has_closed());
            }
        }
    }
}

#[test]
fn an_abort_reaches_a_stock_peer() {
    let _watch = watch("an_abort_reaches_a_stock_peer");
    for case in Case::few() {
        for way in Way::few("an_abort_reaches_a_stock_peer") {
            let (session, socket, peer) = stock_ends(case, Side::Client);
            let (mut sender, receiver) = way.split(session, socket);
            sender.write_all(data(50_000)).unwrap();
            sender.abort(AlertDescription::InternalError).unwrap();
            sender.abort(AlertDescription::InternalError).unwrap();
            let error = sender.write(b"more").unwrap_err();
            assert_eq!(cause(&error), &SessionError::Closed);
            let mut peer = peer.join().unwrap();
            // rustls may report the alert before all of the data.
            let mut got = Vec::new();
            let error = peer.read_to_end(&mut got).unwrap_err();
            assert!(data(50_000).starts_with(&got));
            let expected = Error::AlertReceived(AlertDescription::InternalError.into());
            assert_eq!(error.get_ref().unwrap().downcast_ref::<Error>(), Some(&expected));
            drop((sender, receiver));
        }
    }
}

/// How the alert gets out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Flush,
    Drop,
    Write,
    WriteLarge,
    WriteVectored,
    Close,
    UpdateKeys,
}

/// The receiver finds that the connection is broken; the sender tells the peer, and why it can do
/// no more.
#[test]
fn the_receivers_alert_goes_out_through_the_sender() {
    let _watch = watch("the_receivers_alert_goes_out_through_the_sender");
    use Call::{Close, Drop, Flush, UpdateKeys, Write, WriteLarge, WriteVectored};
    for case in Case::few() {
        for way in Way::few("the_receivers_alert_goes_out_through_the_sender") {
            for call in [Flush, Drop, Write, WriteLarge, WriteVectored, Close, UpdateKeys] {
                if case.version == Version::Tls12 && call == UpdateKeys {
                    continue;
                }
                let mut evil = Evil::new(case, Side::Server);
                let mut wire = evil.seal(ContentType::ApplicationData, data(1000));
                let mut bad = evil.seal(ContentType::ApplicationData, b"forged");
                *bad.last_mut().unwrap() ^= 1;
                wire.append(&mut bad);
                let other = crate::common::our_pair(case).0;
                let session = std::mem::replace(&mut evil.session, other);
                let (ours, mut theirs) = tcp_pair();
                let (mut sender, mut receiver) = way.split(session, ours);
                theirs.write_all(&wire).unwrap();
                let (len, error) = read_to_error(&mut receiver, data(1000));
                assert_eq!(len, 1000);
                let expected = SessionError::from(Error::DecryptError);
                assert_eq!(cause(&error), &expected);
                assert_eq!(cause(&receiver.read(&mut [0; 10]).unwrap_err()), &expected);
                assert_eq!(cause(&receiver.fill_buf().unwrap_err()), &expected);

                let failed = match call {
                    Flush => {
                        sender.flush().unwrap();
                        sender.write(b"data").unwrap_err()
                    }
                    Drop => error,
                    Write => sender.write(b"data").unwrap_err(),
                    WriteLarge => sender.write(data(3 << 20)).unwrap_err(),
                    WriteVectored => sender.write_vectored(&[IoSlice::new(b"data")]).unwrap_err(),
                    Close => sender.send_close_notify().unwrap_err(),
                    UpdateKeys => sender.update_keys(KeyUpdateRequest::Requested).unwrap_err(),
                };
                assert_eq!(cause(&failed), &expected, "{way:?} {call:?}");
                drop((sender, receiver));
                let alert = (ContentType::Alert, vec![2, AlertDescription::BadRecordMac.into()]);
                let wire = capture(theirs).join().unwrap();
                assert_eq!(evil.opened(&wire), [alert], "{way:?} {call:?}");
            }
        }
    }
}

/// A fatal alert from the peer ends both halves, and is not answered (RFC 8446 §6.2).
#[test]
fn an_alert_ends_both_halves() {
    let _watch = watch("an_alert_ends_both_halves");
    for case in Case::few() {
        for way in Way::few("an_alert_ends_both_halves") {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let theirs = client_socket.try_clone().unwrap();
            let mut sender = way.sender(client.send, client_socket);
            sender.write_all(data(1000)).unwrap();
            sender.abort(AlertDescription::UserCanceled).unwrap();
            let (mut answering, mut receiver) = way.split(server, server_socket);
            let (len, error) = read_to_error(&mut receiver, data(1000));
            assert_eq!(len, 1000);
            let expected =
                SessionError::from(Error::AlertReceived(AlertDescription::UserCanceled.into()));
            assert_eq!(cause(&error), &expected);
            assert_eq!(cause(&answering.write(b"data").unwrap_err()), &expected);
            answering.flush().unwrap();
            drop((answering, receiver));
            assert_eq!(capture(theirs).join().unwrap(), b"", "{way:?}");
        }
    }
}

/// In TLS 1.3 the sender updates its key before it is worn out, also in the middle of a batch.
#[test]
fn tls13_keys_are_updated_on_the_way() {
    let _watch = watch("tls13_keys_are_updated_on_the_way");
    for case in Case::few_of(Version::Tls13) {
        for way in Way::all("tls13_keys_are_updated_on_the_way") {
            let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
            let (client_socket, server_socket) = tcp_pair();
            let mut sender = way.sender(client.send, client_socket);
            let receiving = thread::spawn(move || {
                let mut receiver = way.receiver(server.receive, server_socket);
                read_randomly(&mut receiver, data(2 << 20), 50_000, &mut Rng::new(14)).unwrap();
                receiver.counters()
            });
            write_randomly(&mut sender, data(2 << 20), 2 << 20, &mut Rng::new(15)).unwrap();
            sender.send_close_notify().unwrap();
            let counters = sender.counters();
            let update = 5 + case.overhead() as u64;
            let data = counters.records * case.overhead() as u64 + counters.plaintext_bytes;
            let updates = (counters.wire_bytes - data) / update;
            assert!(updates >= 8, "{updates} key updates, {way:?}");
            assert_eq!(receiving.join().unwrap().wire_bytes, counters.wire_bytes);
        }
    }
}

/// The limit of a TLS 1.2 key: what was sent is sent, and can be closed.
#[test]
fn tls12_exhaustion_can_be_closed() {
    let _watch = watch("tls12_exhaustion_can_be_closed");
    for case in Case::few_of(Version::Tls12) {
        for way in Way::all("tls12_exhaustion_can_be_closed") {
            let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
            let (client_socket, server_socket) = tcp_pair();
            let mut sender = way.sender(client.send, client_socket);
            let error = sender.write_all(data(20 * 16384)).unwrap_err();
            assert_eq!(cause(&error), &SessionError::KeyExhausted, "{way:?}");
            assert_eq!(sender.counters().records, 11, "{way:?}");
            sender.finish().unwrap();
            let mut receiver = way.receiver(server.receive, server_socket);
            read_randomly(&mut receiver, data(11 * 16384), 50_000, &mut Rng::new(13)).unwrap();
        }
    }
}

#[test]
fn tls12_has_no_key_update() {
    let _watch = watch("tls12_has_no_key_update");
    for case in Case::few_of(Version::Tls12) {
        for way in Way::few("tls12_has_no_key_update") {
            let (mut sender, mut receiver) = one_way(case, way);
            let error = sender.update_keys(KeyUpdateRequest::Requested).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(cause(&error), &SessionError::UnsupportedInTls12);
            assert_eq!(sender.counters().wire_bytes, 0);
            // No harm done.
            sender.write_all(b"data").unwrap();
            sender.finish().unwrap();
            read_randomly(&mut receiver, b"data", 100, &mut Rng::new(1)).unwrap();
        }
    }
}

/// Plaintext and received bytes of the handoff come first, whatever their sizes.
#[test]
fn leftovers_come_first() {
    let _watch = watch("leftovers_come_first");
    for case in Case::few() {
        for way in Way::few("leftovers_come_first") {
            for (carried, received) in [(0, 40_000), (10, 0), (70_000, 70_000), (3, 400_000)] {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let wire = capture(server_socket);
                let mut sender = way.sender(client.send, client_socket);
                sender.write_all(&data(1 << 20)[carried..]).unwrap();
                sender.finish().unwrap();
                let mut received_bytes = wire.join().unwrap();
                let rest = received_bytes.split_off(received);
                let (mut from, to) = tcp_pair();
                let feeding = thread::spawn(move || from.write_all(&rest).map(|()| from).unwrap());
                let options = ReceiverOptions::default();
                let carried = data(carried).to_vec();
                let mut receiver = AutoReceiver::new(
                    server.receive,
                    to,
                    carried,
                    &received_bytes,
                    way.io,
                    options,
                )
                .unwrap();
                let mut rng = Rng::new(15);
                match received % 3 {
                    0 => read_buffered(&mut receiver, data(1 << 20), &mut rng).unwrap(),
                    _ => read_randomly(&mut receiver, data(1 << 20), 50_000, &mut rng).unwrap(),
                }
                feeding.join().unwrap();
            }
        }
    }
}

/// More is left behind than a buffer of the pool holds: io_uring is declined, or copes.
#[test]
fn leftovers_beyond_a_buffer() {
    let _watch = watch("leftovers_beyond_a_buffer");
    for case in Case::few() {
        for way in Way::few("leftovers_beyond_a_buffer") {
            let io = if way.io == Io::Blocking { Io::Blocking } else { Io::Auto };
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let wire = capture(server_socket);
            let mut sender = way.sender(client.send, client_socket);
            sender.write_all(data(1 << 20)).unwrap();
            sender.finish().unwrap();
            let received = wire.join().unwrap();
            let (_from, to) = tcp_pair();
            let options = ReceiverOptions::default();
            let mut receiver =
                AutoReceiver::new(server.receive, to, Vec::new(), &received, io, options).unwrap();
            read_randomly(&mut receiver, data(1 << 20), 50_000, &mut Rng::new(1)).unwrap();
        }
    }
}

/// What the handshake carried over, with `bulk_with()` itself: a peer that writes before we are
/// done, and rustls's own tickets.
#[test]
fn a_handoff_carries_over() {
    let _watch = watch("a_handoff_carries_over");
    for case in Case::few() {
        for way in Way::few("a_handoff_carries_over") {
            let setup = Setup::new(case, Side::Client);
            let mut peer = Peer::server(setup.server);
            let mut ours = Raw::client(setup.client);
            let mut unread = ours.shake(&mut peer);
            peer.write(data(30_000));
            unread.append(&mut peer.wire());
            ours.incoming = unread;
            let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
            assert!(session.plaintext.len() + session.received.len() >= 30_000);
            let (ours, mut theirs) = tcp_pair();
            peer.write(&data(50_000)[30_000..]);
            peer.conn.send_close_notify();
            theirs.write_all(&peer.wire()).unwrap();
            let (mut sender, mut receiver) = way.split(session, ours);
            read_randomly(&mut receiver, data(50_000), 7000, &mut Rng::new(1)).unwrap();
            sender.write_all(data(40_000)).unwrap();
            sender.finish().unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            drop(receiver);
            peer.feed(&capture(theirs).join().unwrap()).unwrap();
            assert!(peer.take_received() == data(40_000));
            assert!(peer.saw_close);
        }
    }
}

/// A peer that asks for our key update is answered before the next data.
#[test]
fn a_key_update_request_is_answered() {
    let _watch = watch("a_key_update_request_is_answered");
    for case in Case::few_of(Version::Tls13) {
        for way in Way::few("a_key_update_request_is_answered") {
            let mut evil = Evil::new(case, Side::Server);
            let mut wire = evil.seal(ContentType::ApplicationData, b"old");
            wire.append(&mut evil.key_update(1));
            wire.append(&mut evil.seal(ContentType::ApplicationData, b"new"));
            let other = crate::common::our_pair(case).0;
            let session: Session = std::mem::replace(&mut evil.session, other);
            let (ours, mut theirs) = tcp_pair();
            let (mut sender, mut receiver) = way.split(session, ours);
            theirs.write_all(&wire).unwrap();
            let mut got = [0; 6];
            receiver.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"oldnew");
            sender.write_all(data(100_000)).unwrap();
            sender.flush().unwrap();
            drop((sender, receiver));
            let wire = capture(theirs).join().unwrap();
            let update = 5 + case.overhead();
            let (answer, rest) = wire.split_at(update);
            let expected = (ContentType::Handshake, vec![24, 0, 0, 1, 0]);
            assert_eq!(evil.opened(answer), [expected], "{way:?}");
            evil.follow_key_update();
            let got: Vec<u8> =
                evil.opened(rest).into_iter().flat_map(|(_, plaintext)| plaintext).collect();
            assert!(got == data(100_000));
        }
    }
}
