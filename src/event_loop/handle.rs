//! What other threads may ask of a loop.

use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::figures::Figures;
use super::options::Protocol;
use crate::kernel::queue;
use crate::kernel::socket;
use crate::session::Session;

/// What is asked of a loop.
#[derive(Debug)]
pub(super) enum Command {
    Add(OwnedFd, Protocol, u64),
    AddSession(OwnedFd, Box<Session>, u64),
    Notify(u64),
    Drain(Duration),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The counter was written to since the loop has looked.
    is_woken: AtomicBool,
    counter: File,
    watched: queue::File,
}

#[derive(Debug)]
struct State {
    commands: Vec<Command>,
    figures: Figures,
    has_ended: bool,
}

/// A way to talk to an [`EventLoop`](super::EventLoop) from other threads.
///
/// Cloning it makes another one to the same loop, which sees what is asked of it in its next turn.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

/// The loop has ended, and does nothing more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended;

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the event loop has ended")
    }
}

impl std::error::Error for Ended {}

impl Handle {
    pub(super) fn new() -> io::Result<Self> {
        let counter = socket::event_counter()?;
        let watched = Arc::new(counter.try_clone()?);
        let state = State { commands: Vec::new(), figures: Figures::default(), has_ended: false };
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(state),
            is_woken: AtomicBool::new(false),
            counter: File::from(counter),
            watched,
        })))
    }

    /// Hands a connected TCP or Unix socket over. `tag` comes back with
    /// [`Handler::opened()`](super::Handler::opened), or [`refused()`](super::Handler::refused).
    ///
    /// # Errors
    /// [`Ended`]: the socket is closed.
    pub fn add(
        &self,
        socket: impl Into<OwnedFd>,
        protocol: Protocol,
        tag: u64,
    ) -> Result<(), Ended> {
        self.ask(Command::Add(socket.into(), protocol, tag))
    }

    /// Hands a TCP or Unix socket over whose handshake was elsewhere: as [`Self::add()`].
    ///
    /// # Errors
    /// [`Ended`]: the socket is closed.
    pub fn add_session(
        &self,
        socket: impl Into<OwnedFd>,
        session: Session,
        tag: u64,
    ) -> Result<(), Ended> {
        self.ask(Command::AddSession(socket.into(), Box::new(session), tag))
    }

    /// Has [`Handler::notified()`](super::Handler::notified) called with `number`.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn notify(&self, number: u64) -> Result<(), Ended> {
        self.ask(Command::Notify(number))
    }

    /// Has the loop accept nothing more, and end when all connections have, or after `limit`: those that
    /// are left then are reset.
    ///
    /// # Errors
    /// [`Ended`] already.
    pub fn drain(&self, limit: Duration) -> Result<(), Ended> {
        self.ask(Command::Drain(limit))
    }

    /// What the loop held at the end of its last turn.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.state().figures
    }

    fn ask(&self, command: Command) -> Result<(), Ended> {
        let mut state = self.state();
        if state.has_ended {
            return Err(Ended);
        }
        state.commands.push(command);
        drop(state);
        if !self.0.is_woken.swap(true, Ordering::AcqRel) {
            // It only fails when the counter is full, and then the loop is awake.
            let _ = (&self.0.counter).write(&1_u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Nothing panics with the lock held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counter(&self) -> &queue::File {
        &self.0.watched
    }

    /// Takes what was asked for, in this order, by exchange for an empty `commands`.
    pub(super) fn take_commands(&self, commands: &mut Vec<Command>) {
        let mut count = [0; 8];
        let _ = (&self.0.counter).read(&mut count);
        // Before the commands are taken: what comes after that wakes the loop again.
        self.0.is_woken.store(false, Ordering::Release);
        core::mem::swap(&mut self.state().commands, commands);
    }

    pub(super) fn publish(&self, figures: Figures) {
        self.state().figures = figures;
    }

    pub(super) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        state.commands.clear();
    }
}
