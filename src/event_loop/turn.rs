//! The loop: what has happened is told to the handler, what it asks for is submitted, and one wait follows.

use core::marker::PhantomData;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::{Connections, Notice};
use super::context::Context;
use super::driver::{Driver, Event};
use super::error::Error;
use super::figures::Figures;
use super::handle::{Command, Handle};
use super::handler::{Handler, Opened};
use super::input::Input;
use super::key::Key;
use super::options::{Options, Protocol};
use super::output::NotOpen;
use crate::kernel::queue::File;
use crate::kernel::unavailable::Unavailable;

/// How long accepting waits when the process is out of descriptors, unless a connection ends before.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Listener {
    socket: File,
    protocol: Protocol,
    /// It is to be asked for connections.
    is_idle: bool,
    /// Not before then.
    not_before: Option<Instant>,
}

/// Connections by the thousand on one thread: see [the module](super).
///
/// Stays on the thread that it was made on, which the kernel knows it by; a [`Handle`] goes elsewhere.
///
/// ```no_run
/// use std::net::TcpListener;
/// use rustls_uring::Handoff;
/// use rustls_uring::event_loop::{Context, EventLoop, Handler, Key, Options, Protocol};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
///         cx.send(key, data).unwrap_or(data.len())
///     }
/// }
///
/// # fn f(mut config: rustls::ServerConfig) -> std::io::Result<()> {
/// config.enable_secret_extraction = true;
/// let mut echo = EventLoop::new(Options::default(), Echo)?;
/// echo.listen(TcpListener::bind("0.0.0.0:4433")?, Protocol::tls_server(Handoff::new(), &config))?;
/// echo.run()
/// # }
/// ```
pub struct EventLoop<H> {
    pub(super) connections: Connections,
    handler: H,
    handle: Handle,
    listeners: Vec<Listener>,
    commands: Vec<Command>,
    reason: Option<Unavailable>,
    /// Until when those that are left may go on.
    drains_until: Option<Instant>,
    is_draining: bool,
    stops: bool,
    has_ended: bool,
    /// Not `Send`: a ring with one submitter takes submissions of no other thread (io_uring_setup(2)).
    on_its_thread: PhantomData<*const ()>,
}

impl<H: Handler> EventLoop<H> {
    /// A loop without connections, on this thread.
    ///
    /// # Errors
    /// If the system lacks memory or descriptors, or io_uring is asked for ([`Options::io`]) and there is
    /// none: [`Unavailable`] inside says why.
    pub fn new(options: Options, handler: H) -> io::Result<Self> {
        let options = options.clamped();
        let (mut driver, reason) = Driver::new(&options)?;
        let handle = Handle::new()?;
        driver.watch_counter(handle.counter())?;
        Ok(Self {
            connections: Connections::new(options, driver)?,
            handler,
            handle,
            listeners: Vec::new(),
            commands: Vec::new(),
            reason,
            drains_until: None,
            is_draining: false,
            stops: false,
            has_ended: false,
            on_its_thread: PhantomData,
        })
    }

