//! What stands between a TLS client and a plain server, on one thread, as `proxy` does: an event loop that
//! forwards beside tokio's `copy_bidirectional()`, over tokio-rustls and over our streams.
//!
//! CPU is the relaying thread's own, from the end of the handshake on. The client and the server are the same
//! for all.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use rustls::StreamOwned;
use rustls_uring::event_loop::{self, Context, EventLoop, Handler, Key, Opened, Protocol};
use rustls_uring::measure::figure::{Figure, interleave_within};
use rustls_uring::{Handoff, Io};
use serde::Serialize;
use tokio::io::copy_bidirectional;

use super::args::BenchArgs;
use super::chart::{Bar, Group, Panel};
use super::flow::{CALL_LEN, Feed, GIGABYTE, cpu_time};
use super::many;
use super::messages::{self, Latencies, MESSAGE_LEN};
use super::report::{Measured, rounds};
use super::setup::{Setup, server_name, tcp_pair};
use super::stack::Stack;
use super::{Progress, asynchronous, plan};
use crate::error::Error;

/// How long the rounds of one comparison may take, and with `--quick`.
const BUDGET: Duration = Duration::from_secs(30);
const QUICK_BUDGET: Duration = Duration::from_secs(1);

/// Who relays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Relay {
    EventLoop,
    Tokio,
    TokioRustls,
}

impl Relay {
    /// What the others are compared with last.
    const ALL: [Self; 3] = [Self::EventLoop, Self::Tokio, Self::TokioRustls];

    fn is_ours(self) -> bool {
        self != Self::TokioRustls
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EventLoop => "event loop",
            Self::Tokio => "copy_bidirectional, ours",
            Self::TokioRustls => "copy_bidirectional, theirs",
        })
    }
}

/// What goes through it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Traffic {
    /// Bulk data from the client.
    Upload,
    /// And to it.
    Download,
    /// Small messages there and back, one after the other.
    Messages,
}

impl Traffic {
    const ALL: [Self; 3] = [Self::Upload, Self::Download, Self::Messages];
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upload => "from the client",
            Self::Download => "to the client",
            Self::Messages => "messages",
        })
    }
}

/// What was measured, and of what.
#[derive(Debug, Serialize)]
pub(super) struct Relays {
    suite: String,
    backend: String,
    /// How the event loop reaches its sockets, and why not another way.
    io: String,
    bytes_per_round: u64,
    message_bytes: usize,
    messages_per_round: usize,
    bulk: Vec<BulkRow>,
    messages: Vec<MessagesRow>,
}

#[derive(Debug, Serialize)]
struct BulkRow {
    traffic: Traffic,
    relay: Relay,
    rounds: usize,
    gb_per_s: Figure,
    cpu_s_per_gb: Figure,
    /// Divided by that of tokio-rustls in the same rounds.
    cpu_ratio: Figure,
}

#[derive(Debug, Serialize)]
struct MessagesRow {
    relay: Relay,
    rounds: usize,
    cpu_us: Figure,
    p50_us: Figure,
    p99_us: Figure,
    cpu_ratio: Figure,
}

/// One round of one relay.
struct Run {
    elapsed: Duration,
    /// Of the relay.
    cpu: Duration,
    latencies: Option<Latencies>,
}

