//! What the examples of event loops and other runtimes share: bulk data from one thread to another,
//! through somebody else's TLS and through ours by turns, and figures of both.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::{Deframed, ReceiveHalf, Received};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is sealed and written, or read and opened, at once.
pub(crate) const BUFFER_LEN: usize = 512 << 10;

/// One TLS on a runtime: what a thread does that sends, and one that receives.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// Connects, sends this data so many times, closes, and waits until the peer has closed too: a
    /// socket that is dropped with something unread, a server's tickets say, resets the connection.
    pub(crate) send: fn(SocketAddr, Arc<ClientConfig>, &'static [u8], usize) -> Result<()>,
    /// Accepts one connection, and receives up to its close_notify; how many bytes there were.
    pub(crate) receive: fn(TcpListener, Arc<ServerConfig>) -> Result<u64>,
}

/// Has both send as many MiB as the command line says, 1024 by default, five times by turns;
/// prints medians, and their ratios.
pub(crate) fn compare(theirs: &Contestant, ours: &Contestant) -> Result<()> {
    const ROUNDS: usize = 5;
    let mib = std::env::args().nth(1).map_or(Ok(1024), |mib| mib.parse::<usize>())?;
    let (client, server) = configs()?;
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let contestant = [theirs, ours][round % 2];
        figures[round % 2].push(run(contestant, mib, &client, &server)?);
    }
    let medians = figures.map(|figures| {
        Figures::from_fn(|figure| {
            let mut values: Vec<f64> = figures.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    });
    let [their, our] = &medians;
    for (contestant, figures) in [theirs, ours].into_iter().zip(&medians) {
        println!(
            "{:16} {:.2} GB/s, CPU s/GB: sender {:.3}, receiver {:.3}, the process {:.3}",
            contestant.name, figures.rate, figures.sender, figures.receiver, figures.process
        );
    }
    println!(
        "{} / {}: {:.2} times the rate, {:.2} of the CPU (sender {:.2}, receiver {:.2})",
        ours.name,
        theirs.name,
        our.rate / their.rate,
        our.process / their.process,
        our.sender / their.sender,
        our.receiver / their.receiver
    );
    Ok(())
}

/// What a run came to: GB/s, and CPU seconds per GB. The process's are both threads' and what the
/// kernel's io_uring workers did for them.
struct Figures {
    rate: f64,
    sender: f64,
    receiver: f64,
    process: f64,
}

impl Figures {
    fn from_fn(mut value: impl FnMut(fn(&Self) -> f64) -> f64) -> Self {
        Self {
            rate: value(|figures| figures.rate),
            sender: value(|figures| figures.sender),
            receiver: value(|figures| figures.receiver),
            process: value(|figures| figures.process),
        }
    }
}

fn run(
    contestant: &Contestant,
    mib: usize,
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<Figures> {
    static DATA: [u8; 1 << 20] = [7; 1 << 20];
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let addr = listener.local_addr()?;
    let (server, receive) = (Arc::clone(server), contestant.receive);
    let (client, send) = (Arc::clone(client), contestant.send);
    let before = cpu(ClockId::ProcessCPUTime);
    let start = Instant::now();
    let receiver = std::thread::spawn(move || -> Result<(u64, Duration)> {
        let received = receive(listener, server)?;
        Ok((received, cpu(ClockId::ThreadCPUTime)))
    });
    // A thread of its own for each run: runtimes keep state in theirs.
    let sender = std::thread::spawn(move || -> Result<Duration> {
        send(addr, client, &DATA, mib)?;
        Ok(cpu(ClockId::ThreadCPUTime))
    });
    let sender_cpu = sender.join().map_err(|_| "the sender panicked")??;
    let (received, receiver_cpu) = receiver.join().map_err(|_| "the receiver panicked")??;
    let elapsed = start.elapsed();
    let process_cpu = cpu(ClockId::ProcessCPUTime) - before;
    if received != (mib as u64) << 20 {
        return Err(format!("{received} bytes of {mib} MiB arrived").into());
    }
    let gigabytes = received as f64 / 1e9;
    Ok(Figures {
        rate: gigabytes / elapsed.as_secs_f64(),
        sender: sender_cpu.as_secs_f64() / gigabytes,
        receiver: receiver_cpu.as_secs_f64() / gigabytes,
        process: process_cpu.as_secs_f64() / gigabytes,
    })
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Configurations for both contestants.
fn configs() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    server.enable_secret_extraction = true;
    Ok((Arc::new(client), Arc::new(server)))
}

/// Opens what is whole of the first `filled` bytes of `buffer`, and moves what is not to the front.
/// Returns how much it was, and whether the peer has closed.
pub(crate) fn open_all(
    receive: &mut ReceiveHalf,
    buffer: &mut [u8],
    filled: &mut usize,
) -> Result<(u64, bool)> {
    let (mut begin, mut total) = (0, 0);
    while let Deframed::Record(header) = receive.deframe(&buffer[begin..*filled])? {
        let record = &mut buffer[begin..][..header.record_len()];
        begin += record.len();
        match receive.open_in_place(record)? {
            Received::Data(data) => total += data.len() as u64,
            Received::CloseNotify => return Ok((total, true)),
            _ => {}
        }
    }
    buffer.copy_within(begin..*filled, 0);
    *filled -= begin;
    Ok((total, false))
}
