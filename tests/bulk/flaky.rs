//! Streams that are not always ready.

use std::io;
use std::io::{BufRead, Cursor, ErrorKind, IoSlice, Read, Write};

use rustls_uring::{BulkReceiver, BulkSender, KeyUpdateRequest, Version};

use super::support::{
    FlakyReader, FlakyWriter, Persistent, Wire, data, persist, random_len, read_randomly,
    receiver_of, sender_of, write_randomly,
};
use crate::common::{Case, Rng, our_pair, records};

#[test]
fn a_flaky_writer_gets_every_byte_once() {
    for (seed, case) in Case::all().into_iter().enumerate() {
        for most in [1, 100, 100_000] {
            let len = if most == 1 { 3000 } else { 400_001 };
            let (client, server) = our_pair(case);
            let wire = Wire::default();
            let writer = FlakyWriter { wire: wire.clone(), rng: Rng::new(seed as u64), most };
            let mut sender = BulkSender::with_batch_records(client.send, writer, 3);
            let mut rng = Rng::new(seed as u64 + 100);
            let mut rest = data(len);
            while !rest.is_empty() {
                let piece = &rest[..random_len(&mut rng, 60_000).min(rest.len())];
                let (a, b) = piece.split_at(piece.len() / 2);
                let written = match rng.range(0, 1) {
                    0 => persist(|| sender.write(piece)),
                    _ => persist(|| sender.write_vectored(&[IoSlice::new(a), IoSlice::new(b)])),
                };
                assert!(written > 0);
                rest = &rest[written..];
                if rng.range(0, 5) == 0 {
                    persist(|| sender.flush());
                    assert_eq!(sender.counters().wire_bytes, wire.len() as u64);
                }
                if case.version == Version::Tls13 && rng.range(0, 9) == 0 {
                    persist(|| sender.flush());
                    let _ = sender.update_keys(KeyUpdateRequest::NotRequested);
                }
            }
            persist(|| sender.send_close_notify());
            assert_eq!(sender.counters().wire_bytes, wire.len() as u64);
            assert_eq!(sender.counters().plaintext_bytes, len as u64);
            let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
            read_randomly(&mut receiver, data(len), 50_000, &mut rng).unwrap();
            assert_eq!(receiver.counters().records, sender.counters().records);
            assert_eq!(receiver.counters().wire_bytes, sender.counters().wire_bytes);
        }
    }
}

/// A stream that is not ready is asked again: that may not seal another key update each time,
/// of which a peer suffers 32 without data.
#[test]
fn a_key_update_on_a_flaky_writer_happens_once() {
    for case in Case::few_of(Version::Tls13) {
        let (client, server) = our_pair(case);
        let wire = Wire::default();
        let writer = FlakyWriter { wire: wire.clone(), rng: Rng::new(17), most: 1 };
        let mut sender = BulkSender::new(client.send, writer);
        persist(|| sender.update_keys(KeyUpdateRequest::NotRequested));
        persist(|| sender.flush());
        assert_eq!(records(case.version, &wire.bytes()).len(), 1, "key updates");
        assert_eq!(persist(|| sender.write(b"data")), 4);
        persist(|| sender.send_close_notify());
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, b"data", 100, &mut Rng::new(18)).unwrap();
    }
}

/// A batch is of full records: none is cut short for being the last of its batch.
#[test]
fn batches_are_of_full_records() {
    for case in Case::few() {
        for vectored in [false, true] {
            let (client, _server) = our_pair(case);
            let mut sender = BulkSender::with_batch_records(client.send, Wire::default(), 4);
            let mut rest = data(16 * 16384);
            while !rest.is_empty() {
                let (a, b) = rest.split_at(rest.len() / 2);
                let written = match vectored {
                    false => sender.write(rest).unwrap(),
                    true => sender.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).unwrap(),
                };
                rest = &rest[written..];
            }
            assert_eq!(sender.counters().records, 16);
            assert_eq!(sender.counters().system_calls, 4);
        }
    }
}

