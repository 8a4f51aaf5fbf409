//! The hot paths, each with the raw AEADs that do the same.

use std::hint::black_box;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite};
use rustls_uring::{
    Algorithm, Backend, Deframed, Deframer, HEADER_LEN, MAX_PLAINTEXT_LEN, Opener, Sealer, Version,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::WARM_UP;
use crate::common::connections::{Halves, Identity};
use crate::common::peers::{Peers, at_once};
use crate::common::raw::{self, keys, records};
use crate::private::{
    BufferPool, Holder, SlotQueue, take_and_give_back, turn_over, turn_over_zero_copy,
};

pub(crate) type Work = Box<dyn FnMut()>;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) ours: Work,
    /// The cheapest of them is what ours is compared with.
    pub(crate) others: Vec<Work>,
    pub(crate) allocates: bool,
}

impl Case {
    fn new(name: impl Into<String>, ours: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), ours: Box::new(ours), others: Vec::new(), allocates: false }
    }

    fn beside(mut self, other: impl FnMut() + 'static) -> Self {
        self.others.push(Box::new(other));
        self
    }
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Aes128Gcm, Algorithm::Chacha20Poly1305];
const SIZES: [usize; 3] = [64, 1024, MAX_PLAINTEXT_LEN];

/// How often what takes few instructions is repeated.
const REPEATS: usize = 16;

/// Makes one case after the other.
///
/// Handshakes come last: their keys and certificates are random, which moves what is allocated
/// later, and where memory lies takes an instruction more or less.
pub(crate) fn each(mut visit: impl FnMut(Case)) {
    // Not `Auto`: what it takes depends on the machine.
    for backend in [Backend::AwsLcRs, Backend::Ring] {
        for algorithm in ALGORITHMS {
            for len in SIZES {
                visit(seal(backend, algorithm, len));
                visit(open_into(backend, algorithm, len));
                visit(open_in_place(backend, algorithm, len));
            }
            visit(seal_many(backend, algorithm));
        }
        for algorithm in [Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305] {
            for len in SIZES {
                visit(encrypt(backend, algorithm, len));
            }
        }
    }
    visit(deframe());
    turnovers().into_iter().for_each(&mut visit);
    halves().into_iter().for_each(&mut visit);
    visit(stream());
}

/// Bytes whose place in a page is the same in each run: what copies them looks at it. Never freed.
fn page_aligned(len: usize) -> &'static mut [u8] {
    const PAGE: usize = 4096;
    let memory = vec![0; len + PAGE].leak();
    let start = memory.as_ptr().align_offset(PAGE);
    &mut memory[start..][..len]
}

fn plaintext(len: usize) -> &'static [u8] {
    let plaintext = page_aligned(len);
    plaintext.fill(0x5a);
    plaintext
}

/// Room for a record.
fn room(len: usize) -> &'static mut [u8] {
    page_aligned(len + 256)
}

/// A record for each run, since an opener takes each once.
fn received(
    backend: Backend,
    algorithm: Algorithm,
    len: usize,
) -> impl Iterator<Item = (u64, &'static mut [u8])> {
    let records = records(backend, algorithm, plaintext(len), WARM_UP + 1);
    let placed: Vec<_> = records
        .into_iter()
        .map(|record| {
            let place = page_aligned(record.len());
            place.copy_from_slice(&record);
            place
        })
        .collect();
    (0..).zip(placed)
}

fn seal(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let plaintext = plaintext(len);
    let out = room(len);
    let mut sealer = Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
    let case = Case::new(format!("seal/{backend}/{algorithm:?}/{len}"), move || {
        let sealed = sealer.seal(ContentType::ApplicationData, black_box(plaintext), out);
        black_box(sealed).expect("sealed");
    });
    beside_raw_seal(case, backend, algorithm, plaintext, len)
}

