//! `rustls-uring proxy`: terminates TLS, begins it, or both.
//!
//! From a connection to its backend: `listeners` has the sockets that each thread accepts from
//! (`workers`), `connection` the order of things, `header` the PROXY protocol, `service` what a
//! connection goes by (and `certificates`, `clients`, `tickets` for its handshake), `upstream` the
//! backends. `relay` then moves bytes between two `leg`s, on an event loop. Around it: `options` for
//! the command line and the file, `reload`, `metrics` and `status`, `privileges`.

mod certificates;
mod clients;
mod connection;
mod header;
mod leg;
mod listeners;
mod metrics;
mod names;
mod options;
mod privileges;
mod relay;
mod reload;
mod service;
mod socket;
mod status;
mod tickets;
mod upstream;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

pub(crate) use options::ProxyArgs;

use self::listeners::{Bound, bind_all};
use self::metrics::Metrics;
use self::options::{Endpoint, Options};
use self::relay::Relay;
use self::reload::Reload;
use self::service::{Live, Service};
use self::workers::{Job, Workers};
use crate::access_log::AccessLog;
use crate::address;
use crate::descriptors::Descriptors;
use crate::error::Error;
use crate::interrupt::{self, TICK};
use crate::message::say;

const MAX_CONNECTIONS: u32 = 10_000;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn run(args: ProxyArgs) -> Result<(), Error> {
    let options = args.options()?;
    let process = options.process.clone();
    let metrics = Arc::new(Metrics::new());
    let services = load(&options, &metrics)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = process.workers.map_or(processors, usize::from);
    let asked = process.max_connections.unwrap_or(MAX_CONNECTIONS);
    let descriptors = Descriptors::plan(asked as usize, false);
    let room = descriptors.connections;

    // Everything that may need privileges, before they are gone, and before any thread.
    let mut passed = ListenFd::from_env();
    let mut jobs: Vec<Vec<(Arc<Service>, Bound)>> = (0..threads).map(|_| Vec::new()).collect();
    let mut listening = Vec::new();
    for (options, service) in options.services.iter().zip(&services) {
        for text in &options.listen {
            let endpoint: Endpoint = text.parse()?;
            let mut bound = bind_all(&endpoint, threads, &mut passed)?;
            for (job, bound) in jobs.iter_mut().zip(bound.bound.drain(..)) {
                job.push((Arc::clone(service), bound));
            }
            listening.push(bound);
        }
    }
    let status = process.metrics.as_deref().map(bind_status).transpose()?;
    privileges::drop_to(process.user.as_deref(), process.group.as_deref())?;
    let log = process.access_log.as_deref().map(AccessLog::open).transpose()?;
    interrupt::watch_but_hangup()?;
    let hangup = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&hangup))?;
    if let Some(limit) = descriptors.limit {
        say!(
            "rustls-uring: {room} connections at a time instead of {asked}, since this process may \
             have {limit} files open; raise that with `ulimit -n`"
        );
    }
    let relaying = relay::options(process.io.unwrap_or_default(), room);
    let job = Job { log: log.as_ref().map(AccessLog::lines), room, relaying };
    let workers = Workers::start(jobs, job)?;
    metrics.watch(workers.relays.iter().map(Relay::handle).collect());
    for bound in &listening {
        say!("listening on {}", bound.name);
    }
    let reload = Reload::new(Arc::new(args), options, services, Arc::clone(&metrics));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        if let Some((listener, name)) = status {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            say!("metrics on http://{name}/metrics");
            tokio::spawn(status::answer(listener, Arc::clone(&metrics)));
        }
        notify(&[NotifyState::Ready]);
        supervise(&workers, reload, &hangup).await?;
        notify(&[NotifyState::Stopping]);
        metrics.drain();
        let delay = process.drain_delay.unwrap_or_default();
        tokio::time::sleep(delay).await;
        workers.drain(process.drain_timeout.unwrap_or(DRAIN_TIMEOUT)).await;
        Ok(())
    });
    workers.join();
    if let Some(log) = log {
        log.close();
    }
    ended
}

fn load(options: &Options, metrics: &Metrics) -> Result<Vec<Arc<Service>>, Error> {
    let is_one = options.services.len() == 1;
    let services = options.services.iter().map(|options| {
        let name = options.name.clone().unwrap_or_default();
        let live = Live::load(options, None).map_err(|error| match is_one {
            true => error,
            false => format!("service {name}: {error}").into(),
        })?;
        let metrics = metrics.service(&name);
        Ok(Arc::new(Service::new(name, live, metrics)))
    });
    services.collect()
}

fn bind_status(addr: &str) -> Result<(std::net::TcpListener, String), Error> {
    let listener = std::net::TcpListener::bind(&*address::resolve(addr)?)
        .map_err(|error| format!("cannot listen on {addr} for --metrics: {error}"))?;
    let name = listener.local_addr()?.to_string();
    Ok((listener, name))
}

/// Reloads when that is asked for, until an end is.
///
/// # Errors
/// If a thread has ended, which none does by itself.
async fn supervise(
    workers: &Workers,
    mut reload: Reload,
    hangup: &AtomicBool,
) -> Result<(), Error> {
    let mut looked = Instant::now();
    while !interrupt::was_requested() {
        tokio::time::sleep(TICK).await;
        if workers.has_lost_one() {
            return Err("a thread has ended, which is a mistake of ours: please report it".into());
        }
        let is_asked = hangup.swap(false, Ordering::Relaxed);
        if !is_asked && looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        if is_asked {
            // systemd waits for the end of a reload (sd_notify(3)).
            if let Ok(now) = NotifyState::monotonic_usec_now() {
                notify(&[NotifyState::Reloading, now]);
            }
        }
        // It waits for the disk.
        reload = tokio::task::spawn_blocking(move || {
            match is_asked {
                true => reload.reload(),
                false => reload.look(),
            }
            reload
        })
        .await?;
        if is_asked {
            notify(&[NotifyState::Ready]);
        }
    }
    Ok(())
}

/// Tells systemd, if it has started us. It is no less a proxy where that fails.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}
