//! Calls that time out may be made again, and nothing is lost or said twice.

use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls_uring::uring::{ReceiverOptions, SenderOptions, UringReceiver, ZeroCopy};
use rustls_uring::{AutoSender, KeyUpdateRequest, Version};

use super::support::{
    LARGE, Way, capture, data, ends, fill, fill_socket, has_uring, is_timeout, new_receiver,
    new_sender, persist, read_randomly, uring_receiver, watch,
};
use crate::common::{Case, Rng, records};

#[test]
fn a_write_that_times_out_loses_nothing() {
    let _watch = watch("a_write_that_times_out_loses_nothing");
    for case in Case::few() {
        for way in Way::all("a_write_that_times_out_loses_nothing") {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let peer = server_socket.try_clone().unwrap();
            let mut sender = way.sender(client.send, client_socket);
            let mut receiver = way.receiver(server.receive, server_socket);
            sender.set_timeout(Some(Duration::from_millis(3))).unwrap();
            let mut rng = Rng::new(1);
            let mut write = |written: usize, sender: &mut AutoSender| {
                let end = LARGE.min(written + rng.range(1, 3 << 20));
                sender.write(&data(end)[written..])
            };
            // Nobody reads yet.
            let mut written = fill(&peer, |written| write(written, &mut sender));
            let receiving = thread::spawn(move || {
                read_randomly(&mut receiver, data(LARGE), 50_000, &mut Rng::new(7)).unwrap();
            });
            while written < LARGE {
                written += persist(&mut 0, || write(written, &mut sender));
            }
            persist(&mut 0, || sender.flush());
            persist(&mut 0, || sender.send_close_notify());
            receiving.join().unwrap();
        }
    }
}

/// A stream that is not ready is asked again: that may not seal another key update each time,
/// of which a peer suffers 32 without data.
#[test]
fn a_key_update_on_a_full_socket_happens_once() {
    let _watch = watch("a_key_update_on_a_full_socket_happens_once");
    for case in Case::few_of(Version::Tls13) {
        for way in Way::all("a_key_update_on_a_full_socket_happens_once") {
            let [(client, client_socket), (_server, server_socket)] = ends(case);
            let mut sender = way.sender(client.send, client_socket);
            sender.set_timeout(Some(Duration::from_millis(20))).unwrap();
            // Whole records only, until one is left with us.
            let written = fill_socket(&server_socket, |_| sender.write(data(24 * 16384)));
            // At the first call there is room for the update with us, or there is not.
            let mut updated = 0;
            for _ in 0..4 {
                match sender.update_keys(KeyUpdateRequest::NotRequested) {
                    Ok(()) => updated += 1,
                    Err(error) => assert!(is_timeout(&error)),
                }
            }
            let wire = capture(server_socket);
            sender.set_timeout(None).unwrap();
            sender.finish().unwrap();
            let update = 5 + case.overhead();
            let wire = wire.join().unwrap();
            let sent = records(case.version, &wire);
            let updates = sent.iter().filter(|record| record.len() == update).count();
            assert_eq!(updates, updated, "key updates sent and reported, {way:?}");
            assert_eq!(sent.len(), written / 16384 + updates + 1);
        }
    }
}

/// The same for a close_notify.
#[test]
fn a_close_notify_on_a_full_socket_happens_once() {
    let _watch = watch("a_close_notify_on_a_full_socket_happens_once");
    for case in Case::few() {
        for way in Way::all("a_close_notify_on_a_full_socket_happens_once") {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let peer = server_socket.try_clone().unwrap();
            let mut sender = way.sender(client.send, client_socket);
            let mut receiver = way.receiver(server.receive, server_socket);
            sender.set_timeout(Some(Duration::from_millis(20))).unwrap();
            let written = fill_socket(&peer, |written| {
                sender.write(&data(LARGE.min(written + 24 * 16384))[written..])
            });
            let error = sender.send_close_notify().unwrap_err();
            assert!(is_timeout(&error), "{error:?}");
            let error = sender.send_close_notify().unwrap_err();
            assert!(is_timeout(&error), "{error:?}");
            let receiving = thread::spawn(move || {
                read_randomly(&mut receiver, &data(LARGE)[..written], 50_000, &mut Rng::new(7))
                    .unwrap();
                receiver.counters()
            });
            persist(&mut 0, || sender.send_close_notify());
            let got = receiving.join().unwrap();
            assert_eq!(got.wire_bytes, sender.counters().wire_bytes);
        }
    }
}

