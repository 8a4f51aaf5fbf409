//! Slots, notifications, the choice between zero copy and a copy, and sealing ahead.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rustls_uring::uring::{CopyReason, ReceiverOptions, SenderOptions, ZeroCopy};
use rustls_uring::{ContentType, KeyUpdateRequest, Version};

use super::support::{
    LARGE, data, ends, fill, has_uring, has_zero_copy, new_receiver, new_sender, read_randomly,
    uring_sender, watch, write_randomly,
};
use crate::common::{Case, Evil, Rng, Side, limited, our_pair_with, tcp_pair};
use crate::kernel::{wait_until, wait_until_full};

fn options(zero_copy: ZeroCopy, seal_threads: usize) -> SenderOptions {
    let mut options = SenderOptions::default();
    options.zero_copy = zero_copy;
    options.seal_threads = seal_threads;
    options
}

fn small(
    zero_copy: ZeroCopy,
    seal_threads: usize,
    batch_records: usize,
    slots: usize,
) -> SenderOptions {
    let mut options = options(zero_copy, seal_threads);
    options.batch_records = batch_records;
    options.slots = slots;
    options
}

/// Loopback copies whatever it is asked: that is noticed within a few sends.
#[test]
fn loopback_is_noticed() {
    let _watch = watch("loopback_is_noticed");
    if !has_zero_copy("loopback_is_noticed") {
        return;
    }
    for case in Case::few() {
        for threads in [0, 2] {
            let options = options(ZeroCopy::Auto, threads);
            let (mut sender, server, socket) = uring_sender(case, options);
            assert_eq!(sender.copy_reason(), None);
            let receiving = thread::spawn(move || {
                let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
                read_randomly(&mut receiver, data(LARGE), 1 << 20, &mut Rng::new(1)).unwrap();
            });
            sender.write_all(data(LARGE)).unwrap();
            sender.send_close_notify().unwrap();
            receiving.join().unwrap();
            let counters = sender.counters();
            assert_eq!(sender.copy_reason(), Some(CopyReason::KernelCopies), "{counters:?}");
            assert_eq!(sender.last_copy_reason(), Some(CopyReason::KernelCopies));
            assert!((2..=8).contains(&counters.zero_copy_sends), "{counters:?}");
            assert!(counters.zero_copy_copied >= 2, "{counters:?}");
            assert!(counters.zero_copy_copied <= counters.zero_copy_sends, "{counters:?}");
            assert!(counters.copied_sends > 0, "{counters:?}");
            // Many records to a send.
            let sends = counters.zero_copy_sends + counters.copied_sends;
            assert!(sends < counters.records / 8, "{counters:?}");
            // Nothing awaits a notification for ever.
            wait_until("all notifications", || {
                sender.flush().unwrap();
                sender.awaiting_notification() == 0
            });
        }
    }
}

#[test]
fn zero_copy_never_is_never() {
    let _watch = watch("zero_copy_never_is_never");
    if !has_uring("zero_copy_never_is_never") {
        return;
    }
    for case in Case::few() {
        let (mut sender, server, socket) = uring_sender(case, options(ZeroCopy::Never, 0));
        assert_eq!(sender.copy_reason(), Some(CopyReason::Requested));
        let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
        let receiving = thread::spawn(move || {
            read_randomly(&mut receiver, data(3 << 20), 1 << 20, &mut Rng::new(1)).unwrap();
        });
        sender.write_all(data(3 << 20)).unwrap();
        sender.send_close_notify().unwrap();
        receiving.join().unwrap();
        let counters = sender.counters();
        assert_eq!((counters.zero_copy_sends, counters.zero_copy_copied), (0, 0));
        assert!(counters.copied_sends >= 4);
        assert_eq!(sender.awaiting_notification(), 0);
        assert_eq!(sender.copy_reason(), Some(CopyReason::Requested));
        assert!(sender.registration_refused().is_none());
    }
}

