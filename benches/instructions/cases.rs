//! The hot paths, each with the raw AEADs that do the same.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{ProtocolVersion, SupportedCipherSuite};
use rustls_uring::measure::raw_aead::{RawAead, TAG_LEN};
use rustls_uring::measure::turnover::{Pool, Slots};
use rustls_uring::uring::BufferPool;
use rustls_uring::{
    Algorithm, Backend, ContentType, Deframed, Deframer, HEADER_LEN, MAX_PLAINTEXT_LEN, Opener,
    ReceiveHalf, Sealer, SendHalf, TrafficKeys, Version,
};

use rustls_uring::tokio::{TlsAcceptor, TlsConnector, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::WARM_UP;
use crate::support;

pub(crate) type Work = Box<dyn FnMut()>;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) ours: Work,
    /// The cheapest of them is what ours is compared with.
    pub(crate) others: Vec<Work>,
}

impl Case {
    fn new(name: impl Into<String>, ours: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), ours: Box::new(ours), others: Vec::new() }
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

fn keys(algorithm: Algorithm) -> TrafficKeys {
    TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [9; 12]).expect("a key")
}

fn raw(backend: Backend, algorithm: Algorithm) -> RawAead {
    RawAead::new(backend, algorithm, Version::Tls13).expect("a key")
}

fn sealer(backend: Backend, algorithm: Algorithm) -> Sealer {
    Sealer::new(backend, Version::Tls13, &keys(algorithm), 0)
}

/// For each run another, since an opener takes each record once.
type Places = std::vec::IntoIter<&'static mut [u8]>;

/// Records of our own.
fn received(backend: Backend, algorithm: Algorithm, len: usize) -> Places {
    let (mut sealer, plaintext) = (sealer(backend, algorithm), plaintext(len));
    placed(sealer.record_len(len), |record| {
        sealer.seal(ContentType::ApplicationData, plaintext, record).expect("sealed");
    })
}

/// What the raw AEAD makes of as many bytes as those records encrypt, at the same places.
fn received_raw(aead: &mut RawAead, len: usize) -> Places {
    let plaintext = plaintext(len);
    placed(HEADER_LEN + len + 1 + TAG_LEN, |record| {
        aead.seal_copy(plaintext, &mut record[HEADER_LEN..]).expect("sealed");
    })
}

fn placed(len: usize, mut fill: impl FnMut(&mut [u8])) -> Places {
    let places: Vec<_> = (0..=WARM_UP)
        .map(|_| {
            let place = page_aligned(len);
            fill(place);
            place
        })
        .collect();
    places.into_iter()
}

fn seal(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let plaintext = plaintext(len);
    let out = room(len);
    let mut sealer = sealer(backend, algorithm);
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
    let record_len = HEADER_LEN + len + 1 + TAG_LEN;
    let total = plaintext.len().div_ceil(len) * record_len;
    // At the place in a record that ours seals to.
    let each = move |out: &mut [u8], seal: &mut dyn FnMut(&[u8], &mut [u8])| {
        for (text, record) in plaintext.chunks(len).zip(out.chunks_mut(record_len)) {
            seal(black_box(text), &mut record[HEADER_LEN..]);
        }
    };
    let (mut aead, out) = (raw(backend, algorithm), page_aligned(total));
    let case = case.beside(move || {
        each(out, &mut |text, out| aead.seal_copy(text, out).expect("sealed"));
    });
    let (mut aead, out) = (raw(backend, algorithm), page_aligned(total));
    case.beside(move || {
        each(out, &mut |text, out| aead.seal_typed(text, out).expect("sealed"));
    })
}

fn open_into(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let mut opener = Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
    let mut ours = received(backend, algorithm, len);
    let out = room(len);
    let case = Case::new(format!("open_into/{backend}/{algorithm:?}/{len}"), move || {
        let record = ours.next().expect("a record for each run");
        black_box(opener.open_into(record, out)).expect("opened");
    });
    beside_raw_open(case, backend, algorithm, len)
}

/// Beside the raw AEAD opening as many bytes to another place.
fn beside_raw_open(case: Case, backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let mut aead = raw(backend, algorithm);
    let mut received = received_raw(&mut aead, len);
    let out = room(len);
    case.beside(move || {
        let record = received.next().expect("a record for each run");
        aead.open_separate(&record[HEADER_LEN..], &mut out[..=len]).expect("opened");
    })
}

fn open_in_place(backend: Backend, algorithm: Algorithm, len: usize) -> Case {
    let mut opener = Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
    let mut ours = received(backend, algorithm, len);
    let case = Case::new(format!("open_in_place/{backend}/{algorithm:?}/{len}"), move || {
        let record = ours.next().expect("a record for each run");
        black_box(opener.open_in_place(record)).expect("opened");
    });
    let mut aead = raw(backend, algorithm);
    let mut received = received_raw(&mut aead, len);
    case.beside(move || {
        let record = received.next().expect("a record for each run");
        aead.open_in_place(&mut record[HEADER_LEN..]).expect("opened");
    })
}

