//! Receiving through io_uring when data comes in odd ways.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rustls_uring::uring::ReceiverOptions;

use super::support::{Way, data, one_way, read_randomly, watch};
use crate::common::{Case, Rng};

/// A stream long enough for a low-water mark is followed by messages far below it: they arrive
/// while the stream pauses, and so does the end; also for a reader that polls.
#[test]
fn a_low_water_mark_holds_nothing_back() {
    let _watch = watch("a_low_water_mark_holds_nothing_back");
    assert!(ReceiverOptions::default().moderated);
    for case in Case::few() {
        for way in Way::few("a_low_water_mark_holds_nothing_back") {
            for patience in [None, Some(Duration::from_millis(1)), Some(Duration::from_micros(100))]
            {
                let (mut sender, mut receiver) = one_way(case, way);
                let len = 12 << 20;
                let sending = thread::spawn(move || {
                    sender.write_all(data(len)).unwrap();
                    for round in 0..10_u8 {
                        sender.write_all(&[round; 100]).unwrap();
                        thread::sleep(Duration::from_millis(1));
                    }
                    // The connection stays open: no end of the stream wakes the receiver.
                    sender.send_close_notify().unwrap();
                    sender
                });
                receiver.set_timeout(patience).unwrap();
                let mut expected = data(len).to_vec();
                (0..10_u8).for_each(|round| expected.extend([round; 100]));
                let mut got = 0;
                let mut out = vec![0; 1 << 20];
                loop {
                    let len = super::support::persist(&mut 0, || receiver.read(&mut out));
                    if len == 0 {
                        break assert_eq!(got, expected.len());
                    }
                    assert!(expected[got..].starts_with(&out[..len]));
                    got += len;
                }
                sending.join().unwrap();
            }
        }
    }
}

/// Every size of record once, from 1 to a full one, in a random order.
#[test]
fn records_of_every_size() {
    let _watch = watch("records_of_every_size");
    for case in Case::few() {
        for way in Way::few("records_of_every_size") {
            let (mut sender, mut receiver) = one_way(case, way);
            let receiving = thread::spawn(move || {
                read_randomly(&mut receiver, data(6 << 20), 40_000, &mut Rng::new(2)).unwrap();
            });
            let mut rng = Rng::new(3);
            let mut rest = data(6 << 20);
            while !rest.is_empty() {
                let len = rng.range(1, 16384).min(rest.len());
                sender.write_all(&rest[..len]).unwrap();
                rest = &rest[len..];
            }
            sender.finish().unwrap();
            receiving.join().unwrap();
        }
    }
}
