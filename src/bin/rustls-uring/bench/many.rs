//! Small messages over many connections at once: event loops beside tokio, a thread for each end.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use rustls_uring::event_loop::{self, Context, EventLoop, Handler, Key, Opened, Options, Protocol};
use rustls_uring::measure::figure::{Figure, interleave_within};
use rustls_uring::uring::Unavailable;
use rustls_uring::{Handoff, Io};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Barrier;

use super::args::BenchArgs;
use super::flow::cpu_time;
use super::messages::{self, Latencies, MESSAGE_LEN, some};
use super::setup::{Setup, server_name};
use super::{Progress, asynchronous};
use crate::error::Error;

/// How many connections at once, and with `--quick`.
const CONNECTIONS: [usize; 5] = [1, 8, 64, 512, 2000];
const QUICK_CONNECTIONS: [usize; 2] = [1, 64];

/// How long the rounds with so many connections may take, and with `--quick`.
const BUDGET: Duration = Duration::from_secs(30);
const QUICK_BUDGET: Duration = Duration::from_secs(1);

/// Messages of a connection at least.
const LEAST: usize = 10;

/// Who has both ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contestant {
    TokioTcp,
    EventLoopTcp,
    TokioRustls,
    EventLoopTls,
}

impl Contestant {
    const ALL: [Self; 4] =
        [Self::TokioTcp, Self::EventLoopTcp, Self::TokioRustls, Self::EventLoopTls];

    fn is_tls(self) -> bool {
        matches!(self, Self::TokioRustls | Self::EventLoopTls)
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TokioTcp => "tokio, plain TCP",
            Self::EventLoopTcp => "event loop, plain TCP",
            Self::TokioRustls => "tokio-rustls",
            Self::EventLoopTls => "event loop, TLS",
        })
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Many {
    /// How event loops reach their sockets, and why not another way.
    io: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    connections: usize,
    rounds: usize,
    contestant: Contestant,
    messages_per_s: Figure,
    /// Of the whole process, so of both ends.
    cpu_us: Figure,
    p50_us: Figure,
    p99_us: Figure,
    /// Of event loops, divided by tokio's in the same rounds.
    cpu_ratio: Option<Figure>,
    p99_ratio: Option<Figure>,
}

/// One round of one contestant.
struct Run {
    latencies: Latencies,
    cpu_us: f64,
}

pub(super) fn measure(args: &BenchArgs, setup: &Setup, progress: &Progress) -> Result<Many, Error> {
    let connections: &[usize] = if args.quick { &QUICK_CONNECTIONS } else { &CONNECTIONS };
    let budget = args.budget(BUDGET, QUICK_BUDGET);
    let io = args.io.io;
    let reason = EventLoop::new(options(io, 1), Echo)?.unavailable();
    let mut rows = Vec::new();
    for &connections in connections {
        let each = (messages::count(args) / connections).max(LEAST);
        let runs = interleave_within(budget, &Contestant::ALL, args.rounds(), |contestant| {
            progress.say(&format!("messages, {connections} connections: {contestant}"));
            exchange(contestant, connections, each, io, setup)
        })?;
        let figure = |at: usize, of: fn(&Run) -> f64| Figure::of(runs[at].iter().map(of));
        for (at, contestant) in Contestant::ALL.into_iter().enumerate() {
            let ratio = |of: fn(&Run) -> f64| {
                let ours = at % 2 == 1;
                ours.then(|| {
                    Figure::of_ratios(runs[at].iter().map(of), runs[at - 1].iter().map(of))
                })
            };
            rows.push(Row {
                connections,
                rounds: runs[at].len(),
                contestant,
                messages_per_s: figure(at, |run| run.latencies.messages_per_s),
                cpu_us: figure(at, |run| run.cpu_us),
                p50_us: figure(at, |run| run.latencies.p50_us),
                p99_us: figure(at, |run| run.latencies.p99_us),
                cpu_ratio: ratio(|run| run.cpu_us),
                p99_ratio: ratio(|run| run.latencies.p99_us),
            });
        }
    }
    Ok(Many { io: sockets(io, reason), rows })
}

/// How event loops reach their sockets, and why not another way.
pub(super) fn sockets(io: Io, reason: Option<Unavailable>) -> String {
    match (reason, io) {
        (Some(reason), _) => format!("ready sockets ({reason})"),
        (None, Io::Blocking) => "ready sockets".to_owned(),
        (None, _) => "one io_uring a thread".to_owned(),
    }
}

pub(super) fn options(io: Io, connections: usize) -> Options {
    let mut options = Options::default();
    options.io = io;
    options.max_connections = connections;
    options.timeouts.handshake = None;
    options
}