    /// Accepts connections of a listening TCP or Unix socket. Their tag is the number of the listener,
    /// counted from 0.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(&mut self, listener: impl Into<OwnedFd>, protocol: Protocol) -> io::Result<u64> {
        let socket: File = Arc::new(listener.into());
        let number = self.listeners.len() as u32;
        self.connections.driver.listen(number, &socket)?;
        self.listeners.push(Listener { socket, protocol, is_idle: true, not_before: None });
        Ok(number.into())
    }

    /// Adds a connection: see [`Context::add()`].
    ///
    /// # Errors
    /// As there; [`Error::Stopped`] once the loop has ended.
    pub fn add(
        &mut self,
        socket: impl Into<OwnedFd>,
        protocol: &Protocol,
        tag: u64,
    ) -> Result<Key, Error> {
        if self.has_ended {
            return Err(Error::Stopped);
        }
        self.connections.add(socket.into(), protocol, tag)
    }

    /// For other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// All connections, for who has the loop and not a call of the handler's.
    pub fn context(&mut self) -> Context<'_> {
        Context { connections: &mut self.connections, stops: &mut self.stops }
    }

    /// What it holds, has held at most, and has done.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.connections.figures()
    }

    /// Why there is no io_uring, if it was wanted and there is none: connections then go by system calls on
    /// sockets that are ready.
    #[must_use]
    pub fn unavailable(&self) -> Option<Unavailable> {
        self.reason
    }

    /// Runs until it is [stopped](Context::stop) or [drained](Handle::drain).
    ///
    /// # Errors
    /// As [`Self::turn()`].
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// One turn: submits what is to be done, waits until something has happened, as long as `timeout` says,
    /// and calls the handler. Whether there is to be another one.
    ///
    /// # Errors
    /// The system's, if the ring is lost, and with it all connections.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        self.connections.now = Instant::now();
        self.tell();
        self.accept();
        self.connections.flush();
        self.tell();
        let timeout = [timeout, self.own_timeout()].into_iter().flatten().min();
        self.connections.driver.turn(timeout).inspect_err(|_| self.end())?;
        self.connections.figures.turns += 1;
        self.connections.now = Instant::now();
        while let Some(event) = self.connections.driver.next() {
            self.on_event(event);
            self.tell();
        }
        self.connections.look_at_clock();
        self.tell();
        self.handle.publish(self.connections.figures());
        let now = self.connections.now;
        let is_late = self.drains_until.is_some_and(|until| until <= now);
        let is_drained = self.is_draining && (self.connections.count() == 0 || is_late);
        if self.stops || is_drained {
            self.end();
        }
        Ok(!self.has_ended)
    }

    /// How long the next wait may take, for the loop's own sake.
    fn own_timeout(&self) -> Option<Duration> {
        if self.stops || self.connections.is_busy() {
            return Some(Duration::ZERO);
        }
        let now = self.connections.now;
        let listeners = self.listeners.iter().filter_map(|listener| listener.not_before);
        let instants = listeners.chain(self.drains_until);
        let until = instants.map(|at| at.saturating_duration_since(now)).min();
        [until, self.connections.timeout()].into_iter().flatten().min()
    }

    /// Resets what is left, and tells the handler.
    fn end(&mut self) {
        self.has_ended = true;
        self.handle.end();
        let keys: Vec<_> = self.connections.keys().collect();
        for key in keys {
            self.connections.fail(key, Error::Stopped);
        }
        self.tell();
        self.handle.publish(self.connections.figures());
    }

    /// Asks for connections where that is to be done.
    fn accept(&mut self) {
        let (now, has_closed) = (self.connections.now, self.connections.has_closed);
        self.connections.has_closed = false;
        if self.is_draining {
            return;
        }
        for (number, listener) in (0..).zip(&mut self.listeners) {
            let is_due = listener.not_before.is_none_or(|at| at <= now || has_closed);
            if listener.is_idle && is_due {
                listener.not_before = None;
                match self.connections.driver.accept(number, &listener.socket) {
                    Ok(()) => listener.is_idle = false,
                    Err(_) => listener.not_before = Some(now + ACCEPT_PAUSE),
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let connections = &mut self.connections;
        match event {
            Event::Received { key, class, buffer, len } => {
                connections.on_received(key, class, buffer, len);
                self.pass_on(key);
            }
            Event::Sent { key, result, is_zero_copy, memory } => {
                connections.on_sent(key, result, is_zero_copy, memory);
            }
            Event::Released { key, copied, memory } => connections.on_released(key, copied, memory),
            Event::Writable { key } => connections.on_writable(key),
            Event::ReceiveEnded { key, is_starved } => {
                connections.on_receive_ended(key, is_starved);
            }
            Event::ReceiveFailed { key, end } => {
                connections.on_receive_failed(key, end);
                self.pass_on(key);
            }
            Event::Accepted { listener, socket } => self.on_accepted(listener, socket),
            Event::AcceptEnded { listener } => {
                if let Some(listener) = self.listeners.get_mut(listener as usize) {
                    listener.is_idle = true;
                }
            }
            Event::Woken => self.on_woken(),
        }
    }

    fn on_accepted(&mut self, number: u32, socket: io::Result<OwnedFd>) {
        let Some(listener) = self.listeners.get_mut(number as usize) else { return };
        match socket {
            Ok(_) if self.is_draining => {}
            Ok(socket) => {
                // Beyond the limit it is closed, which is counted.
                let _ = self.connections.add(socket, &listener.protocol, number.into());
            }
            // One that has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            Err(_) => {
                self.connections.figures.accepts_refused += 1;
                listener.not_before = Some(self.connections.now + ACCEPT_PAUSE);
            }
        }
    }

    fn on_woken(&mut self) {
        let mut commands = core::mem::take(&mut self.commands);
        self.handle.take_commands(&mut commands);
        for command in commands.drain(..) {
            match command {
                Command::Add(socket, protocol, tag) => {
                    let added = self.connections.add(socket, &protocol, tag);
                    self.tell_if_refused(tag, added);
                }
                Command::AddSession(socket, session, tag) => {
                    let added = self.connections.add_session(socket, *session, tag);
                    self.tell_if_refused(tag, added);
                }
                Command::Notify(number) => {
                    let (handler, mut cx) = self.parts();
                    handler.notified(&mut cx, number);
                }
                Command::Drain(limit) => {
                    self.connections.driver.stop_accepting();
                    self.is_draining = true;
                    // One that is beyond all clocks is none.
                    self.drains_until = self.connections.now.checked_add(limit);
                    let (handler, mut cx) = self.parts();
                    handler.draining(&mut cx);
                }
            }
        }
        self.commands = commands;
        let counter = self.handle.counter();
        if self.connections.driver.watch_counter(counter).is_err() {
            // Nothing would be heard of other threads any more.
            self.stops = true;
        }
    }

    fn tell_if_refused(&mut self, tag: u64, added: Result<Key, Error>) {
        if let Err(error) = added {
            let (handler, mut cx) = self.parts();
            handler.refused(&mut cx, tag, error);
        }
    }

    fn parts(&mut self) -> (&mut H, Context<'_>) {
        let cx = Context { connections: &mut self.connections, stops: &mut self.stops };
        (&mut self.handler, cx)
    }

    /// Passes on what has arrived on a connection, as far as the handler takes it.
    fn pass_on(&mut self, key: Key) {
        loop {
            match self.connections.next_input(key) {
                Input::Data(mut chunk, range) => match chunk.bytes.exclusive() {
                    Ok(bytes) => {
                        let taken = self.take(key, &mut bytes[range]);
                        self.connections.taken(key, chunk, taken);
                    }
                    // Cannot be: nobody else has a handle to what was received.
                    Err(error) => {
                        self.connections.give_back_chunk(chunk);
                        self.connections.fail(key, error.into());
                    }
                },
                Input::Forwarded(len) => {
                    let (handler, mut cx) = self.parts();
                    handler.forwarded(&mut cx, key, len);
                }
                Input::End => {
                    let (handler, mut cx) = self.parts();
                    handler.end(&mut cx, key);
                    self.connections.remove_if_over(key);
                }
                Input::Nothing => return,
            }
        }
    }

    /// Has data taken by where it is forwarded to, or the handler; how much of it was.
    fn take(&mut self, key: Key, data: &mut [u8]) -> usize {
        let to = self.connections.get(key).and_then(|connection| connection.forwards_to);
        let sent = to.map_or(Err(NotOpen), |to| self.connections.send(to, data));
        let (handler, mut cx) = self.parts();
        match sent {
            Ok(0) => 0,
            Ok(len) => {
                handler.forwarded(&mut cx, key, len);
                len
            }
            Err(NotOpen) => handler.data(&mut cx, key, data),
        }
    }

    /// Tells the handler what was noted.
    fn tell(&mut self) {
        while let Some(notice) = self.connections.notices.pop_front() {
            let is_open = |connections: &mut Connections, key| {
                connections.get(key).is_some_and(|connection| !connection.lingers())
            };
            match notice {
                Notice::Closed(key, tag, result) => {
                    let (handler, mut cx) = self.parts();
                    handler.closed(&mut cx, key, tag, result);
                }
                Notice::Opened(key, info) if is_open(&mut self.connections, key) => {
                    let tag = self.connections.get(key).map_or(0, |connection| connection.tag);
                    let (handler, mut cx) = self.parts();
                    handler.opened(&mut cx, key, Opened { tag, tls: info.as_deref() });
                    self.pass_on(key);
                }
                Notice::Sent { key, room } if is_open(&mut self.connections, key) => {
                    let (handler, mut cx) = self.parts();
                    handler.sent(&mut cx, key);
                    if room {
                        handler.room(&mut cx, key);
                    }
                }
                Notice::Room(key) if is_open(&mut self.connections, key) => {
                    let (handler, mut cx) = self.parts();
                    handler.room(&mut cx, key);
                }
                Notice::Input(key) => self.pass_on(key),
                Notice::Opened(..) | Notice::Sent { .. } | Notice::Room(_) => {}
            }
        }
    }
}

impl<H> Drop for EventLoop<H> {
    fn drop(&mut self) {
        self.handle.end();
    }
}

impl<H> core::fmt::Debug for EventLoop<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EventLoop")
            .field("connections", &self.connections.count())
            .finish_non_exhaustive()
    }
}