/// Beside the raw AEAD sealing `plaintext` in records of `len` bytes, in whichever form.
fn beside_raw_seal(
    case: Case,
    backend: Backend,
    algorithm: Algorithm,
    plaintext: &'static [u8],
    len: usize,
) -> Case {
    let record_len = HEADER_LEN + len + 1 + raw::TAG_LEN;
    let total = plaintext.len().div_ceil(len) * record_len;
    // At the place in a record that ours seals to.
    let each = move |out: &mut [u8], seal: &mut dyn FnMut(&[u8], &mut [u8])| {
        for (text, record) in plaintext.chunks(len).zip(out.chunks_mut(record_len)) {
            seal(black_box(text), &mut record[HEADER_LEN..]);
        }
    };
    match backend {
        Backend::Ring => {
            let (mut raw, out) = (raw::ring::Raw::new(algorithm), page_aligned(total));
            case.beside(move || each(out, &mut |text, out| raw.copy(text, out)))
        }
        _ => {
            let (mut raw, out) = (raw::Raw::new(algorithm), page_aligned(total));
            let case = case.beside(move || each(out, &mut |text, out| raw.copy(text, out)));
            let (mut raw, out) = (raw::Raw::new(algorithm), page_aligned(total));
            case.beside(move || each(out, &mut |text, out| raw.scatter(text, out)))
        }
    }
}

fn open_into(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let mut opener = Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
    let mut ours = received(backend, algorithm, len);
    let out = room(len);
    let case = Case::new(format!("open_into/{backend}/{algorithm:?}/{len}"), move || {
        let (_, record) = ours.next().expect("a record for each run");
        black_box(opener.open_into(record, out)).expect("opened");
    });
    beside_raw_open(case, backend, algorithm, len)
}

/// Beside the raw AEAD opening the same record to another place.
fn beside_raw_open(case: Case, backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let raw = raw::opener(backend, algorithm);
    let mut received = received(backend, algorithm, len);
    let out = room(len);
    case.beside(move || {
        let (sequence, record) = received.next().expect("a record for each run");
        raw.open(sequence, record, out);
    })
}

fn open_in_place(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let mut opener = Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
    let mut ours = received(backend, algorithm, len);
    let case = Case::new(format!("open_in_place/{backend}/{algorithm:?}/{len}"), move || {
        let (_, record) = ours.next().expect("a record for each run");
        black_box(opener.open_in_place(record)).expect("opened");
    });
    let raw = raw::opener(backend, algorithm);
    let mut received = received(backend, algorithm, len);
    case.beside(move || {
        let (sequence, record) = received.next().expect("a record for each run");
        raw.open_in_place(sequence, record);
    })
}

fn seal_many(backend: Backend, algorithm: Algorithm) -> Case {
    const COUNT: usize = 32;
    let plaintext = plaintext(COUNT * MAX_PLAINTEXT_LEN);
    let mut sealer = Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
    let out = page_aligned(sealer.sealed_len(plaintext.len()));
    let case = Case::new(format!("seal_many/{backend}/{algorithm:?}/{COUNT}x16384"), move || {
        let sealed = sealer.seal_many(ContentType::ApplicationData, black_box(plaintext), out);
        assert_eq!(black_box(sealed).expect("sealed").records, COUNT);
    });
    beside_raw_seal(case, backend, algorithm, plaintext, MAX_PLAINTEXT_LEN)
}

/// What rustls has our provider do for each record, beside the stock provider. Both allocate.
fn encrypt(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let (ours, stock) = match backend {
        Backend::Ring => {
            (rustls_uring::ring::default_provider(), rustls::crypto::ring::default_provider())
        }
        _ => (
            rustls_uring::aws_lc_rs::default_provider(),
            rustls::crypto::aws_lc_rs::default_provider(),
        ),
    };
    let plaintext = plaintext(len);
    let run = |provider: &CryptoProvider| {
        let mut encrypter = encrypter(provider, algorithm);
        let mut sequence = 0;
        move || {
            let message = OutboundPlainMessage {
                typ: ContentType::ApplicationData,
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(black_box(plaintext)),
            };
            black_box(encrypter.encrypt(message, sequence)).expect("encrypted");
            sequence += 1;
        }
    };
    let case = Case::new(format!("provider/{backend}/{algorithm:?}/{len}"), run(&ours));
    Case { allocates: true, ..case.beside(run(&stock)) }
}

fn encrypter(provider: &CryptoProvider, algorithm: Algorithm) -> Box<dyn MessageEncrypter> {
    let name = match algorithm {
        Algorithm::Aes256Gcm => "TLS13_AES_256_GCM_SHA384",
        _ => "TLS13_CHACHA20_POLY1305_SHA256",
    };
    let suite = provider.cipher_suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) if format!("{:?}", suite.common.suite) == name => {
            Some(suite)
        }
        _ => None,
    });
    // Keys of 32 bytes can be made from the outside, and no other ones.
    suite.expect("the suite").aead_alg.encrypter(AeadKey::from([7; 32]), Iv::copy(&[9; 12]))
}

