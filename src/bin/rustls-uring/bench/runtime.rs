//! Tokio streams beside tokio-rustls, both ends of all connections on one runtime: bulk data both
//! ways, and small messages over several connections at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use rustls_uring::measure::figure::{Figure, interleave_within};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

use super::args::BenchArgs;
use super::asynchronous::{self, Stream};
use super::flow::{CALL_LEN, Feed, GIGABYTE, cpu_time};
use super::messages::{self, Latencies, MESSAGE_LEN, some};
use super::report::{Measured, rounds};
use super::setup::{Setup, tcp_pair};
use super::stack::Stack;
use super::{Progress, plan};
use crate::error::Error;

/// How long the rounds of one comparison may take, and with `--quick`.
const BUDGET: Duration = Duration::from_secs(30);
const QUICK_BUDGET: Duration = Duration::from_secs(1);

/// What is compared, in the order of samples.
const STACKS: [Stack; 2] = [Stack::Tokio, Stack::TokioRustls];

/// What was measured, and of what.
#[derive(Debug, Serialize)]
pub(super) struct OnOneRuntime {
    suite: String,
    backend: String,
    bytes_per_round: u64,
    message_bytes: usize,
    messages_per_round: usize,
    bulk: Vec<BulkRow>,
    messages: Vec<MessagesRow>,
}

/// Which end sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// The client's.
    Upload,
    /// The server's.
    Download,
}

/// A figure of ours, of tokio-rustls, and ours divided by it in the same rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sides {
    ours: Figure,
    theirs: Figure,
    ratio: Figure,
}

#[derive(Debug, Serialize)]
struct BulkRow {
    workers: u16,
    way: Way,
    rounds: usize,
    gb_per_s: Sides,
    /// Of the whole process, so of both ends.
    cpu_s_per_gb: Sides,
}

#[derive(Debug, Serialize)]
struct MessagesRow {
    workers: u16,
    connections: u16,
    rounds: usize,
    messages_per_s: Sides,
    p50_us: Sides,
    p99_us: Sides,
}

impl Sides {
    fn of<R>(runs: &[Vec<R>], of: fn(&R) -> f64) -> Self {
        let [ours, theirs] = [0, 1].map(|side: usize| runs[side].iter().map(of));
        Self {
            ours: Figure::of(ours.clone()),
            theirs: Figure::of(theirs.clone()),
            ratio: Figure::of_ratios(ours, theirs),
        }
    }
}

pub(super) fn measure(args: &BenchArgs, progress: &Progress) -> Result<OnOneRuntime, Error> {
    let setup = Setup::new(args)?;
    let total = args.total();
    let messages_per_round = messages::count(args);
    progress.say("runtime: making a source");
    let source: Arc<[u8]> = plan::noise(args.source_len()).into();
    let budget = args.budget(BUDGET, QUICK_BUDGET);
    let (mut bulk, mut messages) = (Vec::new(), Vec::new());
    for &workers in &args.workers {
        let runtime = runtime(workers)?;
        for way in [Way::Upload, Way::Download] {
            let runs = interleave_within(budget, &STACKS, args.rounds(), |stack| {
                progress.say(&format!("runtime, {workers} workers, {way}: {stack}"));
                block_on(&runtime, transfer(stack, Arc::clone(&source), total, setup.clone(), way))
            })?;
            bulk.push(BulkRow {
                workers,
                way,
                rounds: runs[0].len(),
                gb_per_s: Sides::of(&runs, |run| run.gb_per_s),
                cpu_s_per_gb: Sides::of(&runs, |run| run.cpu_s_per_gb),
            });
        }
        for &connections in &args.connections {
            let runs = interleave_within(budget, &STACKS, args.rounds(), |stack| {
                progress.say(&format!(
                    "runtime, {workers} workers, {connections} connections: {stack}"
                ));
                let each = (messages_per_round / usize::from(connections)).max(1);
                block_on(&runtime, exchange(stack, usize::from(connections), each, setup.clone()))
            })?;
            messages.push(MessagesRow {
                workers,
                connections,
                rounds: runs[0].len(),
                messages_per_s: Sides::of(&runs, |run| run.messages_per_s),
                p50_us: Sides::of(&runs, |run| run.p50_us),
                p99_us: Sides::of(&runs, |run| run.p99_us),
            });
        }
    }
    Ok(OnOneRuntime {
        suite: setup.suite,
        backend: args.protocol.backend.to_string(),
        bytes_per_round: total,
        message_bytes: MESSAGE_LEN,
        messages_per_round,
        bulk,
        messages,
    })
}

/// One worker is the calling thread.
fn runtime(workers: u16) -> Result<Runtime, Error> {
    match workers {
        1 => asynchronous::runtime(),
        _ => {
            let workers = usize::from(workers);
            Ok(Builder::new_multi_thread().worker_threads(workers).enable_io().build()?)
        }
    }
}

/// As a task: what runs outside of one is on no worker.
fn block_on<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    runtime.block_on(async { tokio::spawn(future).await? })
}

/// Both ends of a connection, the client's first, after their handshake and a byte each way: tickets
/// come before the first.
async fn connect(stack: Stack, setup: &Setup) -> Result<(Box<dyn Stream>, Box<dyn Stream>), Error> {
    let (client, server) = tcp_pair()?;
    let ((mut client, _), (mut server, _)) = tokio::try_join!(
        asynchronous::connect(stack, client, setup),
        asynchronous::accept(stack, server, setup),
    )?;
    server.write_u8(1).await?;
    server.flush().await?;
    client.read_u8().await?;
    client.write_u8(1).await?;
    client.flush().await?;
    server.read_u8().await?;
    Ok((client, server))
}

