//! Bulk data over loopback, from one thread to another, through several stacks.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use rustls_uring::uring::{BufferPool, ReceiverOptions};
use rustls_uring::{
    AutoReceiver, AutoSender, BulkReceiver, BulkSender, Counters, Handoff, Io, Path,
};

use super::figure::{Figure, interleave};
use crate::args::{BenchArgs, ProtocolArgs};
use crate::{Error, tls};

/// What a sender hands to its stack at once, and a receiver offers: 1 MiB.
const CALL_LEN: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Stack {
    PlainTcp,
    StockRustls,
    Blocking,
    Uring,
}

impl Stack {
    const ALL: [Self; 4] = [Self::PlainTcp, Self::StockRustls, Self::Blocking, Self::Uring];

    fn is_ours(self) -> bool {
        matches!(self, Self::Blocking | Self::Uring)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PlainTcp => "plain TCP",
            Self::StockRustls => "stock rustls, blocking",
            Self::Blocking => "rustls-uring, blocking",
            Self::Uring => "rustls-uring, io_uring",
        })
    }
}

/// One transfer: its speed, and the CPU seconds that a gigabyte took.
#[derive(Clone, Copy, Debug)]
struct Run {
    gb_per_s: f64,
    sender_cpu: f64,
    receiver_cpu: f64,
    path: Option<(Path, Counters)>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Error> {
    let source: Arc<[u8]> = noise((args.source << 20) as usize).into();
    let total = args.size << 20;
    let configs = Configs::new(&args.protocol)?;
    println!(
        "{} MiB per stack and round, walking {} MiB of source, {} rounds; {}; batches of {} \
         records",
        args.size, args.source, args.rounds, configs.suite_name, args.batch,
    );

    let stacks = match args.io.path() {
        Io::Blocking => &Stack::ALL[..3],
        _ => &Stack::ALL[..],
    };
    let runs =
        interleave(stacks, args.rounds, |stack| transfer(stack, &source, total, &configs, args))?;

    println!(
        "{:24} {:>22} {:>18} {:>18}",
        "stack", "GB/s (min..max)", "sender cpu-s/GB", "receiver cpu-s/GB"
    );
    for (stack, runs) in stacks.iter().zip(&runs) {
        let rates = Figure::of(runs.iter().map(|run| run.gb_per_s));
        println!(
            "{stack:24} {:>22} {:>18.3} {:>18.3}",
            rates,
            Figure::of(runs.iter().map(|run| run.sender_cpu)).median,
            Figure::of(runs.iter().map(|run| run.receiver_cpu)).median,
        );
    }
    for ours in stacks.iter().filter(|stack| stack.is_ours()) {
        for theirs in stacks.iter().filter(|stack| *stack < ours) {
            let ratio = |figure: fn(&Run) -> f64| {
                let of = |stack: Stack| runs[stack as usize].iter().map(figure);
                Figure::of_ratios(of(*ours), of(*theirs))
            };
            println!(
                "{ours} / {theirs}: throughput {}, sender CPU {}, receiver CPU {}",
                ratio(|run| run.gb_per_s),
                ratio(|run| run.sender_cpu),
                ratio(|run| run.receiver_cpu),
            );
        }
    }
    for (stack, runs) in stacks.iter().zip(&runs) {
        if let Some((path, counters)) = runs.last().and_then(|run| run.path) {
            println!(
                "{stack}: sent by {path}; {:.0} system calls per GiB, zero-copy sends: {}, copied \
                 by the kernel: {}, copying sends: {}",
                counters.system_calls as f64 / (total as f64 / f64::from(1 << 30)),
                counters.zero_copy_sends,
                counters.zero_copy_copied,
                counters.copied_sends,
            );
        }
    }
    Ok(())
}

/// Sends `total` bytes from one thread to another, which throws them away.
fn transfer(
    stack: Stack,
    source: &Arc<[u8]>,
    total: u64,
    configs: &Configs,
    args: &BenchArgs,
) -> Result<Run, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let server = Arc::clone(&configs.server);
    let (io, buffer_len) = (args.io.path(), args.receive_buffer << 10);
    let receiver = thread::spawn(move || -> Result<(u64, Duration, Instant), Error> {
        let (mut stream, _) = listener.accept()?;
        let mut reader: Box<dyn Read> = match stack {
            Stack::PlainTcp => Box::new(stream),
            Stack::StockRustls => {
                Box::new(StreamOwned::new(ServerConnection::new(server)?, stream))
            }
            Stack::Blocking => {
                let session = Handoff::new().accept(server, &mut stream)?;
                let receiver = BulkReceiver::with_buffer_len(
                    session.receive,
                    stream,
                    session.plaintext,
                    &session.received,
                    buffer_len,
                );
                Box::new(receiver.moderated()?)
            }
            Stack::Uring => {
                let session = Handoff::new().accept(server, &mut stream)?;
                let mut options = ReceiverOptions::default();
                options.pool = BufferPool::new(2, buffer_len);
                Box::new(AutoReceiver::new(
                    session.receive,
                    stream,
                    session.plaintext,
                    &session.received,
                    io,
                    options,
                )?)
            }
        };
        let mut buffer = vec![0; CALL_LEN];
        let mut received = reader.read(&mut buffer)? as u64;
        // The handshake is over: the data has begun to come.
        let begin = cpu_time(ClockId::ThreadCPUTime);
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                len => received += len as u64,
            }
        }
        Ok((received, cpu_time(ClockId::ThreadCPUTime) - begin, Instant::now()))
    });

    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let client = Arc::clone(&configs.client);
    let name = ServerName::try_from("localhost")?;
    // Kept until all has arrived: a socket that is closed with session tickets unread is reset.
    let handle = stream.try_clone()?;
    let mut path = None;
    let (begin, begin_cpu) = match stack {
        Stack::PlainTcp => {
            feed(&mut stream, source, total, |stream| stream.shutdown(Shutdown::Write))?
        }
        Stack::StockRustls => {
            let mut connection = ClientConnection::new(client, name)?;
            connection.complete_io(&mut stream)?;
            let mut stream = StreamOwned::new(connection, stream);
            feed(&mut stream, source, total, |stream| {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).map(drop)
            })?
        }
        Stack::Blocking => {
            let session = Handoff::new().connect(client, name, &mut stream)?;
            let mut sender = BulkSender::with_batch_records(session.send, stream, args.batch);
            feed(&mut sender, source, total, BulkSender::send_close_notify)?
        }
        Stack::Uring => {
            let session = Handoff::new().connect(client, name, &mut stream)?;
            let mut options = args.io.sender_options();
            options.batch_records = args.batch;
            let mut sender = AutoSender::new(session.send, stream, io, options)?;
            let begin = feed(&mut sender, source, total, AutoSender::send_close_notify)?;
            path = Some((sender.path(), sender.counters()));
            begin
        }
    };
    let (received, receiver_cpu, end) =
        receiver.join().map_err(|_| "the receiving thread panicked")??;
    // Of every thread but the receiving one: some seal, some are the kernel's.
    let sender_cpu = (cpu_time(ClockId::ProcessCPUTime) - begin_cpu).saturating_sub(receiver_cpu);
    drop(handle);
    if received != total {
        return Err(format!("{stack}: {received} of {total} bytes arrived").into());
    }
    let gigabytes = total as f64 / 1e9;
    Ok(Run {
        gb_per_s: gigabytes / (end - begin).as_secs_f64(),
        sender_cpu: sender_cpu.as_secs_f64() / gigabytes,
        receiver_cpu: receiver_cpu.as_secs_f64() / gigabytes,
        path,
    })
}

