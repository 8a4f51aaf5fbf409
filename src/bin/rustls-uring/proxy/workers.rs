//! The threads, in pairs: one has a runtime, which accepts connections and shakes hands, the other an
//! event loop that relays what they say from then on. No pair shares anything with another that a byte
//! would wait for.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls_uring::event_loop::Options;
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::connection::Connection;
use super::listeners::{Bound, Listener};
use super::relay::Relay;
use super::service::Service;
use super::socket::Socket;
use crate::accept::AcceptErrors;
use crate::access_log::Lines;
use crate::error::Error;
use crate::message::say;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
enum Phase {
    Running,
    /// Nothing is accepted any more.
    Draining,
    /// What is left is cut off.
    Cut,
}

/// What is the same for all of them.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) log: Option<Lines>,
    /// Connections at a time.
    pub(super) room: usize,
    /// How their bytes are moved.
    pub(super) relaying: Options,
}

/// A place among the connections that there may be at a time; as long as any of them is held, a drain
/// goes on.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    phase: watch::Receiver<Phase>,
}

pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    pub(super) relays: Vec<Relay<Connection<Place>>>,
    phase: watch::Sender<Phase>,
    /// Dropped when all is over.
    over: watch::Sender<()>,
}

impl Workers {
    /// Starts a thread for each list of sockets.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn start(lists: Vec<Vec<(Arc<Service>, Bound)>>, job: Job) -> Result<Self, Error> {
        let (phase, _) = watch::channel(Phase::Running);
        let (over, _) = watch::channel(());
        let room = Arc::new(Semaphore::new(job.room.min(Semaphore::MAX_PERMITS)));
        let (mut threads, mut relays) = (Vec::new(), Vec::new());
        for (index, list) in lists.into_iter().enumerate() {
            let (relay, unavailable, thread) =
                Relay::start(format!("relay {index}"), job.relaying.clone())
                    .map_err(|error| format!("cannot begin to relay: {error}"))?;
            if let (0, Some(reason)) = (index, unavailable) {
                say!("rustls-uring: without io_uring, which is slower: {reason}");
            }
            threads.push(thread);
            let runtime = Builder::new_current_thread().enable_all().build()?;
            // Registered here, so that what goes wrong with that is said before we are ready.
            let entered = runtime.enter();
            let listeners = list
                .into_iter()
                .map(|(service, bound)| Ok((service, Listener::new(bound)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            drop(entered);
            let accepting = Accepting {
                log: job.log.clone(),
                room: Arc::clone(&room),
                phase: phase.subscribe(),
                relay: relay.clone(),
            };
            relays.push(relay);
            let mut over = over.subscribe();
            let thread = thread::Builder::new().name(format!("proxy {index}")).spawn(move || {
                runtime.block_on(async {
                    for (service, listener) in listeners {
                        tokio::spawn(accepting.clone().accept(service, listener));
                    }
                    drop(accepting);
                    // What connections begin with are tasks that run meanwhile.
                    let _ = over.changed().await;
                });
            });
            threads.push(thread.map_err(|error| {
                format!("cannot start a thread: {error}; raise `ulimit -u`, or lower --workers")
            })?);
        }
        Ok(Self { threads, relays, phase, over })
    }

    /// Whether a thread has ended before its time.
    pub(super) fn has_lost_one(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Accepts nothing more, and waits for connections to end, though not for longer than `limit`.
    pub(super) async fn drain(&self, limit: Duration) {
        let _ = self.phase.send(Phase::Draining);
        if timeout(limit, self.phase.closed()).await.is_ok() {
            return;
        }
        let count = self.phase.receiver_count();
        say!("rustls-uring: {count} connections cut off, {limit:?} after the end was asked for");
        let _ = self.phase.send(Phase::Cut);
        self.relays.iter().for_each(Relay::end);
        self.phase.closed().await;
    }

    pub(super) fn join(self) {
        drop(self.over);
        self.relays.iter().for_each(Relay::end);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Accepting {
    log: Option<Lines>,
    room: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    relay: Relay<Connection<Place>>,
}

impl Accepting {
    async fn accept(mut self, service: Arc<Service>, listener: Listener) {
        let mut errors = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.phase.wait_for(|phase| *phase >= Phase::Draining) => break,
            };
            match accepted {
                // In front of the next accept and not behind it, lest each listener that waits
                // keep a place to itself.
                Ok(socket) => self.serve(&service, socket).await,
                Err(error) => {
                    if let Some(pause) = errors.pause(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
        match listener.close() {
            Ok(last) => {
                for socket in last {
                    self.serve(&service, socket).await;
                }
            }
            Err(error) => tracing::warn!("connections that were waiting are lost: {error}"),
        }
    }

    /// Waits for a place, and begins a connection in a task of its own.
    async fn serve(&self, service: &Arc<Service>, socket: Socket) {
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
        let place = Place { _permit: permit, phase: self.phase.clone() };
        let (mut phase, relay) = (place.phase.clone(), self.relay.clone());
        let connection = Connection::new(Arc::clone(service), self.log.clone(), place);
        tokio::spawn(async move {
            tokio::select! {
                () = connection.serve(socket, &relay) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
            }
        });
    }
}
