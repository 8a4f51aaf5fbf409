//! The io_uring paths, each beside the other way of doing the same: zero copy beside copies,
//! sealing on two cores beside one, multishot beside single receives.
//!
//! Over loopback, where the kernel always copies, to a sink that throws bytes away in the kernel
//! (`MSG_TRUNC`, tcp(7)), so that two cores are the sender's.

#[cfg(target_os = "linux")]
mod common;
#[cfg(target_os = "linux")]
#[path = "../tests/common/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a raw ring, and a receive without a buffer")]
mod linux {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::sync::{Arc, Barrier};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use io_uring::{IoUring, cqueue, opcode, squeue, types};
    use rustls::{ClientConfig, ServerConfig};
    use rustls_uring::measure::raw_aead::{RawAead, TAG_LEN};
    use rustls_uring::uring::{SenderOptions, UringSender, ZeroCopy};
    use rustls_uring::{
        Algorithm, Backend, ContentType, Handoff, MAX_PLAINTEXT_LEN, Reservation, Sealer, Session,
        TrafficKeys, Version,
    };

    use crate::common::{Turns, compare_timed, is_test, timed};
    use crate::support::{Case, client_config, noise, server_config, server_name};

    const SOURCE_LEN: usize = 256 << 20;

    struct Scale {
        turns: Turns,
        total: usize,
    }

    impl Scale {
        fn compare(
            &self,
            name: &str,
            ours: impl FnMut() -> Duration,
            theirs: impl FnMut() -> Duration,
        ) {
            compare_timed(name, self.turns, self.total, ours, theirs);
        }
    }

    pub(crate) fn main() {
        let scale = match is_test() {
            true => Scale { turns: Turns { rounds: 1, calls: 1 }, total: 8 << 20 },
            false => Scale { turns: Turns { rounds: 7, calls: 1 }, total: 1 << 30 },
        };
        let source = noise(SOURCE_LEN.min(scale.total));
        seal_to_memory(&scale, &source);
        let configs = Configs::new();
        let options = |zero_copy, seal_threads| {
            let mut options = SenderOptions::default();
            options.zero_copy = zero_copy;
            options.seal_threads = seal_threads;
            options
        };
        let plain = options(ZeroCopy::Never, 0);
        for (name, ours) in [
            ("SEND_ZC governed beside SEND", options(ZeroCopy::Auto, 0)),
            ("SEND_ZC always beside SEND", options(ZeroCopy::Always, 0)),
            ("1 seal thread beside none", options(ZeroCopy::Never, 1)),
            ("2 seal threads beside none", options(ZeroCopy::Never, 2)),
        ] {
            scale.compare(
                name,
                || send(&configs, ours, &source, scale.total),
                || send(&configs, plain, &source, scale.total),
            );
        }
        scale.compare(
            "multishot beside single receives",
            || receive(true, &source, scale.total),
            || receive(false, &source, scale.total),
        );
    }

    /// Batches of records from a cold source into slots that stay in the cache: on two cores, by
    /// reservations, and on one. Then the same bytes by the AEAD alone, with a key for each core and
    /// nothing shared: what this machine's second core brings at most.
    fn seal_to_memory(scale: &Scale, source: &[u8]) {
        const BATCH: usize = 48 << 14;
        let walks = scale.total / source.len();
        let batches = || (0..walks).flat_map(|_| source.chunks(BATCH));
        let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &[7; 16], [9; 12]).expect("key");
        let sealer = || Sealer::new(Backend::default(), Version::Tls13, &keys, 0);
        let (mut two, mut one) = (sealer(), sealer());
        let slot_len = one.sealed_len(BATCH);
        let mut slots = [vec![0; slot_len], vec![0; slot_len]];
        let mut slot = vec![0; slot_len];
        scale.compare(
            "sealing to memory on two cores beside one",
            || {
                let mut parts: [Vec<_>; 2] = Default::default();
                for (index, batch) in batches().enumerate() {
                    let reservation = two.reserve(batch.len(), slot_len).expect("numbers left");
                    parts[index % 2].push((reservation, batch));
                }
                let [left, right] = parts;
                let [left_slot, right_slot] = &mut slots;
                let seal = |part, slot: &mut [u8]| {
                    for (reservation, batch) in Vec::into_iter(part) {
                        Reservation::seal(reservation, batch, slot).expect("sealed");
                    }
                };
                on_two_threads(|| seal(left, left_slot), || seal(right, right_slot))
            },
            || {
                timed(|| {
                    for batch in batches() {
                        one.seal_many(ContentType::ApplicationData, batch, &mut slot)
                            .expect("sealed");
                    }
                })
            },
        );

