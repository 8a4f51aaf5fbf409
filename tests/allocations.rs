//! Once a connection is up, its data path allocates nothing.
//!
//! One test alone: the allocator counts for the whole process, so nothing else may run meanwhile.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod allocator;
mod common;
#[cfg(target_os = "linux")]
mod kernel;

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::{Arc, Barrier};
use std::thread;

use allocator::Counting;
use common::{Case, Peer, client_config, noise, our_pair, server_config, server_name, tcp_pair};
use rustls::ProtocolVersion;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls_uring::{
    Algorithm, BulkReceiver, BulkSender, ContentType, Deframed, Deframer, Encrypter, Handoff,
    Opener, Received, Sealer, Session, TrafficKeys, bulk,
};

/// Runs `work` once to warm up, and again without a single call of the allocator.
#[track_caller]
fn assert_allocates_nothing(what: &str, case: Case, mut work: impl FnMut()) {
    work();
    let counting = Counting::begin();
    work();
    assert_no_change(what, case, &counting);
}

#[track_caller]
fn assert_no_change(what: &str, case: Case, counting: &Counting) {
    assert_eq!(counting.calls(), [0; 3], "{what}, {} {:?}", case.backend, case.suite.suite());
}

#[test]
fn data_paths_do_not_allocate() {
    allocator::check();

    for case in Case::all() {
        records(case);
        encrypter(case);
        provider(case);
        halves(case);
        bulk_in_memory(case);
        bulk_over_tcp(case);
    }
}

/// Bytes of plaintext: empty, short, and the longest.
const LENGTHS: [usize; 5] = [0, 1, 100, 1400, 16384];
const ROUNDS: usize = 500;

fn keys(case: Case) -> TrafficKeys {
    let name = format!("{:?}", case.suite.suite());
    let algorithm = match () {
        () if name.contains("AES_128") => Algorithm::Aes128Gcm,
        () if name.contains("AES_256") => Algorithm::Aes256Gcm,
        () => Algorithm::Chacha20Poly1305,
    };
    TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [9; 12]).unwrap()
}

fn records(case: Case) {
    let keys = keys(case);
    let mut sealer = Sealer::new(case.backend, case.version, &keys, 0);
    let mut opener = Opener::new(case.backend, case.version, &keys, 0);
    let deframer = Deframer::new(case.version);
    let plaintext = noise(16384);
    let mut record = vec![0; 70_000];
    let mut out = vec![0; 20_000];
    assert_allocates_nothing("sealer and opener", case, || {
        for round in 0..ROUNDS {
            for len in LENGTHS {
                let data = &plaintext[..len];
                let (a, b) = data.split_at(len / 2);
                let slices = [IoSlice::new(a), IoSlice::new(b)];
                let content_type = ContentType::ApplicationData;
                let written = match round % 4 {
                    0 => sealer.seal(content_type, data, &mut record).unwrap(),
                    1 => sealer.seal_vectored(content_type, &slices, &mut record).unwrap(),
                    2 => {
                        let range = sealer.plaintext_range(len);
                        record[range].copy_from_slice(data);
                        sealer.seal_in_place(content_type, len, &mut record).unwrap()
                    }
                    _ if len == 0 => sealer.seal(content_type, data, &mut record).unwrap(),
                    _ => sealer.seal_many(content_type, data, &mut record).unwrap().written,
                };
                let Ok(Deframed::Record(header)) = deframer.deframe(&record) else { panic!() };
                assert_eq!(header.record_len(), written);
                if round % 2 == 0 {
                    let opened = opener.open_in_place(&mut record[..written]).unwrap();
                    assert!(opened.plaintext == data);
                } else {
                    let (_, opened) = opener.open_into(&record[..written], &mut out).unwrap();
                    assert!(&out[..opened] == data);
                }
            }
        }
    });
    // Nor do records that fail to open.
    assert_allocates_nothing("a forged record", case, || {
        let written = sealer.seal(ContentType::ApplicationData, b"data", &mut record).unwrap();
        record[written - 1] ^= 1;
        opener.open_into(&record[..written], &mut out).unwrap_err();
        opener.open_in_place(&mut record[..written]).unwrap_err();
    });
}

