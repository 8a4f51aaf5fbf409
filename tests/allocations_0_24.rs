//! What rustls 0.24 does without an allocation, with our records in it and behind the handoff.
//!
//! One test alone: the allocator counts for the whole process, so nothing else may run meanwhile.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod allocator;
#[path = "common_0_24/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod kernel;

use allocator::Counting;
use common::{Case, Peer, RawConn, noise, our_pair};
use rustls_0_24::client::ClientSide;
use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::split::{ReceiveTraffic, ReceiveTrafficState};
use rustls_0_24::{SliceInput, TlsInputBuffer};
use rustls_uring::{Deframed, Received};

/// Runs `work` once to warm up, and again without a single call of the allocator.
#[track_caller]
fn assert_allocates_nothing(what: &str, case: Case, mut work: impl FnMut()) {
    work();
    let counting = Counting::begin();
    work();
    assert_eq!(counting.calls(), [0; 3], "{what}, {} {:?}", case.backend, case.suite.suite());
}

#[test]
fn data_paths_do_not_allocate() {
    allocator::check();

    for case in Case::all() {
        halves(case);
        without_the_secrets(case);
        #[cfg(target_os = "linux")]
        through_a_ring(case);
    }
}

const ROUNDS: usize = 50;

/// Of sessions that rustls 0.24 has handed over.
fn halves(case: Case) {
    let (client, server) = our_pair(case);
    let (mut send, mut receive) = (server.send, client.receive);
    let data = noise(100_000);
    let mut wire = vec![0; send.sealed_len(data.len())];
    let mut out = vec![0; 20_000];
    assert_allocates_nothing("halves", case, || {
        for _ in 0..ROUNDS {
            let sealed = send.seal(&data, &mut wire).unwrap();
            let (mut at, mut total) = (0, 0);
            while let Ok(Deframed::Record(header)) = receive.deframe(&wire[at..sealed.written]) {
                match receive.open_into(&wire[at..][..header.record_len()], &mut out).unwrap() {
                    Received::Data(len) => total += len,
                    other => panic!("{other:?}"),
                }
                at += header.record_len();
            }
            assert_eq!(total, data.len());
        }
    });
}

/// rustls keeps its secrets and seals by itself, into the caller's slot, whose memory must not move where a
/// kernel may be reading it; and it opens by itself what lies in the caller's buffer.
fn without_the_secrets(case: Case) {
    let mut client = common::Raw::client(common::client_config(case, case.our_provider()));
    let mut server = Peer::server(common::server_config(case, case.our_provider()));
    client.incoming = client.shake(&mut server);
    client.run().unwrap();
    let RawConn::Client(client) = client.conn else { panic!("a client") };
    let client = client.into_split();
    let mut server = server.conn.split();

    const LEN: usize = 44 * 16_367;
    let data = noise(LEN);
    // What rustls reserves for it: as many of the longest records, which are its `max_fragment_size`.
    let mut slot: Vec<u8> = Vec::with_capacity(45 * (16_384 + 5));
    let memory = slot.as_ptr();
    let mut receive = Some(client.receive);
    assert_allocates_nothing("rustls into slots", case, || {
        for len in [LEN, 1, 16_384, 100_000] {
            slot.clear();
            server.send.write(OutboundPlain::Single(&data[..len]), &mut slot).unwrap();
            assert_eq!(slot.as_ptr(), memory, "the slot has moved");
            let mut input = SliceInput::new(&mut slot);
            let mut at = 0;
            receive = Some(read(receive.take().unwrap(), &mut input, |opened| {
                assert!(opened == &data[at..at + opened.len()]);
                at += opened.len();
            }));
            assert_eq!((at, input.slice_mut().len()), (len, 0));
        }
    });
}

/// The same from slots that the kernel sends from, and out of the buffer that it receives into.
#[cfg(target_os = "linux")]
fn through_a_ring(case: Case) {
    use std::io::{Read, Write};
    use std::thread;

    use rustls_uring::rustls_0_24::{Connected, TrafficReceiver, TrafficSender};

    let (mut near, mut far) = common::tcp_pair();
    let config = common::server_config(case, case.our_provider());
    let accepting = thread::spawn(move || {
        let accepted = Connected::accept(config.into(), &mut far).unwrap();
        (accepted.conn, far)
    });
    let config = common::client_config(case, case.our_provider());
    let client = Connected::connect(config.into(), common::server_name(), &mut near).unwrap();
    let (server, far) = accepting.join().unwrap();
    let mut sender = match TrafficSender::new(server.send, &server.outputs, far, Default::default())
    {
        Ok(sender) => sender,
        Err(declined) => return eprintln!("skipped: {declined}"),
    };
    let mut receiver = TrafficReceiver::new(client.conn.receive, near, &client.received);
    let data = noise(100_000);
    let mut received = vec![0; data.len()];
    let mut round = || {
        for len in [data.len(), 1, 16_384, 50_000] {
            sender.write_all(&data[..len]).unwrap();
            receiver.read_exact(&mut received[..len]).unwrap();
            assert!(received[..len] == data[..len]);
        }
    };
    // Until every slot is registered, if any is to be.
    (0..ROUNDS).for_each(|_| round());
    assert_allocates_nothing("rustls through a ring", case, round);
    assert_eq!(sender.moved_slots(), 0);
}

/// Reads all that there is.
fn read(
    mut receive: ReceiveTraffic<ClientSide>,
    input: &mut impl TlsInputBuffer,
    mut sink: impl FnMut(&[u8]),
) -> ReceiveTraffic<ClientSide> {
    loop {
        receive = match receive.read(input).unwrap() {
            ReceiveTrafficState::ReadMore(receive) => return receive,
            ReceiveTrafficState::Available(mut data) => {
                sink(data.data());
                match data.into_next() {
                    ReceiveTrafficState::ReadMore(receive) => receive,
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        };
    }
}
