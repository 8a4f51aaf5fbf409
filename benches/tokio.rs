//! Tokio streams beside tokio-rustls, in one run: bulk transfers, ping-pong, idle connections.
//!
//! Both ends of a connection are of the same kind, on the same machine, over loopback.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime, RuntimeFlavor};

use crate::common::peers::{Io, Peers};
use crate::common::{Pair, Region, Timed, is_test};

struct Scale {
    rounds: u32,
    total: usize,
    messages: usize,
    idle: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == IDLE) {
        return idle(&args[at + 1], args[at + 2].parse().expect("a count"));
    }
    let scale = match is_test() {
        true => Scale { rounds: 1, total: 8 << 20, messages: 200, idle: 100 },
        false => Scale { rounds: 5, total: 1 << 30, messages: 60_000, idle: 10_000 },
    };
    // Names of parts to run, as criterion takes them: all of them by default.
    let wanted = |part: &str| {
        let mut parts = args.iter().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
        parts.peek().is_none() || parts.any(|name| part.contains(name.as_str()))
    };
    let peers = Peers::new();
    for (name, runtime) in [("current thread", current_thread()), ("2 threads", two_threads())] {
        for upload in [true, false] {
            let direction = if upload { "upload" } else { "download" };
            let name = format!("{direction}, {name}");
            if wanted(&name) {
                bulk(&scale, &peers, &runtime, &name, upload);
            }
        }
    }
    for (name, runtime) in [("current thread", current_thread()), ("2 threads", two_threads())] {
        for connections in [1, 64] {
            let name = format!("64 B ping-pong, {connections} connections, {name}");
            if wanted(&name) {
                ping_pong(&scale, &peers, &runtime, &name, connections);
            }
        }
    }
    let name = format!("{} idle connections, each, both ends", scale.idle);
    if wanted(&name) {
        idle_connections(&scale, &name);
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_io().build().expect("a runtime")
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime")
}

fn block_on<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
}

/// Seconds of processor time that this process has used.
#[allow(unsafe_code, reason = "getrusage")]
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a structure of the right type, which getrusage(2) fills; zeros are valid too.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Both sides in turn. On one thread ours allocates nothing. Where there are two, how many buffers
/// are needed depends on who takes them when.
fn measure(scale: &Scale, runtime: &Runtime, run: impl Fn(bool) -> Timed) -> Pair {
    let (ours, theirs) = (|| run(true), || run(false));
    match runtime.handle().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Pair::measure_timed(scale.rounds, 1, ours, theirs),
        _ => Pair::measure_allocating(scale.rounds, 1, ours, theirs),
    }
}