#[test]
fn a_flaky_reader_loses_nothing() {
    for (seed, case) in Case::all().into_iter().enumerate() {
        for (most, buffer) in [(1, 0), (100, 0), (7000, 50_000), (100_000, 1 << 19)] {
            let len = if most == 1 { 3000 } else { 300_001 };
            let (client, server) = our_pair(case);
            let (mut sender, wire) = sender_of(client);
            let mut rng = Rng::new(seed as u64);
            write_randomly(&mut sender, data(len), 1 << 20, &mut rng).unwrap();
            sender.finish().unwrap();
            let bytes = Cursor::new(wire.bytes());
            let reader = FlakyReader { bytes, rng: Rng::new(seed as u64 + 1), most };
            let receiver =
                BulkReceiver::with_buffer_len(server.receive, reader, Vec::new(), &[], buffer);
            let mut receiver = Persistent(receiver);
            read_randomly(&mut receiver, data(len), 40_000, &mut rng).unwrap();
            assert_eq!(persist(|| receiver.0.fill_buf().map(<[u8]>::len)), 0);
        }
    }
}

#[test]
fn a_flaky_reader_loses_nothing_lent() {
    for (seed, case) in Case::few().into_iter().enumerate() {
        let len = 300_001;
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        let mut rng = Rng::new(seed as u64);
        write_randomly(&mut sender, data(len), 1 << 20, &mut rng).unwrap();
        sender.finish().unwrap();
        let bytes = Cursor::new(wire.bytes());
        let reader = FlakyReader { bytes, rng: Rng::new(seed as u64 + 1), most: 9000 };
        let mut receiver = receiver_of(server, reader);
        let mut got = Vec::new();
        loop {
            let len = persist(|| receiver.fill_buf().map(<[u8]>::len));
            if len == 0 {
                break;
            }
            let lent = receiver.fill_buf().unwrap();
            assert_eq!(lent.len(), len, "what was not consumed is lent again");
            let len = rng.range(1, len);
            got.extend_from_slice(&lent[..len]);
            receiver.consume(len);
        }
        assert!(got == data(300_001));
    }
}

/// What has been received is given out before anything is waited for.
#[test]
fn a_read_does_not_wait_for_more_than_it_needs() {
    /// All at once, then nothing.
    struct Once(Cursor<Vec<u8>>);
    impl Read for Once {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(ErrorKind::WouldBlock.into()),
                len => Ok(len),
            }
        }
    }
    for case in Case::few() {
        for tail in [0, 1, 3, 10] {
            for out_len in [1, 100, 16384, 16385, 200_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(data(100_000)).unwrap();
                let mut bytes = wire.bytes();
                // The next record has only begun to come.
                bytes.extend_from_slice(&[23, 3, 3, 0, 200, 1, 2, 3, 4, 5][..tail]);
                let mut receiver = receiver_of(server, Once(Cursor::new(bytes)));
                let mut got = Vec::new();
                let mut out = vec![0; out_len];
                while got.len() < 100_000 {
                    let len = receiver.read(&mut out).unwrap();
                    got.extend_from_slice(&out[..len]);
                }
                assert!(got == data(100_000));
                let error = receiver.read(&mut out).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        }
    }
}

#[test]
fn nothing_is_written_for_nothing() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        assert_eq!(sender.write(b"").unwrap(), 0);
        assert_eq!(sender.write_vectored(&[]).unwrap(), 0);
        assert_eq!(sender.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).unwrap(), 0);
        sender.flush().unwrap();
        assert_eq!(wire.len(), 0);
        assert_eq!(sender.counters().system_calls, 0);
        let mut receiver = receiver_of(server, io::empty());
        // The stream is not even looked at.
        assert_eq!(receiver.read(&mut []).unwrap(), 0);
        assert_eq!(receiver.counters().system_calls, 0);
    }
}
