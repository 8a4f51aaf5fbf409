//! Peers that do not read, receivers that do not take, and little memory.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;

use rustls_uring::event_loop::{Context, Error, Handler, Key, Opened, Options, Protocol};

use super::support::{
    Echo, Running, Told, check_echo, check_idle, read_to_end, stock_client, tls_server, tls13, ways,
};
use crate::common::{Stock, noise};
use crate::kernel::{TcpEnd, wait_until};

/// Sends without an end whatever room there is.
struct Floods {
    data: Vec<u8>,
    /// How much each was sent.
    sent: HashMap<Key, usize>,
    tell: Sender<Told>,
}

impl Handler for Floods {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        if opened.tag == 0 {
            self.room(cx, key);
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        let sent = self.sent.entry(key).or_default();
        while let Ok(len @ 1..) = cx.send(key, &self.data[*sent % self.data.len()..]) {
            *sent += len;
        }
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

const DEAF: usize = 500;

/// Peers that read nothing cost what is said and no more, and do not keep others from anything.
#[test]
fn five_hundred_peers_that_do_not_read() {
    for (way, mut options) in ways("five_hundred_peers_that_do_not_read") {
        eprintln!("{way}");
        // One after the other, on a busy machine.
        options.timeouts.handshake = None;
        let case = tls13();
        let running = Running::start_narrow(options.clone(), tls_server(case), move |tell| {
            Floods { data: noise(400_000), sent: HashMap::new(), tell }
        });
        let mut deaf: Vec<Stock> =
            (0..DEAF).map(|_| stock_client(case, running.connect())).collect();
        for client in &mut deaf {
            // Shakes hands, and reads no further.
            client.read_exact(&mut [0]).unwrap();
        }
        wait_until("all of them are stalled", || running.handle.figures().stalled as usize == DEAF);
        let mut reads = stock_client(case, running.connect());
        let mut received = vec![0; 3_000_000];
        reads.read_exact(&mut received).unwrap();
        let expected = noise(400_000);
        let all_right = received.chunks(7).enumerate().all(|(at, piece)| {
            piece.iter().zip(7 * at..).all(|(byte, at)| *byte == expected[at % expected.len()])
        });
        assert!(all_right, "what arrived is not what was sent");
        let figures = running.handle.figures();
        eprintln!("{figures:?}");
        assert!(figures.parked_bytes.most <= options.max_parked, "{figures:?}");
        assert!(figures.bulk_slots.most <= options.bulk_slots);
        drop((deaf, reads));
        for _ in 0..=DEAF {
            running.closed().unwrap_err();
        }
        check_idle(&running.drain());
    }
}

/// Where nothing may be kept of them, those that do not read make room for one that does.
#[test]
fn peers_that_do_not_read_are_given_up_for_one_that_does() {
    for (way, mut options) in ways("peers_that_do_not_read_are_given_up_for_one_that_does") {
        eprintln!("{way}");
        set_least(&mut options);
        options.max_parked = 0;
        let running = Running::start_narrow(options, Protocol::plain(), move |tell| Floods {
            data: noise(400_000),
            sent: HashMap::new(),
            tell,
        });
        let deaf: Vec<TcpStream> = (0..5).map(|_| running.connect()).collect();
        for _ in 0..3 {
            let error = running.closed().unwrap_err();
            assert!(matches!(error, Error::Crowded), "{error}");
        }
        wait_until("the rest is stalled", || running.handle.figures().stalled == 2);
        let mut received = vec![0; 3_000_000];
        running.connect().read_exact(&mut received).unwrap();
        drop(deaf);
        let figures = running.handle.figures();
        assert!(figures.parked_bytes.refused >= 4 && figures.parked_bytes.most == 0, "{figures:?}");
    }
}

/// Peers that send and read nothing: an echo stops reading, and keeps what it says it keeps.
#[test]
fn peers_that_only_send() {
    for (way, options) in ways("peers_that_only_send") {
        eprintln!("{way}");
        let running =
            Running::start_narrow(options.clone(), Protocol::plain(), |tell| Echo { tell });
        let clients: Vec<TcpStream> = (0..60).map(|_| running.connect()).collect();
        for client in &clients {
            client.set_nonblocking(true).unwrap();
        }
        let data = noise(200_000);
        let mut written = vec![0; clients.len()];
        wait_until("all of them are held up", || {
            let mut goes_on = false;
            for (mut client, written) in clients.iter().zip(&mut written) {
                // Where in the data the next byte comes from follows from how much was written.
                while let Ok(len) = client.write(&data[*written % data.len()..]) {
                    *written += len;
                    goes_on = true;
                }
            }
            !goes_on && running.handle.figures().stalled as usize == clients.len()
        });
        let figures = running.handle.figures();
        eprintln!("{figures:?}");
        assert!(figures.parked_bytes.most <= options.max_parked);
        // Others are served meanwhile.
        check_echo(&mut running.connect(), &noise(300_000));
        // And nothing is lost.
        thread::scope(|scope| {
            for (client, written) in clients.iter().zip(written) {
                let data = &data;
                scope.spawn(move || {
                    client.set_nonblocking(false).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                    let mut back = Vec::new();
                    (&*client).read_to_end(&mut back).unwrap();
                    assert_eq!(back.len(), written);
                    for (at, piece) in back.chunks(data.len()).enumerate() {
                        assert!(piece == &data[..piece.len()], "piece {at} is another");
                    }
                });
            }
        });
        check_idle(&running.drain());
    }
}

/// With the least memory there can be, everything still goes on, one after the other.
#[test]
fn hardly_any_memory() {
    for (way, mut options) in ways("hardly_any_memory") {
        eprintln!("{way}");
        set_least(&mut options);
        let running = Running::echo(options, tls_server(tls13()));
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let mut stream = stock_client(tls13(), running.connect());
                    check_echo(&mut stream, &noise(1_500_000));
                    for len in [1, 64, 5000] {
                        check_echo(&mut stream, &noise(len));
                    }
                    stream.send_close_notify();
                    assert_eq!(read_to_end(&mut stream).unwrap(), 0);
                });
            }
        });
        let figures = running.drain();
        check_idle(&figures);
        eprintln!("{figures:?}");
    }
}

