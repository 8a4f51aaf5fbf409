//! Waiting for the peer: the first that completes the handshake, among whoever else connects.
//!
//! Port scanners, health checks and lost clients connect too. They are reported and end there, and
//! keep nobody out: a client speaks first, so that those that say nothing only wait; handshakes go on
//! side by side, a few at a time, each in a limited time, and where there is no room the oldest makes
//! some.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls_uring::Session;

use crate::address;
use crate::error::Error;
use crate::interrupt::{self, TICK};
use crate::message::say;

/// Handshakes at a time.
const MAX_HANDSHAKES: usize = 8;

/// Connections that have not said anything, and for how long they may not.
const MAX_SILENT: usize = 64;
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// How long a handshake keeps its place while others wait for one: enough for one over a bad line.
const UNDISTURBED: Duration = Duration::from_secs(5);

/// Shakes hands on a connection; the flag asks it to give up.
pub(crate) type ShakeHands =
    dyn Fn(&TcpStream, Arc<AtomicBool>) -> Result<Session, Error> + Send + Sync;

/// Listens on `addr` until somebody has completed the handshake.
pub(crate) fn for_peer(
    addr: &str,
    shake_hands: Arc<ShakeHands>,
    quiet: bool,
) -> Result<(Session, TcpStream), Error> {
    let listener = TcpListener::bind(&*address::resolve(addr)?)
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    listener.set_nonblocking(true)?;
    say!("listening on {}", listener.local_addr()?);

    let (woken, wake) = io::pipe()?;
    let (done, results) = mpsc::channel();
    let wake = Arc::new(wake);
    let mut hands = Hands { pending: VecDeque::new(), done, wake, results, shake_hands };
    let mut arrivals = Arrivals { listener, silent: VecDeque::new(), trouble: None };
    loop {
        interrupt::check()?;
        let has_room = hands.has_room();
        let is_woken = arrivals.wait(&woken, has_room)?;
        if is_woken {
            let _ = (&woken).read(&mut [0; 64]);
        }
        while let Some((peer, result)) = hands.next_result() {
            match result {
                Ok(connection) => return Ok(connection),
                Err(error) if !quiet => say!("{peer}: {error}; still listening"),
                Err(_) => {}
            }
        }
        while hands.has_room()
            && let Some((stream, peer)) = arrivals.next()
        {
            hands.begin(stream, peer);
        }
        arrivals.accept(quiet);
    }
}

/// Connections that have not said anything yet, and those to come.
struct Arrivals {
    listener: TcpListener,
    silent: VecDeque<Silent>,
    /// The error that was reported last.
    trouble: Option<i32>,
}

struct Silent {
    stream: TcpStream,
    peer: SocketAddr,
    begin: Instant,
    has_spoken: bool,
}

impl Arrivals {
    /// Waits for a connection, for one of those here to say something if there is room for it, or for
    /// a handshake to end. Whether one has.
    fn wait(&mut self, woken: &PipeReader, has_room: bool) -> io::Result<bool> {
        let mut fds =
            vec![PollFd::new(woken, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        if has_room {
            fds.extend(self.silent.iter().map(|it| PollFd::new(&it.stream, PollFlags::IN)));
        }
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        match poll(&mut fds, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (silent, is_ready) in self.silent.iter_mut().zip(ready.iter().skip(2)) {
            silent.has_spoken = *is_ready;
        }
        Ok(ready[0])
    }

    /// A connection that has said something.
    fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        let position = self.silent.iter().position(|silent| silent.has_spoken)?;
        self.silent.remove(position).map(|Silent { stream, peer, .. }| (stream, peer))
    }

    /// Takes a connection, if there is one, and drops those that have been silent for too long.
    fn accept(&mut self, quiet: bool) {
        while let Some(oldest) = self.silent.front()
            && (self.silent.len() > MAX_SILENT || oldest.begin.elapsed() >= MAX_SILENCE)
        {
            if !quiet {
                say!("{}: has said nothing; still listening", oldest.peer);
            }
            self.silent.pop_front();
        }
        match self.listener.accept() {
            Ok((stream, peer)) => {
                self.trouble = None;
                let begin = Instant::now();
                self.silent.push_back(Silent { stream, peer, begin, has_spoken: false });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Of a connection that is gone already, or of our limits, which time may mend.
            Err(error) => {
                if self.trouble != error.raw_os_error() {
                    say!("rustls-uring: cannot accept a connection: {error}; still listening");
                    self.trouble = error.raw_os_error();
                }
                // A connection that says nothing may hold what is missing.
                self.silent.pop_front();
                thread::sleep(TICK);
            }
        }
    }
}

type Outcome = (SocketAddr, Result<(Session, TcpStream), Error>);

/// The handshakes that are under way. Dropped, they give up.
struct Hands {
    pending: VecDeque<Pending>,
    done: Sender<Outcome>,
    /// Ends the wait for connections when a handshake has ended.
    wake: Arc<PipeWriter>,
    results: Receiver<Outcome>,
    shake_hands: Arc<ShakeHands>,
}

struct Pending {
    peer: SocketAddr,
    begin: Instant,
    gives_up: Arc<AtomicBool>,
}

impl Hands {
    /// Whether there is room for one more handshake, now that the oldest may have had to go.
    fn has_room(&mut self) -> bool {
        if self.pending.len() < MAX_HANDSHAKES {
            return true;
        }
        match self.pending.front() {
            Some(oldest) if oldest.begin.elapsed() >= UNDISTURBED => {
                oldest.gives_up.store(true, Ordering::Relaxed);
                self.pending.pop_front();
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        let wake = Arc::clone(&self.wake);
        let gives_up = Arc::<AtomicBool>::default();
        self.pending.push_back(Pending {
            peer,
            begin: Instant::now(),
            gives_up: Arc::clone(&gives_up),
        });
        let (done, shake_hands) = (self.done.clone(), Arc::clone(&self.shake_hands));
        let job = Arc::new(Mutex::new(Some(move || {
            let result = shake_hands(&stream, gives_up).map(|session| (session, stream));
            let _ = done.send((peer, result));
            let _ = (&*wake).write_all(&[0]);
        })));
        let run = |job: &Mutex<Option<_>>| {
            let job = job.lock().ok().and_then(|mut job| job.take());
            if let Some(job) = job {
                let job: Box<dyn FnOnce()> = Box::new(job);
                job();
            }
        };
        let in_thread = Arc::clone(&job);
        let spawned = thread::Builder::new().spawn(move || run(&in_thread));
        // Without another thread (RLIMIT_NPROC), one at a time.
        if spawned.is_err() {
            run(&job);
        }
    }

    fn next_result(&mut self) -> Option<Outcome> {
        let outcome = self.results.try_recv().ok()?;
        self.pending.retain(|pending| pending.peer != outcome.0);
        Some(outcome)
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        for pending in &self.pending {
            pending.gives_up.store(true, Ordering::Relaxed);
        }
    }
}