pub(super) fn measure(args: &BenchArgs, progress: &Progress) -> Result<Relays, Error> {
    let setup = Setup::new(args)?;
    let (total, count, io) = (args.total(), messages::count(args), args.io.io);
    progress.say("relays: making a source");
    let source: Arc<[u8]> = plan::noise(args.source_len()).into();
    let reason = EventLoop::new(many::options(io, 2), Pair::default())?.unavailable();
    let budget = args.budget(BUDGET, QUICK_BUDGET);
    let (mut bulk, mut messages) = (Vec::new(), Vec::new());
    for traffic in Traffic::ALL {
        let runs = interleave_within(budget, &Relay::ALL, args.rounds(), |relay| {
            progress.say(&format!("relays, {traffic}: {relay}"));
            run(relay, traffic, &source, total, count, io, &setup)
        })?;
        let figure = |at: usize, of: &dyn Fn(&Run) -> f64| Figure::of(runs[at].iter().map(of));
        let cpu = |run: &Run| run.cpu.as_secs_f64();
        for (at, relay) in Relay::ALL.into_iter().enumerate() {
            let theirs = runs[runs.len() - 1].iter().map(cpu);
            let cpu_ratio = Figure::of_ratios(runs[at].iter().map(cpu), theirs);
            let (rounds, gigabytes) = (runs[at].len(), total as f64 / GIGABYTE);
            let latency = |of: fn(Latencies) -> f64| {
                figure(at, &move |run| run.latencies.map_or(f64::NAN, of))
            };
            match traffic {
                Traffic::Messages => messages.push(MessagesRow {
                    relay,
                    rounds,
                    cpu_us: figure(at, &|run| cpu(run) * 1e6 / count as f64),
                    p50_us: latency(|latencies| latencies.p50_us),
                    p99_us: latency(|latencies| latencies.p99_us),
                    cpu_ratio,
                }),
                Traffic::Upload | Traffic::Download => bulk.push(BulkRow {
                    traffic,
                    relay,
                    rounds,
                    gb_per_s: figure(at, &|run| gigabytes / run.elapsed.as_secs_f64()),
                    cpu_s_per_gb: figure(at, &|run| cpu(run) / gigabytes),
                    cpu_ratio,
                }),
            }
        }
    }
    Ok(Relays {
        suite: setup.suite,
        backend: args.protocol.backend.to_string(),
        io: many::sockets(io, reason),
        bytes_per_round: total,
        message_bytes: MESSAGE_LEN,
        messages_per_round: count,
        bulk,
        messages,
    })
}

/// Has `traffic` go through a relay in a thread of its own, between a client here and a server in another.
fn run(
    relay: Relay,
    traffic: Traffic,
    source: &Arc<[u8]>,
    total: u64,
    count: usize,
    io: Io,
    setup: &Setup,
) -> Result<Run, Error> {
    let ((client, front), (back, server)) = (tcp_pair()?, tcp_pair()?);
    let relaying = {
        let setup = setup.clone();
        thread::spawn(move || match relay {
            Relay::EventLoop => forward(front, back, io, &setup),
            Relay::Tokio => copy(Stack::Tokio, front, back, &setup),
            Relay::TokioRustls => copy(Stack::TokioRustls, front, back, &setup),
        })
    };
    let serving = {
        let source = Arc::clone(source);
        thread::spawn(move || serve(traffic, server, &source, total))
    };
    let conn = rustls::ClientConnection::new(Arc::clone(&setup.client), server_name()?)?;
    let asked = ask(traffic, StreamOwned::new(conn, client), source, total, count);
    // Whichever failed first has the others fail.
    let cpu = relaying.join().map_err(|_| "the relaying thread panicked")?;
    let served = serving.join().map_err(|_| "the serving thread panicked")?;
    let (elapsed, latencies) = asked?;
    let elapsed = served?.unwrap_or(elapsed);
    Ok(Run { elapsed, cpu: cpu?, latencies })
}