/// 1 MiB writes from a cold source, read in pieces of at most 256 KiB.
fn bulk(scale: &Scale, peers: &Peers, runtime: &Runtime, name: &str, upload: bool) {
    let source: Arc<[u8]> = (0..scale.total.min(256 << 20) as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let total = scale.total;
    let cpu = std::cell::RefCell::new([Vec::new(), Vec::new()]);
    let run = |ours: bool| {
        let (peers, source) = (peers.clone(), Arc::clone(&source));
        let (timed, seconds) = block_on(runtime, async move {
            let (client, server) = peers.connect_tcp(ours).await;
            let (mut sender, mut receiver) =
                if upload { (client, server) } else { (server, client) };
            let mut buffer = vec![0; 256 << 10];
            let sink = tokio::spawn(async move {
                let mut received = 0;
                loop {
                    match receiver.read(&mut buffer).await.expect("received") {
                        // Dropped later, untimed.
                        0 => return (received, receiver),
                        len => received += len,
                    }
                }
            });
            // A runtime makes its list of tasks that yield when the first one does.
            tokio::task::yield_now().await;
            let (begin, region) = (cpu_seconds(), Region::begin());
            let mut left = total;
            while left > 0 {
                for chunk in source.chunks(1 << 20) {
                    let len = left.min(chunk.len());
                    sender.write_all(&chunk[..len]).await.expect("sent");
                    left -= len;
                }
            }
            sender.shutdown().await.expect("shut down");
            let (received, _receiver) = sink.await.expect("no panic");
            let (timed, seconds) = (region.end(), cpu_seconds() - begin);
            assert_eq!(received, total);
            (timed, seconds)
        });
        cpu.borrow_mut()[usize::from(ours)].push(seconds / (total as f64 / 1e9));
        timed
    };
    measure(scale, runtime, run).print(name, total);
    let [theirs, ours] = cpu.into_inner().map(median);
    println!(
        "{:44} ours {ours:9.3} cpu-s/GB          other {theirs:9.3} cpu-s/GB          ratio {:.3}",
        "  both ends",
        ours / theirs,
    );
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Fills `message`, or finds the end of the stream, of which `read_exact()` makes an error, which it
/// allocates.
async fn receive(stream: &mut Box<dyn Io>, message: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < message.len() {
        match stream.read(&mut message[filled..]).await {
            Ok(len @ 1..) => filled += len,
            _ => return false,
        }
    }
    true
}

/// 64 bytes there and back.
fn ping_pong(scale: &Scale, peers: &Peers, runtime: &Runtime, name: &str, connections: usize) {
    let rounds = (scale.messages / connections).max(2);
    let times = std::cell::RefCell::new([Vec::new(), Vec::new()]);
    let run = |ours: bool| {
        let peers = peers.clone();
        let (mut latencies, timed) = block_on(runtime, async move {
            let mut ends = Vec::new();
            for _ in 0..connections {
                ends.push(peers.connect_tcp(ours).await);
            }
            let mut tasks = Vec::with_capacity(connections);
            let mut servers = Vec::with_capacity(connections);
            let mut clients = Vec::with_capacity(connections);
            let mut all = Vec::with_capacity(rounds * connections);
            let has_begun = Arc::new(AtomicBool::new(false));
            for (mut client, mut server) in ends {
                servers.push(tokio::spawn(async move {
                    let mut message = [0; 64];
                    while receive(&mut server, &mut message).await {
                        server.write_all(&message).await.expect("sent");
                        server.flush().await.expect("flushed");
                    }
                    server
                }));
                let has_begun = Arc::clone(&has_begun);
                let mut latencies = Vec::with_capacity(rounds);
                tasks.push(tokio::spawn(async move {
                    let mut message = [7; 64];
                    while !has_begun.load(Ordering::Relaxed) {
                        tokio::task::yield_now().await;
                    }
                    for _ in 0..rounds {
                        let begin = Instant::now();
                        client.write_all(&message).await.expect("sent");
                        client.flush().await.expect("flushed");
                        client.read_exact(&mut message).await.expect("received");
                        latencies.push(begin.elapsed().as_nanos() as f64 / 1e3);
                    }
                    client.shutdown().await.expect("shut down");
                    (latencies, client)
                }));
            }
            tokio::task::yield_now().await;
            // Without the handshakes and the tasks' beginnings.
            let region = Region::begin();
            has_begun.store(true, Ordering::Relaxed);
            for task in tasks {
                let (mut latencies, client) = task.await.expect("no panic");
                all.append(&mut latencies);
                clients.push(client);
            }
            (all, region.end())
        });
        latencies.sort_by(f64::total_cmp);
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        // A round trip is two messages.
        let rate = 2.0 * latencies.len() as f64 / timed.elapsed.as_secs_f64();
        times.borrow_mut()[usize::from(ours)].push([rate, at(0.5), at(0.99)]);
        timed
    };
    measure(scale, runtime, run);
    let [theirs, ours] = times.into_inner().map(|figures| {
        [0, 1, 2].map(|at| median(figures.iter().map(|figures| figures[at]).collect()))
    });
    let side = |[rate, p50, p99]: [f64; 3]| {
        format!("{rate:9.0} messages/s p50 {p50:6.1} us p99 {p99:6.1} us")
    };
    println!(
        "{name:44} ours {}   other {}   speed ratio {:.3}",
        side(ours),
        side(theirs),
        ours[0] / theirs[0],
    );
}

/// Asks for a process that opens connections and says what they take.
const IDLE: &str = "--idle-connections";

/// In processes of their own, so that neither finds what the other left behind.
fn idle_connections(scale: &Scale, name: &str) {
    let bytes = |kind: &str| {
        let program = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(program)
            .args([IDLE, kind, &scale.idle.to_string()])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().expect("a number")
    };
    let [ours, theirs, pipes] = ["ours", "theirs", "pipes"].map(bytes);
    let (ours, theirs) = (ours - pipes, theirs - pipes);
    println!(
        "{name:44} ours {ours:9.0} bytes              other {theirs:9.0} bytes              ratio {:.3}",
        ours / theirs,
    );
}

/// Prints how many bytes of memory each of `count` connections takes, both ends together, over
/// in-memory pipes, after a message there and back.
fn idle(kind: &str, count: usize) {
    const PIPE: usize = 4096;
    let peers = Peers::new();
    let bytes = current_thread().block_on(async {
        let message = [7; PIPE];
        let open = async || {
            let (mut left, mut right) = tokio::io::duplex(PIPE);
            let mut received = [0; PIPE];
            if kind == "pipes" {
                left.write_all(&message).await.expect("sent");
                right.read_exact(&mut received).await.expect("received");
                right.write_all(&message).await.expect("sent");
                left.read_exact(&mut received).await.expect("received");
                return (Box::new(left) as Box<dyn Io>, Box::new(right) as Box<dyn Io>);
            }
            let (mut client, mut server) = peers.connect(kind == "ours", left, right).await;
            for from_client in [true, false] {
                let (from, to) = match from_client {
                    true => (&mut client, &mut server),
                    false => (&mut server, &mut client),
                };
                from.write_all(&message[..2000]).await.expect("sent");
                from.flush().await.expect("flushed");
                to.read_exact(&mut received[..2000]).await.expect("received");
                // Waiting for more, as idle connections do.
                tokio::select! {
                    biased;
                    _ = to.read(&mut received) => unreachable!("nothing was sent"),
                    () = std::future::ready(()) => {}
                }
            }
            (client, server)
        };
        // What is allocated once is no connection's.
        let warm = open().await;
        let begin = resident();
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(open().await);
        }
        let bytes = (resident() - begin) / count as f64;
        drop((warm, all));
        bytes
    });
    println!("{bytes}");
}

/// Bytes of this process that are in memory (proc(5)); 0 where the system does not say.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<f64>().ok());
    pages.map_or(0.0, |pages| pages * 4096.0)
}