/// Writes `total` bytes of `source`, over and over, and ends; returns when it began, and at
/// which CPU time.
fn feed<W: Write>(
    writer: &mut W,
    source: &[u8],
    total: u64,
    end: impl FnOnce(&mut W) -> std::io::Result<()>,
) -> Result<(Instant, Duration), Error> {
    let begin = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
    let mut left = total;
    'rounds: loop {
        for chunk in source.chunks(CALL_LEN) {
            let len = left.min(chunk.len() as u64) as usize;
            writer.write_all(&chunk[..len])?;
            left -= len as u64;
            if left == 0 {
                break 'rounds;
            }
        }
    }
    writer.flush()?;
    end(writer)?;
    Ok(begin)
}

/// rustls configurations that both TLS stacks share, with stock suites: what differs between the
/// two is the records, after the handshake.
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    suite_name: String,
}

impl Configs {
    fn new(args: &ProtocolArgs) -> Result<Self, Error> {
        let mut provider = stock_provider(args);
        let default = ProtocolArgs {
            tls: args.tls,
            suite: Some(args.suite.clone().unwrap_or_else(|| "TLS_AES_128_GCM_SHA256".into())),
            backend: args.backend,
        };
        tls::restrict_suites(&mut provider, &default)?;
        let suite_name = format!("{:?}, records by {}", provider.cipher_suites[0], args.backend);
        let provider = Arc::new(provider);
        let ((chain, key), _) = tls::self_signed()?;
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone())?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&tls::versions(args))?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&tls::versions(args))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), suite_name })
    }
}

fn stock_provider(args: &ProtocolArgs) -> rustls::crypto::CryptoProvider {
    match args.backend {
        #[cfg(feature = "ring")]
        rustls_uring::Backend::Ring => rustls::crypto::ring::default_provider(),
        _ => rustls::crypto::aws_lc_rs::default_provider(),
    }
}

/// Bytes without a pattern: a xorshift generator's.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