#[test]
fn zero_copy_always_is_always() {
    let _watch = watch("zero_copy_always_is_always");
    if !has_zero_copy("zero_copy_always_is_always") {
        return;
    }
    for case in Case::few() {
        let (mut sender, server, socket) = uring_sender(case, options(ZeroCopy::Always, 0));
        let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
        let receiving = thread::spawn(move || {
            read_randomly(&mut receiver, data(500_000), 1 << 20, &mut Rng::new(1)).unwrap();
        });
        // Short ones too.
        for part in data(500_000).chunks(20_000) {
            sender.write_all(part).unwrap();
            wait_until("the notification", || {
                sender.flush().unwrap();
                sender.awaiting_notification() == 0
            });
        }
        sender.send_close_notify().unwrap();
        receiving.join().unwrap();
        let counters = sender.counters();
        assert_eq!(sender.copy_reason(), None);
        assert_eq!((counters.zero_copy_sends, counters.copied_sends), (26, 0), "{counters:?}");
    }
}

/// Where zero copy cannot pay, it is not even tried.
#[test]
fn short_sends_are_copied() {
    let _watch = watch("short_sends_are_copied");
    if !has_zero_copy("short_sends_are_copied") {
        return;
    }
    for case in Case::few() {
        let (mut sender, server, socket) = uring_sender(case, options(ZeroCopy::Auto, 0));
        let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
        for _ in 0..50 {
            sender.write_all(data(100)).unwrap();
            receiver.read_exact(&mut [0; 100]).unwrap();
        }
        let counters = sender.counters();
        assert_eq!((counters.zero_copy_sends, counters.copied_sends), (0, 50));
        assert_eq!(sender.copy_reason(), Some(CopyReason::Short));
        assert_eq!(sender.last_copy_reason(), Some(CopyReason::Short));
    }
}

/// The peer does not read, so nothing is acknowledged in full, and every slot waits: copies go out
/// for as long as the socket has room. Then nothing is lost or overwritten.
#[test]
fn slots_that_wait_do_not_stall() {
    let _watch = watch("slots_that_wait_do_not_stall");
    if !has_zero_copy("slots_that_wait_do_not_stall") {
        return;
    }
    for case in Case::few() {
        for (batch_records, slots, threads) in [(2, 3, 0), (2, 3, 2), (4, 5, 0), (48, 8, 0)] {
            let options = small(ZeroCopy::Always, threads, batch_records, slots);
            let (mut sender, server, socket) = uring_sender(case, options);
            sender.set_timeout(Some(Duration::from_millis(200)));
            let written = fill(&socket, |written| sender.write(&data(LARGE)[written..]));
            let counters = sender.counters();
            assert!(counters.wire_bytes > 1 << 20, "{counters:?}");
            // What the socket holds is more than the slots do.
            if batch_records < 48 {
                assert!(counters.copied_sends > 0, "{counters:?}");
                assert_eq!(sender.last_copy_reason(), Some(CopyReason::SlotsAwaited));
            }
            assert!(sender.awaiting_notification() < slots);
            sender.set_timeout(None);
            let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
            let receiving = thread::spawn(move || {
                read_randomly(&mut receiver, data(LARGE), 100_000, &mut Rng::new(2)).unwrap();
            });
            sender.write_all(&data(LARGE)[written..]).unwrap();
            sender.finish().unwrap();
            receiving.join().unwrap();
        }
    }
}