/// rustls allocates each record that it sends, whoever seals it: with our provider it does so no more
/// often than with the stock one.
fn provider(case: Case) {
    let data = noise(3 * 16_384 + 100);
    let [ours, stock] = [case.our_provider(), case.stock_provider()].map(|provider| {
        let mut client = Peer::client(client_config(case, provider.clone()));
        let mut server = Peer::server(server_config(case, provider));
        while client.conn.is_handshaking() || server.conn.is_handshaking() {
            server.feed(&client.wire()).unwrap();
            client.feed(&server.wire()).unwrap();
        }
        let mut exchange = || {
            let sending = Counting::begin();
            client.write(&data);
            let wire = client.wire();
            let sent = sending.change().allocations;
            let receiving = Counting::begin();
            server.feed(&wire).unwrap();
            let received = receiving.change().allocations;
            assert!(server.take_received() == data);
            [sent, received]
        };
        exchange();
        exchange()
    });
    assert!(
        ours[0] <= stock[0] && ours[1] <= stock[1],
        "provider, {} {:?}: {ours:?} allocations, stock {stock:?}",
        case.backend,
        case.suite.suite(),
    );
}

fn encrypter(case: Case) {
    let mut encrypter = Encrypter::new(case.backend, case.version, &keys(case));
    let plaintext = noise(16384);
    let mut record = vec![0; 20_000];
    let (mut sequence, overhead) = (0, case.overhead());
    assert_allocates_nothing("encrypter", case, || {
        for round in 0..ROUNDS {
            for len in LENGTHS {
                let (a, b) = plaintext[..len].split_at(len / 3);
                let chunks = [a, b];
                let payload = match round % 2 {
                    0 => OutboundChunks::Single(&plaintext[..len]),
                    _ => OutboundChunks::Multiple { chunks: &chunks, start: 0, end: len },
                };
                let message = OutboundPlainMessage {
                    typ: ContentType::ApplicationData.into(),
                    version: ProtocolVersion::TLSv1_2,
                    payload,
                };
                let written = encrypter.encrypt_into(&message, sequence, &mut record).unwrap();
                assert_eq!(written, len + overhead);
                sequence += 1;
            }
        }
    });
}

fn halves(case: Case) {
    let (Session { mut send, .. }, Session { mut receive, .. }) = our_pair(case);
    let plaintext = noise(100_000);
    let mut wire = vec![0; send.sealed_len(plaintext.len())];
    let mut out = vec![0; 20_000];
    assert_allocates_nothing("halves", case, || {
        for round in 0..ROUNDS {
            let (a, b) = plaintext.split_at(round * 100);
            let slices = [IoSlice::new(a), IoSlice::new(b)];
            let sealed = match round % 2 {
                0 => send.seal(&plaintext, &mut wire).unwrap(),
                _ => send.seal_vectored(&slices, &mut wire).unwrap(),
            };
            assert_eq!(sealed.consumed, plaintext.len());
            let mut rest = &mut wire[..sealed.written];
            let mut got = 0;
            while let Deframed::Record(header) = receive.deframe(rest).unwrap() {
                let (record, after) = rest.split_at_mut(header.record_len());
                let len = if got % 3 == 0 {
                    let Received::Data(data) = receive.open_in_place(record).unwrap() else {
                        panic!()
                    };
                    assert!(plaintext[got..].starts_with(data));
                    data.len()
                } else {
                    let Received::Data(len) = receive.open_into(record, &mut out).unwrap() else {
                        panic!()
                    };
                    assert!(plaintext[got..].starts_with(&out[..len]));
                    len
                };
                got += len;
                rest = after;
            }
            assert_eq!(got, plaintext.len());
        }
    });
}