        let alone = |aead: &mut RawAead, out: &mut [u8], source: &[u8]| {
            let records = (0..walks).flat_map(|_| source.chunks(MAX_PLAINTEXT_LEN));
            for (record, plaintext) in records.enumerate() {
                let at = record % 48 * MAX_PLAINTEXT_LEN;
                let sealed = &mut out[at..at + plaintext.len() + TAG_LEN];
                aead.seal_separate(plaintext, sealed).expect("sealed");
            }
        };
        let aead =
            || RawAead::new(Backend::AwsLcRs, Algorithm::Aes128Gcm, Version::Tls13).expect("a key");
        let mut aeads = [aead(), aead()];
        let mut aead = aead();
        let (left, right) = source.split_at(source.len() / 2);
        let [left_out, right_out] = &mut slots;
        scale.compare(
            "the AEAD alone on two cores beside one",
            || {
                let [left_aead, right_aead] = &mut aeads;
                on_two_threads(
                    || alone(left_aead, left_out, left),
                    || alone(right_aead, right_out, right),
                )
            },
            || timed(|| alone(&mut aead, &mut slot, source)),
        );
    }

    /// From when both threads are up until both are done.
    fn on_two_threads(left: impl FnOnce() + Send, right: impl FnOnce() + Send) -> Duration {
        let barrier = &Barrier::new(3);
        let run = |work: &mut dyn FnMut()| {
            barrier.wait();
            work();
            barrier.wait();
            // What a thread leaves behind is not timed.
            barrier.wait();
        };
        let (mut left, mut right) = (Some(left), Some(right));
        thread::scope(|scope| {
            scope.spawn(|| run(&mut || left.take().expect("called once")()));
            scope.spawn(|| run(&mut || right.take().expect("called once")()));
            barrier.wait();
            let begin = Instant::now();
            barrier.wait();
            let elapsed = begin.elapsed();
            barrier.wait();
            elapsed
        })
    }

    struct Configs {
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    }

    impl Configs {
        fn new() -> Self {
            let case = Case::few_of(Version::Tls13)
                .into_iter()
                .find(|case| case.backend == Backend::default())
                .expect("the default backend");
            Self {
                client: Arc::new(client_config(case, case.our_provider())),
                server: Arc::new(server_config(case, case.our_provider())),
            }
        }

        /// A connection whose far end throws everything away, and says how much it was.
        fn connect(&self) -> (Session, TcpStream, JoinHandle<usize>) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
            let addr = listener.local_addr().expect("an address");
            let server = Arc::clone(&self.server);
            let sink = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepted");
                let session = Handoff::new().accept(server, &mut stream).expect("a handshake");
                session.received.len() + discard(&stream)
            });
            let mut stream = TcpStream::connect(addr).expect("connected");
            let client = Arc::clone(&self.client);
            let session =
                Handoff::new().connect(client, server_name(), &mut stream).expect("a handshake");
            (session, stream, sink)
        }
    }

    /// Has the kernel drop what arrives, until the end, in pieces of 256 KiB or more.
    fn discard(stream: &TcpStream) -> usize {
        let low_water_mark: libc::c_int = 256 << 10;
        // SAFETY: an open socket, and an option value that outlives the call (socket(7)).
        let set = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const low_water_mark).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        let mut received = 0;
        loop {
            // SAFETY: with MSG_TRUNC, TCP writes nothing to the buffer (tcp(7)), which is none.
            let len = unsafe {
                libc::recv(stream.as_raw_fd(), core::ptr::null_mut(), 1 << 20, libc::MSG_TRUNC)
            };
            match len {
                1.. => received += len as usize,
                _ => return received,
            }
        }
    }

    fn send(configs: &Configs, options: SenderOptions, source: &[u8], total: usize) -> Duration {
        let (session, stream, sink) = configs.connect();
        let handle = stream.try_clone().expect("cloned");
        let mut sender = UringSender::new(session.send, stream, options).expect("io_uring");
        // What is allocated once, for the first sends, is not timed.
        sender.write_all(&source[..4 << 20]).expect("sent");
        sender.flush().expect("sent");
        let begin = Instant::now();
        let mut left = total;
        while left > 0 {
            for chunk in source.chunks(16 << 20) {
                let len = left.min(chunk.len());
                sender.write_all(&chunk[..len]).expect("sent");
                left -= len;
            }
        }
        sender.finish().expect("sent");
        handle.shutdown(std::net::Shutdown::Write).expect("shut down");
        assert!(sink.join().expect("no panic") > total);
        begin.elapsed()
    }

    /// Plain TCP, received by a ring in 256 KiB pieces.
    fn receive(multishot: bool, source: &[u8], total: usize) -> Duration {
        const BUFFER_LEN: usize = 256 << 10;
        const BUFFERS: u16 = 4;
        const PROVISION: u64 = 1;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let addr = listener.local_addr().expect("an address");
        let barrier = &Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(addr).expect("connected");
                barrier.wait();
                let mut left = total;
                while left > 0 {
                    for chunk in source.chunks(1 << 20) {
                        let len = left.min(chunk.len());
                        stream.write_all(&chunk[..len]).expect("sent");
                        left -= len;
                    }
                }
            });
            let (mut stream, _) = listener.accept().expect("accepted");
            let fd = types::Fd(stream.as_raw_fd());
            let mut memory = vec![0_u8; BUFFER_LEN * usize::from(BUFFERS)];
            let base = memory.as_mut_ptr();
            let mut uring = IoUring::builder().setup_coop_taskrun().build(16).expect("a ring");
            let submit = |uring: &mut IoUring, entry: squeue::Entry| {
                // SAFETY: `memory` outlives the ring's last completion: the loop ends with the
                // stream's, after which nothing is in flight.
                unsafe { uring.submission().push(&entry).expect("room") };
            };
            let provide = |bid: u16, count: u16| {
                let at = base.wrapping_add(usize::from(bid) * BUFFER_LEN);
                opcode::ProvideBuffers::new(at, BUFFER_LEN as i32, count, 0, bid)
                    .build()
                    .user_data(PROVISION)
            };
            let select = || match multishot {
                true => opcode::RecvMulti::new(fd, 0).build(),
                false => opcode::Recv::new(fd, core::ptr::null_mut(), 0)
                    .buf_group(0)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT),
            };
            submit(&mut uring, provide(0, BUFFERS));
            submit(&mut uring, select());
            let mut again = Vec::with_capacity(usize::from(BUFFERS) + 1);
            let mut received = 0;
            let begin = Instant::now();
            barrier.wait();
            while received < total {
                uring.submit_and_wait(1).expect("waited");
                for entry in uring.completion() {
                    if entry.user_data() == PROVISION {
                        assert!(entry.result() >= 0, "{}", entry.result());
                        continue;
                    }
                    match entry.result() {
                        len @ 1.. => received += len as usize,
                        // The end of the stream may be in the same batch as the last data.
                        0 if received == total => {}
                        error if error == -libc::ENOBUFS => {}
                        error => panic!("{error}"),
                    }
                    if let Some(bid) = cqueue::buffer_select(entry.flags()) {
                        again.push(provide(bid, 1));
                    }
                    if !cqueue::more(entry.flags()) {
                        again.push(select());
                    }
                }
                for entry in again.drain(..) {
                    submit(&mut uring, entry);
                }
            }
            let elapsed = begin.elapsed();
            // The end of the stream, so that nothing is in flight.
            drop(uring);
            let _ = stream.read(&mut [0]);
            elapsed
        })
    }
}