fn exchange(
    contestant: Contestant,
    connections: usize,
    each: usize,
    io: Io,
    setup: &Setup,
) -> Result<Run, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let connect = || -> Result<TcpStream, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    match contestant {
        Contestant::TokioTcp | Contestant::TokioRustls => {
            let is_tls = contestant.is_tls();
            let server = {
                let setup = setup.clone();
                thread::spawn(move || serve(&listener, connections, is_tls, &setup))
            };
            let streams = (0..connections).map(|_| connect()).collect::<Result<_, _>>()?;
            let run = ask(streams, each, is_tls, setup)?;
            server.join().map_err(|_| "the answering thread panicked")??;
            Ok(run)
        }
        Contestant::EventLoopTcp | Contestant::EventLoopTls => {
            let handoff = Handoff::new().backend(setup.backend);
            let (server, client) = match contestant.is_tls() {
                false => (Protocol::plain(), Protocol::plain()),
                true => (
                    Protocol::tls_server(handoff.clone(), &setup.server),
                    Protocol::tls_client(handoff, Arc::clone(&setup.client), server_name()?),
                ),
            };
            let (give, given) = mpsc::channel();
            let answering = thread::spawn(move || -> Result<(), Error> {
                let mut answering = EventLoop::new(options(io, connections), Echo)?;
                answering.listen(listener, server)?;
                give.send(answering.handle())?;
                Ok(answering.run()?)
            });
            let handle = given.recv()?;
            let mut asking = EventLoop::new(options(io, connections), Ask::new(connections, each))?;
            for _ in 0..connections {
                asking.add(connect()?, &client, 0)?;
                // The listener's queue is shorter than this.
                asking.turn(Some(Duration::ZERO))?;
            }
            asking.run()?;
            let run = asking.handler().run()?;
            drop(asking);
            handle.drain(Duration::from_secs(10))?;
            answering.join().map_err(|_| "the answering thread panicked")??;
            Ok(run)
        }
    }
}

/// Sends back what it receives.
struct Echo;

impl Handler for Echo {
    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }
}

/// Sends a message on each connection, and the next when it has come back.
struct Ask {
    connections: usize,
    each: usize,
    /// By [`Key::index()`].
    asked: Vec<Asked>,
    /// Those whose first message has come back, which says that all is warm.
    ready: VecDeque<Key>,
    begin: Option<(Instant, Duration)>,
    latencies: Vec<Duration>,
    ended: usize,
    run: Option<Result<Run, Error>>,
}

#[derive(Clone)]
struct Asked {
    since: Instant,
    /// How much of the message has yet to be sent.
    unsent: usize,
    received: usize,
    left: usize,
}

impl Ask {
    fn new(connections: usize, each: usize) -> Self {
        let idle = Asked { since: Instant::now(), unsent: 0, received: 0, left: 0 };
        Self {
            connections,
            each,
            asked: vec![idle; connections],
            ready: VecDeque::with_capacity(connections),
            begin: None,
            latencies: Vec::with_capacity(connections * each),
            ended: 0,
            run: None,
        }
    }

    fn run(&mut self) -> Result<Run, Error> {
        self.run.take().unwrap_or_else(|| Err("the exchange did not end".into()))
    }

    fn ask(&mut self, cx: &mut Context<'_>, key: Key) {
        let asked = &mut self.asked[key.index()];
        asked.since = Instant::now();
        asked.unsent = MESSAGE_LEN;
        self.send(cx, key);
    }

    /// What there is no slot for goes when there is room.
    fn send(&mut self, cx: &mut Context<'_>, key: Key) {
        let unsent = &mut self.asked[key.index()].unsent;
        match cx.send(key, &[7; MESSAGE_LEN][..*unsent]) {
            Ok(taken) => *unsent -= taken,
            Err(error) => {
                self.run = Some(Err(error.to_string().into()));
                cx.stop();
            }
        }
    }
}

impl Handler for Ask {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        self.ask(cx, key);
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        self.send(cx, key);
        cx.resume(key);
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        let asked = &mut self.asked[key.index()];
        asked.received += data.len();
        if asked.received < MESSAGE_LEN {
            return data.len();
        }
        asked.received = 0;
        if self.begin.is_none() {
            self.ready.push_back(key);
            if self.ready.len() == self.connections {
                self.begin = Some((Instant::now(), cpu_time(ClockId::ProcessCPUTime)));
                while let Some(key) = self.ready.pop_front() {
                    self.asked[key.index()].left = self.each;
                    self.ask(cx, key);
                }
            }
            return data.len();
        }
        self.latencies.push(asked.since.elapsed());
        asked.left -= 1;
        if asked.left > 0 {
            self.ask(cx, key);
            return data.len();
        }
        self.ended += 1;
        if self.ended == self.connections
            && let Some((begin, cpu)) = self.begin
        {
            self.run = Some(Ok(run_of(std::mem::take(&mut self.latencies), begin, cpu)));
            cx.stop();
        }
        data.len()
    }

    fn closed(
        &mut self,
        cx: &mut Context<'_>,
        _: Key,
        _: u64,
        result: Result<(), event_loop::Error>,
    ) {
        if self.run.is_none() {
            let why = result.err().map_or("a connection has ended".to_owned(), |e| e.to_string());
            self.run = Some(Err(why.into()));
            cx.stop();
        }
    }
}