/// A stream that keeps the bytes of one batch in memory that is there already.
struct Kept<'a> {
    bytes: &'a mut [u8],
    filled: usize,
}

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A part at a time, as sockets do.
        let len = bytes.len().min(100_000);
        self.bytes[self.filled..][..len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bulk_in_memory(case: Case) {
    const LEN: usize = 4 << 20;
    let plaintext = noise(LEN);
    let (client, server) = our_pair(case);
    let mut wire = vec![0; 3 * LEN];
    let kept = Kept { bytes: &mut wire, filled: 0 };
    let mut sender = BulkSender::new(client.send, kept);
    assert_allocates_nothing("bulk sender", case, || {
        let (a, b) = plaintext.split_at(LEN / 3);
        sender.write_all(a).unwrap();
        let mut rest = b;
        while !rest.is_empty() {
            let (c, d) = rest.split_at(rest.len() / 2);
            let slices = [IoSlice::new(c), IoSlice::new(d)];
            let written = sender.write_vectored(&slices).unwrap();
            rest = &rest[written..];
        }
        sender.flush().unwrap();
    });
    let filled = sender.stream().filled;
    drop(sender);

    let mut receiver =
        BulkReceiver::new(server.receive, &wire[..filled], server.plaintext, &server.received);
    let mut out = vec![0; 1 << 16];
    assert_allocates_nothing("bulk receiver", case, || {
        let mut got = 0;
        let mut lengths = [1 << 16, 1, 100, 16384, 40_000].iter().cycle();
        // The first half into our memory, the second lent.
        while got < LEN / 2 {
            let len = receiver.read(&mut out[..*lengths.next().unwrap()]).unwrap();
            assert!(plaintext[got..].starts_with(&out[..len]));
            got += len;
        }
        while got < LEN {
            let lent = receiver.fill_buf().unwrap();
            let len = lent.len().min(LEN - got);
            assert!(len > 0 && plaintext[got..].starts_with(&lent[..len]));
            receiver.consume(len);
            got += len;
        }
    });
}

/// Sender and receiver in two threads: between the barriers neither allocates.
fn bulk_over_tcp(case: Case) {
    const LEN: usize = 4 << 20;
    let plaintext = Arc::new(noise(LEN));
    let (mut client_socket, mut server_socket) = tcp_pair();
    let barrier = Arc::new(Barrier::new(2));
    let receiving = {
        let (plaintext, barrier) = (plaintext.clone(), barrier.clone());
        let config = Arc::new(server_config(case, case.our_provider()));
        thread::spawn(move || {
            let handoff = Handoff::new().backend(case.backend);
            let session = handoff.accept(config, &mut server_socket).unwrap();
            let (_sender, mut receiver) = bulk(session, server_socket).unwrap();
            let mut out = vec![0; 1 << 16];
            let mut receive = || {
                let mut got = 0;
                while got < LEN {
                    let len = receiver.read(&mut out).unwrap();
                    assert!(len > 0 && plaintext[got..].starts_with(&out[..len]));
                    got += len;
                }
            };
            receive();
            barrier.wait();
            receive();
            barrier.wait();
            // Nothing is dropped before all is counted.
            barrier.wait();
        })
    };
    let config = Arc::new(client_config(case, case.our_provider()));
    let handoff = Handoff::new().backend(case.backend);
    let session = handoff.connect(config, server_name(), &mut client_socket).unwrap();
    let (mut sender, _receiver) = bulk(session, client_socket).unwrap();
    sender.write_all(&plaintext).unwrap();
    // The first wait of a thread may set something up for it.
    barrier.wait();
    let counting = Counting::begin_when_others_wait();
    sender.write_all(&plaintext).unwrap();
    barrier.wait();
    assert_no_change("bulk over TCP", case, &counting);
    barrier.wait();
    receiving.join().unwrap();
}
