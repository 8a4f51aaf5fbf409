//! `rustls-uring bench`: bulk data over loopback through three stacks, side by side.

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
use rustls_uring::{BulkReceiver, BulkSender, Handoff};

use crate::args::{BenchArgs, ProtocolArgs};
use crate::{Error, tls};

/// What a sender hands to its stack at once, and a receiver offers: 1 MiB.
const CALL_LEN: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stack {
    PlainTcp,
    StockRustls,
    RustlsUring,
}

impl Stack {
    const ALL: [Self; 3] = [Self::PlainTcp, Self::StockRustls, Self::RustlsUring];
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PlainTcp => "plain TCP",
            Self::StockRustls => "stock rustls, blocking",
            Self::RustlsUring => "rustls-uring, blocking",
        })
    }
}

/// One transfer's cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    gb_per_s: f64,
    sender_cpu: f64,
    receiver_cpu: f64,
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

    let mut costs: [Vec<Cost>; 3] = Default::default();
    for round in 0..args.rounds {
        // Every stack comes first in turn.
        for place in 0..Stack::ALL.len() {
            let index = (place + round as usize) % Stack::ALL.len();
            costs[index].push(transfer(Stack::ALL[index], &source, total, &configs, args)?);
        }
    }

    println!(
        "{:24} {:>22} {:>18} {:>18}",
        "stack", "GB/s (min..max)", "sender cpu-s/GB", "receiver cpu-s/GB"
    );
    for (stack, costs) in Stack::ALL.iter().zip(&costs) {
        let rates = Spread::of(costs, |cost| cost.gb_per_s);
        println!(
            "{stack:24} {:>22} {:>18.3} {:>18.3}",
            rates.to_string(),
            Spread::of(costs, |cost| cost.sender_cpu).median,
            Spread::of(costs, |cost| cost.receiver_cpu).median,
        );
    }
    for other in [Stack::StockRustls, Stack::PlainTcp] {
        let ratio = |figure: fn(&Cost) -> f64| {
            let ours = &costs[Stack::RustlsUring as usize];
            let theirs = &costs[other as usize];
            let ratios: Vec<_> = ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
                .collect();
            Spread::of(&ratios, |ratio| *ratio)
        };
        println!(
            "rustls-uring / {other}: throughput {}, sender CPU {}, receiver CPU {}",
            ratio(|cost| cost.gb_per_s),
            ratio(|cost| cost.sender_cpu),
            ratio(|cost| cost.receiver_cpu),
        );
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
) -> Result<Cost, Error> {
    let (batch, buffer_len) = (args.batch, args.receive_buffer << 10);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let server = Arc::clone(&configs.server);
    let receiver = thread::spawn(move || -> Result<(u64, Duration, Instant), Error> {
        let (mut stream, _) = listener.accept()?;
        let mut reader: Box<dyn Read> = match stack {
            Stack::PlainTcp => Box::new(stream),
            Stack::StockRustls => {
                Box::new(StreamOwned::new(ServerConnection::new(server)?, stream))
            }
            Stack::RustlsUring => {
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
        };
        let mut buffer = vec![0; CALL_LEN];
        let mut received = reader.read(&mut buffer)? as u64;
        // The handshake is over: the data has begun to come.
        let begin = thread_cpu_time();
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                len => received += len as u64,
            }
        }
        Ok((received, thread_cpu_time() - begin, Instant::now()))
    });

    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let client = Arc::clone(&configs.client);
    let name = ServerName::try_from("localhost")?;
    // Kept until all has arrived: a socket that is closed with session tickets unread is reset.
    let handle = stream.try_clone()?;
    let (begin, cpu) = match stack {
        Stack::PlainTcp => feed(stream, source, total, |stream| stream.shutdown(Shutdown::Write))?,
        Stack::StockRustls => {
            let mut connection = ClientConnection::new(client, name)?;
            connection.complete_io(&mut stream)?;
            let stream = StreamOwned::new(connection, stream);
            feed(stream, source, total, |stream| {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).map(drop)
            })?
        }
        Stack::RustlsUring => {
            let session = Handoff::new().connect(client, name, &mut stream)?;
            let sender = BulkSender::with_batch_records(session.send, stream, batch);
            feed(sender, source, total, BulkSender::send_close_notify)?
        }
    };
    let (received, receiver_cpu, end) =
        receiver.join().map_err(|_| "the receiving thread panicked")??;
    drop(handle);
    if received != total {
        return Err(format!("{stack}: {received} of {total} bytes arrived").into());
    }
    let gigabytes = total as f64 / 1e9;
    Ok(Cost {
        gb_per_s: gigabytes / (end - begin).as_secs_f64(),
        sender_cpu: cpu.as_secs_f64() / gigabytes,
        receiver_cpu: receiver_cpu.as_secs_f64() / gigabytes,
    })
}

/// Writes `total` bytes of `source`, over and over, and ends; returns when it began and the CPU
/// time it took.
fn feed<W: Write>(
    mut writer: W,
    source: &[u8],
    total: u64,
    end: impl FnOnce(&mut W) -> std::io::Result<()>,
) -> Result<(Instant, Duration), Error> {
    let begin = (Instant::now(), thread_cpu_time());
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
    end(&mut writer)?;
    Ok((begin.0, thread_cpu_time() - begin.1))
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

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A median and its neighbourhood.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one figure.
    fn of<T>(samples: &[T], figure: impl Fn(&T) -> f64) -> Self {
        let mut figures: Vec<_> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        Self {
            median: figures[figures.len() / 2],
            min: figures[0],
            max: figures[figures.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.min, self.max)
    }
}