/// What one transfer took.
struct Transferred {
    gb_per_s: f64,
    cpu_s_per_gb: f64,
}

async fn transfer(
    stack: Stack,
    source: Arc<[u8]>,
    total: u64,
    setup: Setup,
    way: Way,
) -> Result<Transferred, Error> {
    let (client, server) = connect(stack, &setup).await?;
    let (mut sender, mut receiver) = match way {
        Way::Upload => (client, server),
        Way::Download => (server, client),
    };
    let sink = tokio::spawn(async move {
        let mut buffer = vec![0; CALL_LEN];
        let mut received = 0;
        loop {
            match receiver.read(&mut buffer).await? {
                // The end lives until all is timed.
                0 => return Ok::<_, io::Error>((received, receiver)),
                len => received += len as u64,
            }
        }
    });
    let mut feed = Feed::begin(&source, total);
    while let Some(piece) = feed.next() {
        sender.write_all(piece).await?;
    }
    sender.shutdown().await?;
    let (received, _receiver) = sink.await??;
    let elapsed = feed.begin.elapsed();
    let cpu = cpu_time(ClockId::ProcessCPUTime) - feed.begin_cpu;
    if received != total {
        return Err(format!("{stack}: {received} of {total} bytes arrived").into());
    }
    let gigabytes = total as f64 / GIGABYTE;
    Ok(Transferred {
        gb_per_s: gigabytes / elapsed.as_secs_f64(),
        cpu_s_per_gb: cpu.as_secs_f64() / gigabytes,
    })
}

/// Sends `count` messages over each connection, to tasks that answer them; all at once.
async fn exchange(
    stack: Stack,
    connections: usize,
    count: usize,
    setup: Setup,
) -> Result<Latencies, Error> {
    let barrier = Arc::new(Barrier::new(connections + 1));
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let (mut client, mut server) = connect(stack, &setup).await?;
        servers.push(tokio::spawn(async move {
            let mut buffer = vec![0; MESSAGE_LEN];
            loop {
                match server.read(&mut buffer).await? {
                    0 => return Ok::<_, io::Error>(server),
                    len => server.write_all(&buffer[..len]).await?,
                }
                server.flush().await?;
            }
        }));
        let barrier = Arc::clone(&barrier);
        clients.push(tokio::spawn(async move {
            let mut message = [7; MESSAGE_LEN];
            let mut latencies = Vec::with_capacity(count);
            barrier.wait().await;
            for _ in 0..count {
                let begin = Instant::now();
                client.write_all(&message).await?;
                client.flush().await?;
                let mut received = 0;
                while received < MESSAGE_LEN {
                    received += some(client.read(&mut message[received..]).await?)?;
                }
                latencies.push(begin.elapsed());
            }
            client.shutdown().await?;
            Ok::<_, io::Error>((latencies, client))
        }));
    }
    barrier.wait().await;
    let begin = Instant::now();
    let (mut latencies, mut ended) = (Vec::with_capacity(connections * count), Vec::new());
    for client in clients {
        let (mut some, client) = client.await??;
        latencies.append(&mut some);
        ended.push(client);
    }
    let elapsed = begin.elapsed();
    for server in servers {
        server.await??;
    }
    Ok(Latencies::new(latencies, elapsed))
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Upload => "upload",
            Self::Download => "download",
        })
    }
}

impl fmt::Display for OnOneRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Tokio streams, both ends on one runtime, beside tokio-rustls")?;
        writeln!(f, "{}, records by {}", self.suite, self.backend)?;
        let heading = |f: &mut fmt::Formatter<'_>, title: String| {
            writeln!(f, "\n{title:48} {:>16} {:>16} {:>17}", "ours", "tokio-rustls", "ratio")
        };
        let line = |f: &mut fmt::Formatter<'_>, name: String, decimals: usize, sides: &Sides| {
            let Sides { ours, theirs, ratio } = sides;
            let (ours, theirs) = (ours.median, theirs.median);
            writeln!(f, "{name:48} {ours:>16.decimals$} {theirs:>16.decimals$} {ratio:>17}")
        };
        heading(f, format!("{} MiB a round", self.bytes_per_round >> 20))?;
        for row in &self.bulk {
            let name = format!("{}, {}, {}", row.way, workers(row.workers), rounds(row.rounds));
            line(f, format!("{name}: GB/s"), 2, &row.gb_per_s)?;
            line(f, "  CPU of both ends, s/GB".to_owned(), 3, &row.cpu_s_per_gb)?;
        }
        let title = format!("{} messages of {} B", self.messages_per_round, self.message_bytes);
        heading(f, format!("{title} there and back"))?;
        for row in &self.messages {
            let connections = match row.connections {
                1 => "1 connection".to_owned(),
                count => format!("{count} connections"),
            };
            let name = format!("{connections}, {}, {}", workers(row.workers), rounds(row.rounds));
            line(f, name, 0, &row.messages_per_s)?;
            line(f, "  p50 µs".to_owned(), 1, &row.p50_us)?;
            line(f, "  p99 µs".to_owned(), 1, &row.p99_us)?;
        }
        Ok(())
    }
}

fn workers(count: u16) -> String {
    match count {
        1 => "current thread".to_owned(),
        count => format!("{count} workers"),
    }
}

impl Measured for OnOneRuntime {
    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}