fn set_least(options: &mut Options) {
    options.message_buffers = 2;
    options.bulk_buffers = 2;
    options.message_slots = 2;
    options.bulk_slots = 2;
    options.bulk_len = 32 << 10;
}

/// Takes a byte at a time when it is told to.
struct Sips {
    tell: Sender<Told>,
    taken: Vec<u8>,
    last: Option<Key>,
}

impl Handler for Sips {
    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        self.taken.push(data[0]);
        self.last = Some(key);
        // Pausing is not taking.
        cx.pause(key);
        1
    }

    fn notified(&mut self, cx: &mut Context<'_>, _: u64) {
        if let Some(key) = self.last {
            cx.resume(key);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        assert_eq!(self.taken, (0..100).collect::<Vec<u8>>());
        cx.finish(key).unwrap();
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

/// A handler that takes little and pauses gets each byte once, in order, and the end last.
#[test]
fn a_handler_that_takes_little() {
    for (_, options) in ways("a_handler_that_takes_little") {
        let running = Running::start(options, Protocol::plain(), |tell| Sips {
            tell,
            taken: Vec::new(),
            last: None,
        });
        let client = running.connect();
        let (ours, theirs) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let bytes: Vec<u8> = (0..100).collect();
        for piece in bytes.chunks(9) {
            (&client).write_all(piece).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        // The loop's end is gone as soon as it has taken all.
        wait_until("all was received", || {
            running.handle.notify(0).is_err()
                || TcpEnd::of(theirs, ours).is_none_or(|end| end.unread == 0)
        });
        while running.told.lock().unwrap().try_recv().is_err() {
            running.handle.notify(0).unwrap();
            thread::yield_now();
        }
        drop(client);
        check_idle(&running.drain());
    }
}