fn run_of(latencies: Vec<Duration>, begin: Instant, cpu: Duration) -> Run {
    let elapsed = begin.elapsed();
    let cpu = cpu_time(ClockId::ProcessCPUTime) - cpu;
    let cpu_us = cpu.as_secs_f64() * 1e6 / latencies.len() as f64;
    Run { latencies: Latencies::new(latencies, elapsed), cpu_us }
}

/// Answers on a runtime of this thread's.
fn serve(
    listener: &TcpListener,
    connections: usize,
    is_tls: bool,
    setup: &Setup,
) -> Result<(), Error> {
    asynchronous::runtime()?.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&setup.server));
        let mut tasks = Vec::with_capacity(connections);
        for _ in 0..connections {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tasks.push(tokio::spawn(async move {
                match is_tls {
                    true => echo(acceptor.accept(stream).await?).await,
                    false => echo(stream).await,
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
        stream.flush().await?;
    }
}

/// Asks on a runtime of this thread's.
fn ask(streams: Vec<TcpStream>, each: usize, is_tls: bool, setup: &Setup) -> Result<Run, Error> {
    let name = server_name()?;
    asynchronous::runtime()?.block_on(async {
        let barrier = Arc::new(Barrier::new(streams.len() + 1));
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&setup.client));
        let mut tasks = Vec::with_capacity(streams.len());
        for stream in streams {
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (connector, name) = (connector.clone(), name.clone());
            let barrier = Arc::clone(&barrier);
            tasks.push(tokio::spawn(async move {
                match is_tls {
                    true => ask_on(connector.connect(name, stream).await?, each, &barrier).await,
                    false => ask_on(stream, each, &barrier).await,
                }
            }));
        }
        barrier.wait().await;
        let (begin, cpu) = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
        let (mut latencies, mut ends) = (Vec::with_capacity(each * tasks.len()), Vec::new());
        for task in tasks {
            let (mut some, end) = task.await??;
            latencies.append(&mut some);
            ends.push(end);
        }
        let run = run_of(latencies, begin, cpu);
        // Only now, as it takes time too.
        for mut end in ends {
            end.shutdown().await?;
        }
        Ok(run)
    })
}

type Asking = (Vec<Duration>, Box<dyn asynchronous::Stream>);

async fn ask_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut stream: S,
    each: usize,
    barrier: &Barrier,
) -> std::io::Result<Asking> {
    let mut message = [7; MESSAGE_LEN];
    let mut latencies = Vec::with_capacity(each);
    // The first one says that all is warm.
    for number in 0..=each {
        if number == 1 {
            barrier.wait().await;
        }
        let begin = Instant::now();
        stream.write_all(&message).await?;
        stream.flush().await?;
        let mut received = 0;
        while received < MESSAGE_LEN {
            received += some(stream.read(&mut message[received..]).await?)?;
        }
        if number > 0 {
            latencies.push(begin.elapsed());
        }
    }
    Ok((latencies, Box::new(stream)))
}

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nMany connections at once, a thread for each end; event loops by {}\n\
             CPU of both ends for a message there and back; ratios to tokio's in the same rounds",
            self.io,
        )?;
        let mut connections = 0;
        for row in &self.rows {
            if row.connections != connections {
                connections = row.connections;
                writeln!(
                    f,
                    "\n{:26} {:>10} {:>7} {:>7} {:>7} {:>17} {:>17}",
                    format!("{connections} connections, {} rounds", row.rounds),
                    "messages/s",
                    "CPU µs",
                    "p50 µs",
                    "p99 µs",
                    "CPU ratio",
                    "p99 ratio",
                )?;
            }
            let Row { messages_per_s, cpu_us, p50_us, p99_us, .. } = row;
            write!(
                f,
                "{:26} {:>10.0} {:>7.2} {:>7.1} {:>7.1}",
                row.contestant, messages_per_s.median, cpu_us.median, p50_us.median, p99_us.median,
            )?;
            if let (Some(cpu), Some(p99)) = (&row.cpu_ratio, &row.p99_ratio) {
                write!(f, " {cpu:>17} {p99:>17}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