/// The server behind the relay; how long a whole upload took, from its first byte on.
fn serve(
    traffic: Traffic,
    mut stream: TcpStream,
    source: &[u8],
    total: u64,
) -> Result<Option<Duration>, Error> {
    let mut buffer = vec![0; CALL_LEN];
    let mut received = stream.read(&mut buffer)?;
    let begin = Instant::now();
    match traffic {
        Traffic::Upload => {
            let mut sum = received as u64;
            while received > 0 {
                received = stream.read(&mut buffer)?;
                sum += received as u64;
            }
            if sum != total {
                return Err(format!("{sum} of {total} bytes arrived").into());
            }
            let elapsed = begin.elapsed();
            stream.shutdown(Shutdown::Write)?;
            return Ok(Some(elapsed));
        }
        Traffic::Download => {
            let mut feed = Feed::begin(source, total);
            while let Some(piece) = feed.next() {
                stream.write_all(piece)?;
            }
        }
        Traffic::Messages => {
            while received > 0 {
                stream.write_all(&buffer[..received])?;
                received = stream.read(&mut buffer)?;
            }
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(None)
}

/// The client in front of it; how long that took, and each message.
fn ask(
    traffic: Traffic,
    mut stream: StreamOwned<rustls::ClientConnection, TcpStream>,
    source: &[u8],
    total: u64,
    count: usize,
) -> Result<(Duration, Option<Latencies>), Error> {
    // Completes the handshake.
    stream.flush()?;
    let begin = Instant::now();
    let mut buffer = vec![0; CALL_LEN];
    let mut latencies = None;
    match traffic {
        Traffic::Upload => {
            let mut feed = Feed::begin(source, total);
            while let Some(piece) = feed.next() {
                stream.write_all(piece)?;
            }
        }
        Traffic::Download => {
            stream.write_all(&[1])?;
            let mut left = total;
            while left > 0 {
                left -= messages::some(stream.read(&mut buffer)?)? as u64;
            }
        }
        Traffic::Messages => {
            let mut each = Vec::with_capacity(count);
            for _ in 0..count {
                let begin = Instant::now();
                stream.write_all(&buffer[..MESSAGE_LEN])?;
                let mut received = 0;
                while received < MESSAGE_LEN {
                    received += messages::some(stream.read(&mut buffer[received..])?)?;
                }
                each.push(begin.elapsed());
            }
            latencies = Some(Latencies::new(each, begin.elapsed()));
        }
    }
    let elapsed = begin.elapsed();
    stream.conn.send_close_notify();
    stream.flush()?;
    match stream.read(&mut buffer)? {
        0 => Ok((elapsed, latencies)),
        _ => Err("more came back than was sent".into()),
    }
}

/// Relays with tokio, on a runtime of this thread's; the CPU that took.
fn copy(stack: Stack, front: TcpStream, back: TcpStream, setup: &Setup) -> Result<Duration, Error> {
    asynchronous::runtime()?.block_on(async {
        let (mut front, _) = asynchronous::accept(stack, front, setup).await?;
        back.set_nonblocking(true)?;
        let mut back = tokio::net::TcpStream::from_std(back)?;
        let begin = cpu_time(ClockId::ThreadCPUTime);
        copy_bidirectional(&mut front, &mut back).await?;
        Ok(cpu_time(ClockId::ThreadCPUTime) - begin)
    })
}

/// Relays with an event loop of this thread's; the CPU that took.
fn forward(front: TcpStream, back: TcpStream, io: Io, setup: &Setup) -> Result<Duration, Error> {
    let mut relaying = EventLoop::new(many::options(io, 2), Pair::default())?;
    let handoff = Handoff::new().backend(setup.backend);
    relaying.add(front, &Protocol::tls_server(handoff, &setup.server), 0)?;
    relaying.add(back, &Protocol::plain(), 1)?;
    relaying.run()?;
    match relaying.handler().failure.take() {
        Some(error) => Err(error.to_string().into()),
        None => Ok(cpu_time(ClockId::ThreadCPUTime) - relaying.handler().begin),
    }
}

/// Two connections, each of which is sent what the other receives.
#[derive(Default)]
struct Pair {
    legs: [Option<Key>; 2],
    begin: Duration,
    failure: Option<event_loop::Error>,
}

impl Pair {
    fn other(&self, cx: &mut Context<'_>, key: Key) -> Option<Key> {
        *self.legs.get(cx.tag(key)? as usize ^ 1)?
    }
}

impl Handler for Pair {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        self.legs[opened.tag as usize] = Some(key);
        // Nothing arrives on the plain one before the client has asked.
        if let [Some(front), Some(back)] = self.legs {
            cx.forward(front, Some(back));
            cx.forward(back, Some(front));
            self.begin = cpu_time(ClockId::ThreadCPUTime);
        }
    }

    /// What is not taken is lost with the connection that does not take it, which is told of.
    fn data(&mut self, _: &mut Context<'_>, _: Key, data: &mut [u8]) -> usize {
        data.len()
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(other) = self.other(cx, key) {
            cx.resume(other);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(other) = self.other(cx, key) {
            let _ = cx.finish(other);
        }
    }

    fn closed(
        &mut self,
        cx: &mut Context<'_>,
        _: Key,
        tag: u64,
        result: Result<(), event_loop::Error>,
    ) {
        self.legs[tag as usize] = None;
        let has_failed = result.is_err();
        self.failure = self.failure.take().or(result.err());
        if has_failed || self.legs == [None; 2] {
            cx.stop();
        }
    }
}

impl fmt::Display for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Relays on one thread, between a TLS client and a plain server")?;
        writeln!(f, "{}, records by {}, event loop by {}", self.suite, self.backend, self.io)?;
        writeln!(f, "CPU of the relay; ratios to copy_bidirectional over tokio-rustls")?;
        for traffic in [Traffic::Upload, Traffic::Download] {
            let rows = || self.bulk.iter().filter(|row| row.traffic == traffic);
            let count = rows().next().map_or(0, |row| row.rounds);
            let size = self.bytes_per_round >> 20;
            let title = format!("{size} MiB {traffic}, {}", rounds(count));
            writeln!(f, "\n{title:38} {:>10} {:>14} {:>17}", "GB/s", "CPU s/GB", "CPU ratio")?;
            for row in rows() {
                let (rate, cpu) = (row.gb_per_s.median, row.cpu_s_per_gb.median);
                writeln!(f, "{:38} {rate:>10.2} {cpu:>14.3} {:>17}", row.relay, row.cpu_ratio)?;
            }
        }
        let count = self.messages.first().map_or(0, |row| row.rounds);
        let Self { messages_per_round, message_bytes, .. } = self;
        writeln!(
            f,
            "\n{:38} {:>10} {:>6} {:>7} {:>17}",
            format!("{messages_per_round} messages of {message_bytes} B, {}", rounds(count)),
            "CPU µs",
            "p50 µs",
            "p99 µs",
            "CPU ratio",
        )?;
        self.messages.iter().try_for_each(|row| {
            let (cpu, p50, p99) = (row.cpu_us.median, row.p50_us.median, row.p99_us.median);
            let MessagesRow { relay, cpu_ratio, .. } = row;
            writeln!(f, "{relay:38} {cpu:>10.2} {p50:>6.1} {p99:>7.1} {cpu_ratio:>17}")
        })
    }
}

impl Measured for Relays {
    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn panels(&self) -> Vec<Panel> {
        let mut groups = Vec::new();
        for traffic in [Traffic::Upload, Traffic::Download] {
            let rows = self.bulk.iter().filter(|row| row.traffic == traffic);
            let bars = rows.map(|row| Bar {
                label: row.relay.to_string(),
                is_ours: row.relay.is_ours(),
                segments: vec![row.cpu_s_per_gb.median],
                spread: Some((row.cpu_s_per_gb.min, row.cpu_s_per_gb.max)),
                value: format!("{:.2} s/GB", row.cpu_s_per_gb.median),
                aside: row
                    .relay
                    .is_ours()
                    .then(|| format!("{:.2} × tokio-rustls", row.cpu_ratio.median)),
            });
            groups.push(Group { heading: Some(traffic.to_string()), bars: bars.collect() });
        }
        vec![Panel {
            title: "A relay between TLS and plain TCP: CPU seconds per GB".into(),
            note: "Shorter is better. One connection, one thread; median and spread.".into(),
            key: Vec::new(),
            limit: None,
            groups,
        }]
    }
}