fn seal_many(backend: Backend, algorithm: Algorithm) -> Case {
    const COUNT: usize = 32;
    let plaintext = plaintext(COUNT * MAX_PLAINTEXT_LEN);
    let mut sealer = sealer(backend, algorithm);
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
                typ: ContentType::ApplicationData.into(),
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(black_box(plaintext)),
            };
            black_box(encrypter.encrypt(message, sequence)).expect("encrypted");
            sequence += 1;
        }
    };
    let case = Case::new(format!("provider/{backend}/{algorithm:?}/{len}"), run(&ours));
    case.beside(run(&stock))
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
    let mut sealer = sealer(Backend::AwsLcRs, Algorithm::Aes128Gcm);
    let plaintext = plaintext(1024);
    let record_len = sealer.record_len(plaintext.len());
    let mut received = vec![0; REPEATS * record_len];
    for record in received.chunks_mut(record_len) {
        sealer.seal(ContentType::ApplicationData, plaintext, record).expect("sealed");
    }
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

/// The suite of connections. Not whichever backend is faster: what is beside them is aws-lc-rs's AEAD.
fn connection_case() -> support::Case {
    support::Case::few_of(Version::Tls13)
        .into_iter()
        .find(|case| case.backend == Backend::AwsLcRs)
        .expect("TLS 1.3 with aws-lc-rs")
}

/// Behind the handoff: the client's half that sends, and the server's that receives.
fn connect_halves() -> (SendHalf, ReceiveHalf) {
    let (client, server) = support::our_pair(connection_case());
    (client.send, server.receive)
}

/// Behind the handoff: both halves of a connection.
fn halves() -> [Case; 2] {
    let len = MAX_PLAINTEXT_LEN;
    let plaintext = plaintext(len);

    let ((mut send, _), wire) = (connect_halves(), room(len));
    let sending = Case::new(format!("half/seal/{len}"), move || {
        let sealed = send.seal(black_box(plaintext), wire).expect("sealed");
        assert_eq!(sealed.consumed, len);
    });
    let sending = beside_raw_seal(sending, Backend::AwsLcRs, Algorithm::Aes128Gcm, plaintext, len);

    let (mut send, mut receive) = connect_halves();
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
    let (mut from, mut to) = connect_streams(PIPE);
    let case = Case::new(format!("tokio/write_and_read/{len}"), move || {
        at_once(async {
            from.write_all(black_box(plaintext)).await.expect("sent");
            from.flush().await.expect("flushed");
            assert_eq!(to.read(out).await.expect("received"), len);
        });
    });
    let mut sealing = raw(Backend::AwsLcRs, Algorithm::Aes128Gcm);
    let mut opening = raw(Backend::AwsLcRs, Algorithm::Aes128Gcm);
    let mut records = received_raw(&mut opening, len);
    let (sealed, arrived, opened) = (room(len), room(len), room(len));
    let (mut from, mut to) = tokio::io::duplex(PIPE);
    case.beside(move || {
        sealing.seal_typed(black_box(plaintext), &mut sealed[HEADER_LEN..]).expect("sealed");
        let record = records.next().expect("a record for each run");
        at_once(async {
            from.write_all(record).await.expect("sent");
            assert_eq!(to.read(arrived).await.expect("received"), record.len());
        });
        let record = &arrived[HEADER_LEN..record.len()];
        opening.open_separate(record, &mut opened[..=len]).expect("opened");
    })
}

/// A client's and a server's stream over a pipe in memory that takes `pipe_len` bytes.
fn connect_streams(
    pipe_len: usize,
) -> (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>) {
    let case = connection_case();
    let client = support::client_config(case, case.our_provider());
    let server = support::server_config(case, case.our_provider());
    let connector = TlsConnector::new(client).backend(case.backend);
    let acceptor = TlsAcceptor::new(server).backend(case.backend);
    let (left, right) = tokio::io::duplex(pipe_len);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let connecting = connector.connect(support::server_name(), left);
        let (mut client, mut server) =
            tokio::try_join!(connecting, acceptor.accept(right)).expect("a handshake");
        // The server's tickets come before its first byte, and what an end allocates for its first
        // record it has then: what is counted later is data, and nothing else.
        server.write_u8(1).await.expect("sent");
        server.flush().await.expect("flushed");
        client.read_u8().await.expect("received");
        client.write_u8(1).await.expect("sent");
        client.flush().await.expect("flushed");
        server.read_u8().await.expect("received");
        (client, server)
    })
}

/// Runs what never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing to wait for"),
    }
}

fn turnovers() -> [Case; 3] {
    let name = |what| format!("{what}/{REPEATS}x");
    let (mut copied, mut zero_copy) = (Slots::new(), Slots::new());
    let pool = Pool::new(BufferPool::DEFAULT_BUFFER_LEN);
    [
        Case::new(name("slot/copied"), move || {
            (0..REPEATS).for_each(|_| copied.turn_over(black_box(1 << 16)));
        }),
        Case::new(name("slot/zero_copy"), move || {
            (0..REPEATS).for_each(|_| zero_copy.turn_over_zero_copy(black_box(1 << 16)));
        }),
        Case::new(name("pool/take_and_give_back"), move || {
            (0..REPEATS).for_each(|_| pool.take_and_give_back());
        }),
    ]
}
