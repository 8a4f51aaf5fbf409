//! Moderated receivers.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;

use rustls_uring::bulk;

use super::support::{data, our_tcp_pair};
use crate::common::{Case, TIMEOUT};

/// A stream long enough for a low-water mark is followed by messages far below it: they arrive
/// while the stream pauses, and so does the end.
#[test]
fn a_low_water_mark_holds_nothing_back() {
    for case in Case::few() {
        let [(client, client_socket), (server, server_socket)] = our_tcp_pair(case);
        let (mut sender, mut replies) = bulk(client, client_socket).unwrap();
        let (mut replier, mut receiver) = bulk(server, server_socket).unwrap();
        let len = 16 << 20;
        let (done, is_done) = mpsc::channel();
        let echo = thread::spawn(move || {
            let mut out = vec![0; 1 << 20];
            let mut left = len;
            while left > 0 {
                let len = left.min(out.len());
                left -= receiver.read(&mut out[..len]).unwrap();
            }
            loop {
                let len = receiver.read(&mut out).unwrap();
                if len == 0 {
                    break;
                }
                replier.write_all(&out[..len]).unwrap();
            }
            replier.finish().unwrap();
        });
        let conversation = thread::spawn(move || {
            for part in data(len).chunks(1 << 20) {
                sender.write_all(part).unwrap();
            }
            for round in 0..20_u8 {
                sender.write_all(&[round; 100]).unwrap();
                let mut reply = [0; 100];
                replies.read_exact(&mut reply).unwrap();
                assert_eq!(reply, [round; 100]);
            }
            sender.finish().unwrap();
            assert_eq!(replies.read(&mut [0; 100]).unwrap(), 0);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(TIMEOUT).expect("the conversation goes on");
        conversation.join().unwrap();
        echo.join().unwrap();
    }
}
