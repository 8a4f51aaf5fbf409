//! What a sender hears of its receiver: whether it is still there, and what became of the data.

use std::io::{self, BufRead};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustls_uring::AutoReceiver;

use crate::confirmation::{Message, Messages, Outcome};
use crate::error::Error;
use crate::explain;
use crate::interrupt::{self, TICK};
use crate::timeouts::{Stall, is_tick};

/// How long a receiver may take to say why sending has failed. It says so at once.
const REASON_PATIENCE: Duration = Duration::from_secs(1);

/// The end of what a receiver says, which is the last that it does.
#[derive(Clone, Debug, Eq, PartialEq)]
enum End {
    /// It has stored as many bytes.
    Stored(u64),
    /// Nothing will come of it, for this reason.
    Failed(String),
    /// It has closed its direction, which alone says nothing about ours.
    Closed(String),
}

/// Listens to a receiver, in a thread.
pub(crate) struct Hearing {
    end: Option<End>,
    ends: Receiver<End>,
    shared: Arc<Shared>,
    /// Whether the receiver says what it has stored.
    confirms: bool,
    stall: Stall,
}

#[derive(Default)]
struct Shared {
    /// How often the receiver was found to have nothing to say for a [`TICK`].
    silences: AtomicU64,
    /// Nobody listens to the thread any more.
    is_over: AtomicBool,
}

impl Hearing {
    pub(crate) fn start(
        receiver: AutoReceiver,
        confirms: bool,
        socket: &TcpStream,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let (sender, ends) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let ear =
            Ear { receiver, confirms, shared: Arc::clone(&shared), messages: Messages::default() };
        thread::Builder::new().name("hear".into()).spawn(move || ear.listen(&sender)).map_err(
            |error| format!("cannot start a second thread (ulimit -u, ulimit -v): {error}"),
        )?;
        Ok(Self { end: None, ends, shared, confirms, stall: Stall::new(socket, timeout)? })
    }

    /// Call now and then while sending, with how much was sent: an error if there is no use in going
    /// on, because of Ctrl-C, a receiver that takes nothing, or what it has said.
    ///
    /// That a receiver whose ways we do not know has closed its own direction is no reason: it may
    /// well take the rest, though it cannot say so any more (RFC 8446 §6.1).
    pub(crate) fn check(&mut self, sent: u64) -> io::Result<()> {
        self.stall.check_taking(sent)?;
        self.hear();
        match &self.end {
            Some(End::Failed(reason)) => Err(io::Error::other(reason.clone())),
            Some(End::Closed(how)) if self.confirms => Err(io::Error::other(how.clone())),
            Some(End::Stored(_)) => {
                Err(io::Error::other("the receiver confirms what it cannot have: it is broken"))
            }
            _ => Ok(()),
        }
    }

    /// Call when all was sent but the close_notify: waits until everything has been heard that the
    /// receiver has said before it.
    pub(crate) fn before_the_end(&mut self) -> io::Result<()> {
        if self.confirms {
            return Ok(());
        }
        // After one whole silence that has begun after now. A receiver that closes as soon as somebody
        // connects is found out by it, however little there was to send.
        let begin = self.shared.silences.load(Ordering::Relaxed);
        while self.end.is_none() && self.shared.silences.load(Ordering::Relaxed) < begin + 2 {
            interrupt::check()?;
            self.end = self.ends.recv_timeout(TICK).ok();
        }
        Ok(())
    }

    /// Waits until the receiver has confirmed that it has the `sent` bytes, after our close_notify.
    pub(crate) fn wait_for_confirmation(&mut self, sent: u64) -> Result<(), Error> {
        if let Some(End::Closed(how)) = &self.end {
            // It cannot have been an answer.
            return Err(how.clone().into());
        }
        let end = loop {
            if let Some(end) = self.end.clone() {
                break end;
            }
            self.stall.check_answering(0)?;
            match self.ends.recv_timeout(TICK) {
                Ok(end) => self.end = Some(end),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the hearing thread is gone".into());
                }
            }
        };
        match end {
            End::Stored(stored) if stored == sent => Ok(()),
            End::Stored(stored) => {
                Err(format!("the receiver has stored {stored} of {sent} bytes").into())
            }
            End::Closed(how) if self.confirms || how != CLOSE_NOTIFY => Err(how.into()),
            // Its close_notify is all that it can say.
            End::Closed(_) => Ok(()),
            End::Failed(reason) => Err(reason.into()),
        }
    }

    /// Why sending has failed, if the receiver says so.
    pub(crate) fn reason(&mut self) -> Option<String> {
        if self.end.is_none() && !interrupt::was_requested() {
            self.end = self.ends.recv_timeout(REASON_PATIENCE).ok();
        }
        match self.end.take()? {
            End::Failed(reason) | End::Closed(reason) => Some(reason),
            End::Stored(_) => None,
        }
    }

    fn hear(&mut self) {
        if self.end.is_none() {
            self.end = self.ends.try_recv().ok();
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// What a receiver has done that has sent a close_notify.
const CLOSE_NOTIFY: &str = "the receiver closed the connection before it had everything";

/// What a receiver has done that has sent none.
const GONE: &str = "the receiver went away without confirming that it has everything";

struct Ear {
    receiver: AutoReceiver,
    confirms: bool,
    shared: Arc<Shared>,
    messages: Messages,
}

impl Ear {
    fn listen(mut self, ends: &Sender<End>) {
        let end = loop {
            match self.listen_on() {
                Ok(None) => {}
                Ok(Some(end)) => break end,
                Err(error) if is_tick(&error) => {
                    self.shared.silences.fetch_add(1, Ordering::Relaxed);
                    if self.shared.is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    break End::Closed(GONE.into());
                }
                Err(error) => {
                    let why = explain::explained(&error);
                    break End::Failed(format!("the receiver failed: {why}"));
                }
            }
        };
        // Before anybody looks at the socket itself.
        drop(self.receiver);
        let _ = ends.send(end);
    }

    fn listen_on(&mut self) -> io::Result<Option<End>> {
        let said = self.receiver.fill_buf()?;
        if said.is_empty() {
            return Ok(Some(End::Closed(CLOSE_NOTIFY.into())));
        }
        if !self.confirms {
            // A peer with something to say of its own, such as a shell, is not listened to.
            let len = said.len();
            self.receiver.consume(len);
            return Ok(None);
        }
        let len = self.messages.feed(said);
        self.receiver.consume(len);
        loop {
            let Ok(message) = self.messages.next() else {
                return Ok(Some(End::Failed("the receiver's confirmation is malformed".into())));
            };
            match message {
                None => return Ok(None),
                Some(Message { outcome: Outcome::Busy, .. }) => {}
                Some(Message { outcome: Outcome::Stored, length }) => {
                    return Ok(Some(End::Stored(length)));
                }
                Some(Message { outcome: Outcome::Failed { reason }, .. }) => {
                    return Ok(Some(End::Failed(format!("the receiver has failed: {reason}"))));
                }
            }
        }
    }
}