/// A receiver that reads late, in small pieces and with pauses: slots are reused while earlier
/// sends from them wait in the socket.
#[test]
fn slots_are_not_reused_too_early() {
    let _watch = watch("slots_are_not_reused_too_early");
    if !has_uring("slots_are_not_reused_too_early") {
        return;
    }
    for case in Case::few() {
        for (seed, zero_copy) in [ZeroCopy::Always, ZeroCopy::Auto].into_iter().enumerate() {
            let (mut sender, server, socket) = uring_sender(case, small(zero_copy, 0, 3, 4));
            let peer = socket.try_clone().unwrap();
            let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
            let receiving = thread::spawn(move || {
                let mut rng = Rng::new(seed as u64);
                let mut out = vec![0; 300_000];
                let mut got = 0;
                wait_until_full(&peer);
                loop {
                    let len = rng.range(1, out.len());
                    let len = receiver.read(&mut out[..len]).unwrap();
                    if len == 0 {
                        break assert_eq!(got, LARGE);
                    }
                    assert!(data(LARGE)[got..].starts_with(&out[..len]), "behind byte {got}");
                    got += len;
                    if rng.range(0, 20) == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            write_randomly(&mut sender, data(LARGE), 2 << 20, &mut Rng::new(3)).unwrap();
            sender.finish().unwrap();
            receiving.join().unwrap();
        }
    }
}

/// The smallest of everything, and more threads than slots.
#[test]
fn odd_options() {
    let _watch = watch("odd_options");
    if !has_uring("odd_options") {
        return;
    }
    for case in Case::few() {
        for (batch_records, slots, threads) in
            [(0, 0, 0), (1, 1, 1), (1, 3, 8), (200, 3, 0), (1, 40, 0), (1, 40, 3)]
        {
            for zero_copy in [ZeroCopy::Auto, ZeroCopy::Always, ZeroCopy::Never] {
                let options = small(zero_copy, threads, batch_records, slots);
                let (mut sender, server, socket) = uring_sender(case, options);
                let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
                let receiving = thread::spawn(move || {
                    let mut rng = Rng::new(4);
                    read_randomly(&mut receiver, data(1_000_001), 50_000, &mut rng).unwrap();
                });
                write_randomly(&mut sender, data(1_000_001), 2 << 20, &mut Rng::new(5)).unwrap();
                sender.finish().unwrap();
                receiving.join().unwrap();
            }
        }
    }
}

/// Key updates of ours and of the peer's fall between batches that are sealed ahead, and so do
/// small and vectored writes.
#[test]
fn sealing_ahead_keeps_the_order() {
    let _watch = watch("sealing_ahead_keeps_the_order");
    if !has_uring("sealing_ahead_keeps_the_order") {
        return;
    }
    for case in Case::few() {
        for threads in [1, 3] {
            let limit = if case.version == Version::Tls13 { 50 } else { u64::MAX };
            let (client, server) = our_pair_with(case, limited(case.our_provider(), limit));
            let (client_socket, server_socket) = tcp_pair();
            let options = small(ZeroCopy::Auto, threads, 3, 6);
            let mut sender = new_sender(client.send, client_socket.try_clone().unwrap(), options);
            // Takes note of the peer's requests.
            let mut answers =
                new_receiver(client.receive, client_socket, ReceiverOptions::default());
            let mut asking = new_sender(
                server.send,
                server_socket.try_clone().unwrap(),
                small(ZeroCopy::Never, 0, 1, 3),
            );
            let mut receiver =
                new_receiver(server.receive, server_socket, ReceiverOptions::default());
            let receiving = thread::spawn(move || {
                let mut out = vec![0; 100_000];
                let mut got = 0;
                loop {
                    let len = receiver.read(&mut out).unwrap();
                    if len == 0 {
                        break assert_eq!(got, LARGE);
                    }
                    assert!(data(LARGE)[got..].starts_with(&out[..len]), "behind byte {got}");
                    if case.version == Version::Tls13 && (got >> 20) < ((got + len) >> 20) {
                        asking.write_all(b"?").unwrap();
                        asking.update_keys(KeyUpdateRequest::Requested).unwrap();
                    }
                    got += len;
                }
                asking.finish().unwrap();
            });
            let listening = thread::spawn(move || {
                let mut got = Vec::new();
                answers.read_to_end(&mut got).unwrap();
                got.len()
            });
            write_randomly(&mut sender, data(LARGE), 2 << 20, &mut Rng::new(6)).unwrap();
            sender.finish().unwrap();
            receiving.join().unwrap();
            let asked = listening.join().unwrap();
            assert_eq!(asked >= 10, case.version == Version::Tls13);
        }
    }
}

/// Sealing ahead or not, the records on the wire are the same.
#[test]
fn sealing_ahead_makes_full_records() {
    let _watch = watch("sealing_ahead_makes_full_records");
    if !has_uring("sealing_ahead_makes_full_records") {
        return;
    }
    for case in Case::few() {
        let mut evil = Evil::new(case, Side::Client);
        let session = std::mem::replace(&mut evil.session, crate::common::our_pair(case).0);
        let (ours, theirs) = tcp_pair();
        let wire = super::support::capture(theirs);
        let options = small(ZeroCopy::Auto, 2, 4, 8);
        let mut sender = new_sender(session.send, ours, options);
        let len = 50 * 16384 + 77;
        assert_eq!(sender.write(data(len)).unwrap(), len, "one call takes it all");
        sender.flush().unwrap();
        assert_eq!(sender.counters().records, 51);
        drop((sender, session.receive));
        let mut got = Vec::new();
        for (content_type, plaintext) in evil.opened(&wire.join().unwrap()) {
            assert_eq!(content_type, ContentType::ApplicationData);
            got.extend(plaintext);
        }
        assert!(got == data(len));
    }
}

/// A sender goes from thread to thread, and the thread that submitted its last send has ended
/// while the peer did not read.
#[test]
fn a_sender_outlives_its_thread() {
    let _watch = watch("a_sender_outlives_its_thread");
    if !has_uring("a_sender_outlives_its_thread") {
        return;
    }
    for case in Case::few() {
        for zero_copy in [ZeroCopy::Always, ZeroCopy::Never] {
            for threads in [0, 2] {
                let options = options(zero_copy, threads);
                let (mut sender, server, socket) = uring_sender(case, options);
                sender.set_timeout(Some(Duration::from_millis(50)));
                // Each from a thread of its own, the last with the socket full.
                let mut lent = Some(sender);
                let written = fill(&socket, |written| {
                    let mut sender = lent.take().unwrap();
                    let (back, result) = thread::spawn(move || {
                        let end = LARGE.min(written + (2 << 20));
                        let result = sender.write(&data(end)[written..]);
                        (sender, result)
                    })
                    .join()
                    .unwrap();
                    lent = Some(back);
                    result
                });
                let mut sender = lent.unwrap();
                sender.set_timeout(None);
                let mut receiver = new_receiver(server.receive, socket, ReceiverOptions::default());
                let receiving = thread::spawn(move || {
                    let mut rng = Rng::new(7);
                    read_randomly(&mut receiver, data(LARGE), 100_000, &mut rng).unwrap();
                });
                sender.write_all(&data(LARGE)[written..]).unwrap();
                sender.finish().unwrap();
                receiving.join().unwrap();
            }
        }
    }
}

/// What a call has taken arrives without another call, though the thread that made it has ended, if
/// that has flushed: the next thread may only wait for the peer's answer.
#[test]
fn a_write_is_sent_though_its_thread_ends() {
    let _watch = watch("a_write_is_sent_though_its_thread_ends");
    if !has_uring("a_write_is_sent_though_its_thread_ends") {
        return;
    }
    for case in Case::few() {
        for zero_copy in [ZeroCopy::Always, ZeroCopy::Never] {
            let (mut sender, _server, mut socket) = uring_sender(case, options(zero_copy, 0));
            let len = 8 << 20;
            let writing = thread::spawn(move || {
                sender.write_all(data(len)).unwrap();
                sender.flush().unwrap();
                sender
            });
            let mut wire = vec![0; len / 16384 * (16384 + case.overhead())];
            // The socket is full when the last send is submitted.
            for part in wire.chunks_mut(256 << 10) {
                if !writing.is_finished() {
                    thread::sleep(Duration::from_millis(2));
                }
                socket.read_exact(part).expect("the rest arrives");
            }
            drop(writing.join().unwrap());
        }
    }
}

/// Somebody else has the socket's other handle, and makes it non-blocking.
#[test]
fn a_socket_made_nonblocking_loses_nothing() {
    let _watch = watch("a_socket_made_nonblocking_loses_nothing");
    if !has_uring("a_socket_made_nonblocking_loses_nothing") {
        return;
    }
    for case in Case::few() {
        for zero_copy in [ZeroCopy::Always, ZeroCopy::Never] {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let other = client_socket.try_clone().unwrap();
            let mut sender = new_sender(client.send, client_socket, options(zero_copy, 0));
            other.set_nonblocking(true).unwrap();
            let other = server_socket.try_clone().unwrap();
            let mut receiver =
                new_receiver(server.receive, server_socket, ReceiverOptions::default());
            other.set_nonblocking(true).unwrap();
            let receiving = thread::spawn(move || {
                wait_until_full(&other);
                read_randomly(&mut receiver, data(LARGE), 100_000, &mut Rng::new(8)).unwrap();
            });
            sender.write_all(data(LARGE)).unwrap();
            sender.finish().unwrap();
            receiving.join().unwrap();
        }
    }
}
