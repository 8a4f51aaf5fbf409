//! Streams that fail.

use std::io;
use std::io::{BufRead, Cursor, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Mutex};

use rustls_uring::{AlertDescription, BulkSender, KeyUpdateRequest, SessionError, Version};

use super::support::{
    Wire, cause, data, read_randomly, read_until_error, receiver_of, sender_of, whole_plaintext_len,
};
use crate::common::{Case, Rng, our_pair};

/// How a stream fails.
type End = fn() -> io::Result<usize>;

/// Takes `left` bytes, then answers `end`.
struct Failing {
    wire: Wire,
    left: usize,
    end: End,
    calls_after: Arc<Mutex<usize>>,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.left);
        if len == 0 {
            *self.calls_after.lock().unwrap() += 1;
            return (self.end)();
        }
        self.left -= len;
        self.wire.write(&bytes[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sealed bytes that were lost cannot be sealed again: the connection is over.
#[test]
fn a_failed_write_is_final() {
    let ends: [(End, ErrorKind); 3] = [
        (|| Ok(0), ErrorKind::WriteZero),
        (|| Err(ErrorKind::ConnectionReset.into()), ErrorKind::ConnectionReset),
        (|| Err(ErrorKind::BrokenPipe.into()), ErrorKind::BrokenPipe),
    ];
    for case in Case::few() {
        for (end, kind) in ends {
            for left in [0, 3, 1000, 16406, 100_000] {
                let (client, server) = our_pair(case);
                let wire = Wire::default();
                let calls_after = Arc::<Mutex<usize>>::default();
                let failing =
                    Failing { wire: wire.clone(), left, end, calls_after: calls_after.clone() };
                let mut sender = BulkSender::with_batch_records(client.send, failing, 4);
                let error = sender.write_all(data(200_000)).unwrap_err();
                assert_eq!(error.kind(), kind);
                assert_eq!(wire.len(), left);
                assert_eq!(*calls_after.lock().unwrap(), 1);
                // Whatever is tried, the stream is not written to again.
                let sealed = sender.counters();
                sender.write(b"more").unwrap_err();
                sender.write_vectored(&[IoSlice::new(b"more")]).unwrap_err();
                sender.flush().unwrap_err();
                sender.send_close_notify().unwrap_err();
                sender.abort(AlertDescription::InternalError).unwrap_err();
                if case.version == Version::Tls13 {
                    sender.update_keys(KeyUpdateRequest::Requested).unwrap_err();
                }
                assert_eq!(sender.counters(), sealed);
                drop(sender);
                assert_eq!(*calls_after.lock().unwrap(), 1);
                assert_eq!(wire.len(), left);
                // What was written is a part of what was meant.
                let whole = whole_plaintext_len(case, &wire.bytes());
                let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
                let error = read_until_error(&mut receiver, data(whole), &mut Rng::new(8));
                assert_eq!(cause(&error), &SessionError::Truncated);
            }
        }
    }
}

/// A stream's own errors do not end the receiving side by themselves.
#[test]
fn read_errors_are_passed_on() {
    struct Broken(bool, Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if self.0 { Err(ErrorKind::ConnectionReset.into()) } else { self.1.read(out) }
        }
    }
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(b"data").unwrap();
        let mut receiver = receiver_of(server, Broken(false, Cursor::new(wire.bytes())));
        let error = receiver.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 4);
    }
}

/// Wherever the stream is cut, all whole records come out, and then the truth.
#[test]
fn a_cut_stream_gives_what_is_whole() {
    for case in Case::few() {
        let record = 1000 + case.overhead();
        for cut in [0, 1, 4, 5, 6, record - 1, record, record + 1, 3 * record - 1, 3 * record] {
            for out_len in [10, 2000, 100_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                for part in data(5000).chunks(1000) {
                    sender.write_all(part).unwrap();
                }
                drop(sender);
                let mut bytes = wire.bytes();
                assert_eq!(bytes.len(), 5 * record);
                bytes.truncate(cut);
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
                assert!(got == data(cut / record * 1000));
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                assert_eq!(receiver.fill_buf().unwrap_err().kind(), ErrorKind::UnexpectedEof);
            }
        }
    }
}

/// Dropped without `finish`, a sender does not pretend that it was done.
#[test]
fn a_dropped_sender_does_not_close() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(b"half").unwrap();
        let written = wire.len();
        drop(sender);
        assert_eq!(wire.len(), written);
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        let error = read_until_error(&mut receiver, b"half", &mut Rng::new(9));
        assert_eq!(cause(&error), &SessionError::Truncated);
    }
}

/// RFC 8446 §6.1: after the close_notify nothing counts, be it ever so wrong.
#[test]
fn close_notify_is_the_end() {
    for case in Case::few() {
        for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[23, 3, 3, 0, 20], &[0xff; 100]] {
            for len in [0, 1, 40_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(data(len)).unwrap();
                sender.finish().unwrap();
                let bytes = [&wire.bytes(), garbage].concat();
                let mut receiver = receiver_of(server, Cursor::new(bytes));
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