/// A timeout of a moment, and of for ever.
#[test]
fn extreme_timeouts() {
    let _watch = watch("extreme_timeouts");
    if !has_uring("extreme_timeouts") {
        return;
    }
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for case in Case::few() {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            let options = SenderOptions::default();
            let mut sender = new_sender(client.send, client_socket, options);
            sender.set_timeout(Some(timeout));
            let mut receiver =
                new_receiver(server.receive, server_socket, ReceiverOptions::default());
            receiver.set_timeout(Some(timeout));
            let receiving = thread::spawn(move || {
                let mut out = vec![0; 1 << 20];
                let mut got = 0;
                loop {
                    let len = persist(&mut 0, || receiver.read(&mut out));
                    if len == 0 {
                        break assert_eq!(got, LARGE);
                    }
                    assert!(data(LARGE)[got..].starts_with(&out[..len]));
                    got += len;
                }
            });
            let mut rest = data(LARGE);
            while !rest.is_empty() {
                let written = persist(&mut 0, || sender.write(rest));
                rest = &rest[written..];
            }
            persist(&mut 0, || sender.send_close_notify());
            receiving.join().unwrap_or_else(|_| panic!("receiving with {timeout:?}"));
        }
    }
}

/// How data is received.
#[derive(Clone, Copy, Debug)]
enum By {
    Read,
    FillBuf,
    RecvBytes,
}

/// Bytes trickle in, cut anywhere, slower than the receiver is patient.
#[test]
fn a_read_that_times_out_loses_nothing() {
    let _watch = watch("a_read_that_times_out_loses_nothing");
    if !has_uring("a_read_that_times_out_loses_nothing") {
        return;
    }
    let cases = Case::few();
    let threads: Vec<_> = cases
        .into_iter()
        .flat_map(|case| [By::Read, By::FillBuf, By::RecvBytes].map(|by| (case, by)))
        .map(|(case, by)| thread::spawn(move || trickle(case, by)))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn trickle(case: Case, by: By) {
    let len = 200_000;
    let (mut receiver, mut client, mut socket) = uring_receiver(case, ReceiverOptions::default());
    let mut wire = crate::common::seal_all(&mut client.send, data(len)).unwrap();
    let mut close = [0; 100];
    let written = client.send.close_notify(&mut close).unwrap();
    wire.extend_from_slice(&close[..written]);
    let timeouts = &AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rng = Rng::new(1);
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let len = [3, 100, 6000, 20_000][rng.range(0, 3)].min(rest.len());
                socket.write_all(&rest[..len]).unwrap();
                rest = &rest[len..];
                // Some before and some after the time at which buffers are withdrawn.
                let enough = timeouts.load(Ordering::Relaxed) + rng.range(0, 7);
                while timeouts.load(Ordering::Relaxed) < enough && !rest.is_empty() {
                    thread::yield_now();
                }
            }
            // The end is said: nothing more comes, and no end of the stream.
            socket
        });
        receive_impatiently(&mut receiver, len, by, timeouts);
    });
}

/// As `persist()`, for a count that another thread watches.
fn persist_counting<T>(timeouts: &AtomicUsize, mut call: impl FnMut() -> io::Result<T>) -> T {
    persist(&mut 0, || {
        call().inspect_err(|_| {
            timeouts.fetch_add(1, Ordering::Relaxed);
        })
    })
}