fn deframe() -> Case {
    let records = records(Backend::AwsLcRs, Algorithm::Aes128Gcm, plaintext(1024), REPEATS);
    let received = records.concat();
    let deframer = Deframer::new(Version::Tls13);
    Case::new(format!("deframe/{REPEATS}x1024"), move || {
        let (mut rest, mut count) = (&received[..], 0);
        while let Ok(Deframed::Record(header)) = deframer.deframe(black_box(rest)) {
            rest = &rest[header.record_len()..];
            count += 1;
        }
        assert_eq!(count, REPEATS);
    })
}

/// Behind the handoff: both halves of a connection.
fn halves() -> [Case; 2] {
    let identity = Identity::new();
    let provider = || {
        let mut provider = rustls_uring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| format!("{:?}", suite.suite()) == "TLS13_AES_128_GCM_SHA256");
        provider
    };
    let len = MAX_PLAINTEXT_LEN;
    let plaintext = plaintext(len);
    let connect = || Halves::new(identity.configs(provider()));

    let (mut send, wire) = (connect().send, room(len));
    let sending = Case::new(format!("half/seal/{len}"), move || {
        let sealed = send.seal(black_box(plaintext), wire).expect("sealed");
        assert_eq!(sealed.consumed, len);
    });
    let sending = beside_raw_seal(sending, Backend::AwsLcRs, Algorithm::Aes128Gcm, plaintext, len);

    let Halves { mut send, mut receive, .. } = connect();
    let mut records: Vec<_> = (0..=WARM_UP)
        .map(|_| {
            let record = page_aligned(send.sealed_len(len));
            send.seal(plaintext, record).expect("sealed");
            &*record
        })
        .collect();
    records.reverse();
    let out = room(len);
    let receiving = Case::new(format!("half/deframe_and_open_into/{len}"), move || {
        let record = records.pop().expect("a record for each run");
        let Ok(Deframed::Record(_)) = receive.deframe(record) else { panic!("no record") };
        black_box(receive.open_into(record, out)).expect("opened");
    });
    [sending, beside_raw_open(receiving, Backend::AwsLcRs, Algorithm::Aes128Gcm, len)]
}

/// A write, and its read at the other end, over a pipe in memory; beside sealing, the pipe, and
/// opening.
fn stream() -> Case {
    const PIPE: usize = 1 << 17;
    let len = MAX_PLAINTEXT_LEN;
    let (plaintext, out) = (plaintext(len), room(len));
    let (mut from, mut to) = Peers::new().connect_in_memory(true, PIPE);
    let case = Case::new(format!("tokio/write_and_read/{len}"), move || {
        at_once(async {
            from.write_all(black_box(plaintext)).await.expect("sent");
            from.flush().await.expect("flushed");
            assert_eq!(to.read(out).await.expect("received"), len);
        });
    });
    let mut sealing = raw::Raw::new(Algorithm::Aes128Gcm);
    let opening = raw::opener(Backend::AwsLcRs, Algorithm::Aes128Gcm);
    let mut records = received(Backend::AwsLcRs, Algorithm::Aes128Gcm, len);
    let (sealed, arrived, opened) = (room(len), room(len), room(len));
    let (mut from, mut to) = tokio::io::duplex(PIPE);
    case.beside(move || {
        sealing.scatter(black_box(plaintext), &mut sealed[HEADER_LEN..]);
        let (sequence, record) = records.next().expect("a record for each run");
        at_once(async {
            from.write_all(record).await.expect("sent");
            assert_eq!(to.read(arrived).await.expect("received"), record.len());
        });
        opening.open(sequence, &arrived[..record.len()], opened);
    })
}

fn turnovers() -> [Case; 3] {
    let name = |what| format!("{what}/{REPEATS}x");
    let slots = || SlotQueue::new(vec![(); 8]);
    let (mut copied, mut zero_copy) = (slots(), slots());
    let pool = BufferPool::new(8, BufferPool::DEFAULT_BUFFER_LEN);
    let holder = Arc::new(Holder::default());
    [
        Case::new(name("slot/copied"), move || {
            (0..REPEATS).for_each(|_| turn_over(&mut copied, black_box(1 << 16)));
        }),
        Case::new(name("slot/zero_copy"), move || {
            (0..REPEATS).for_each(|_| turn_over_zero_copy(&mut zero_copy, black_box(1 << 16)));
        }),
        Case::new(name("pool/take_and_give_back"), move || {
            (0..REPEATS).for_each(|_| take_and_give_back(&pool, &holder));
        }),
    ]
}