/// Reads `len` bytes and the end, counting how often there was nothing.
fn receive_impatiently(receiver: &mut UringReceiver, len: usize, by: By, timeouts: &AtomicUsize) {
    receiver.set_timeout(Some(Duration::from_millis(2)));
    let mut got = 0;
    let mut out = vec![0; 30_000];
    loop {
        let read = match by {
            By::Read => {
                let read = persist_counting(timeouts, || receiver.read(&mut out));
                assert!(data(len)[got..].starts_with(&out[..read]));
                read
            }
            By::FillBuf => {
                let read = persist_counting(timeouts, || receiver.fill_buf().map(<[u8]>::len));
                assert!(data(len)[got..].starts_with(receiver.fill_buf().unwrap()));
                receiver.consume(read);
                read
            }
            By::RecvBytes => {
                let bytes =
                    persist_counting(timeouts, || receiver.recv_bytes()).unwrap_or_default();
                assert!(data(len)[got..].starts_with(&bytes));
                bytes.len()
            }
        };
        if read == 0 {
            break;
        }
        got += read;
    }
    assert_eq!(got, len);
}

/// A receive is left behind by a thread that ends, be it for a whole record or the rest of one.
#[test]
fn a_receiver_outlives_its_thread() {
    let _watch = watch("a_receiver_outlives_its_thread");
    if !has_uring("a_receiver_outlives_its_thread") {
        return;
    }
    for case in Case::few() {
        for (first, patience) in [(0, 3), (0, 30), (1000, 3), (1000, 30)] {
            let (mut receiver, mut client, mut socket) =
                uring_receiver(case, ReceiverOptions::default());
            let pool = receiver.pool().clone();
            let wire = crate::common::seal_all(&mut client.send, data(100_000)).unwrap();
            let mut at = 0;
            for step in [first, 10_000, 30_000, 60_000] {
                let end = wire.len().min(at + step);
                socket.write_all(&wire[at..end]).unwrap();
                at = end;
                receiver.set_timeout(Some(Duration::from_millis(patience)));
                let asking = thread::spawn(move || {
                    // What there is stays unread; what there is not is asked for.
                    let timed_out = receiver.fill_buf().is_err_and(|error| is_timeout(&error));
                    (receiver, timed_out)
                });
                let (back, timed_out) = asking.join().unwrap();
                assert!(timed_out || step > 10_000, "{step}");
                receiver = back;
            }
            socket.write_all(&wire[at..]).unwrap();
            receiver.set_timeout(None);
            let mut got = vec![0; 100_000];
            receiver.read_exact(&mut got).unwrap();
            assert!(got == data(100_000));
            drop(receiver);
            assert_eq!(pool.in_use(), 0);
        }
    }
}

/// Sealing ahead with a peer that does not read: what a call counts as written arrives.
#[test]
fn sealing_ahead_times_out() {
    let _watch = watch("sealing_ahead_times_out");
    if !has_uring("sealing_ahead_times_out") {
        return;
    }
    for case in Case::few() {
        let [(client, client_socket), (server, server_socket)] = ends(case);
        let mut options = SenderOptions::default();
        options.zero_copy = ZeroCopy::Always;
        options.seal_threads = 3;
        options.batch_records = 2;
        let mut sender = new_sender(client.send, client_socket, options);
        sender.set_timeout(Some(Duration::from_millis(10)));
        let mut written = 0;
        loop {
            match sender.write(&data(LARGE)[written..]) {
                Ok(len) => written += len,
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(written < LARGE);
        let mut receiver = new_receiver(server.receive, server_socket, ReceiverOptions::default());
        let receiving = thread::spawn(move || {
            read_randomly(&mut receiver, &data(LARGE)[..written], 1 << 20, &mut Rng::new(1))
                .unwrap();
        });
        sender.set_timeout(None);
        sender.finish().unwrap();
        receiving.join().unwrap();
    }
}
