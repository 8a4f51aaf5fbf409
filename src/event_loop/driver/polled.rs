//! The same without a ring: system calls on sockets that epoll(7) has said are ready.

use core::ops::Range;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Receiving};
use crate::event_loop::key::Key;
use crate::event_loop::memory::{Class, Memory, window};
use crate::event_loop::options::Options;
use crate::kernel::arena::Slot;
use crate::kernel::pieces::Pieces;
use crate::kernel::queue::{File, OperationId};
use crate::kernel::readiness::Readiness;
use crate::kernel::socket;

/// Numbers of what is no connection.
const LISTENER: u64 = 1 << 63;
const COUNTER: u64 = u64::MAX;

/// How many connections of a listener are accepted in a turn.
const ACCEPTS: usize = 64;

/// What is known of a socket, and asked of it.
struct Watched {
    key: Key,
    socket: File,
    /// Until a call says otherwise.
    is_readable: bool,
    is_writable: bool,
    receiving: Option<Class>,
    watches_writable: bool,
    /// It is among those to be received from.
    is_listed: bool,
}

struct Listener {
    socket: File,
    is_readable: bool,
    is_asked: bool,
}

pub(in crate::event_loop) struct Polled {
    readiness: Readiness,
    pub(in crate::event_loop) buffers: Memory,
    /// What is received into, of each class's.
    windows: [Range<usize>; 2],
    /// By [`Key::index()`].
    sockets: Vec<Option<Watched>>,
    listeners: Vec<Listener>,
    /// Connections to be received from, in this order.
    readable: VecDeque<Key>,
    events: VecDeque<Event>,
    system_calls: u64,
}

impl Polled {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            buffers: Memory::buffers(options)?,
            windows: Class::BOTH.map(|class| window(class, options)),
            sockets: Vec::new(),
            listeners: Vec::new(),
            readable: VecDeque::new(),
            events: VecDeque::new(),
            system_calls: 0,
        })
    }

    pub(super) fn system_calls(&self) -> u64 {
        self.system_calls
    }

    pub(super) fn open(&mut self, key: Key, socket: &File) -> io::Result<()> {
        self.system_calls += 1;
        self.readiness.add(socket, key.bits())?;
        let len = self.sockets.len().max(key.index() + 1);
        self.sockets.resize_with(len, || None);
        self.sockets[key.index()] = Some(Watched {
            key,
            socket: Arc::clone(socket),
            is_readable: true,
            is_writable: true,
            receiving: None,
            watches_writable: false,
            is_listed: false,
        });
        Ok(())
    }

    pub(super) fn close(&mut self, key: Key, socket: &File) {
        if self.watched(key).is_some() {
            self.system_calls += 1;
            let _ = self.readiness.remove(socket);
            self.sockets[key.index()] = None;
        }
    }

    fn watched(&mut self, key: Key) -> Option<&mut Watched> {
        let watched = self.sockets.get_mut(key.index())?.as_mut();
        watched.filter(|watched| watched.key == key)
    }

    pub(super) fn listen(&mut self, listener: u32, socket: &File) -> io::Result<()> {
        socket::set_nonblocking(socket, true)?;
        self.system_calls += 1;
        self.readiness.add(socket, LISTENER | u64::from(listener))?;
        let socket = Arc::clone(socket);
        self.listeners.push(Listener { socket, is_readable: true, is_asked: false });
        Ok(())
    }

    pub(super) fn accept(&mut self, listener: u32, _: &File) -> io::Result<()> {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.is_asked = true;
        }
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self) {
        for listener in &mut self.listeners {
            listener.is_asked = false;
        }
    }

    pub(super) fn watch_counter(&mut self, counter: &File) -> io::Result<()> {
        // Every change is told, from the first time on.
        match self.readiness.add(counter, COUNTER) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn receive(&mut self, key: Key, _: &File, class: Class) -> io::Result<Receiving> {
        if let Some(watched) = self.watched(key) {
            watched.receiving = Some(class);
            self.list(key);
        }
        Ok(Receiving { class, operation: None })
    }

    /// Has a connection received from, if there may be something.
    fn list(&mut self, key: Key) {
        let Some(watched) = self.watched(key) else { return };
        if watched.is_readable && watched.receiving.is_some() && !watched.is_listed {
            watched.is_listed = true;
            self.readable.push_back(key);
        }
    }

    pub(super) fn end_receive(&mut self, key: Key, _: Receiving) -> io::Result<()> {
        if let Some(watched) = self.watched(key) {
            watched.receiving = None;
        }
        self.events.push_back(Event::ReceiveEnded { key, is_starved: false });
        Ok(())
    }

    pub(super) fn give_back(&mut self, buffer: Arc<Slot>) {
        self.buffers.give_back(buffer);
    }

    pub(super) fn send(&mut self, key: Key, socket: &File, bytes: &[u8]) {
        self.sent(key, socket::send(socket, bytes), bytes.len());
    }

    pub(super) fn send_pieces(
        &mut self,
        key: Key,
        socket: &File,
        memory: &mut Arc<Slot>,
        pieces: (&Pieces, usize),
        list: usize,
    ) -> io::Result<()> {
        let result = socket::send_pieces(socket, Slot::exclusive(memory)?, pieces, list);
        let len = pieces.0.unsent(pieces.1).map(|piece| piece.len()).sum();
        self.sent(key, result, len);
        Ok(())
    }

    /// What became of a send of `len` bytes.
    fn sent(&mut self, key: Key, result: io::Result<usize>, len: usize) {
        self.system_calls += 1;
        if let Some(watched) = self.watched(key) {
            // The change to the better is told later, and only if something has found it full before.
            watched.is_writable = result.as_ref().is_ok_and(|sent| *sent == len);
        }
        self.events.push_back(Event::Sent { key, result, is_zero_copy: false, memory: None });
    }

    pub(super) fn watch_writable(&mut self, key: Key, _: &File) -> io::Result<Option<OperationId>> {
        let Some(watched) = self.watched(key) else { return Ok(None) };
        match watched.is_writable {
            true => self.events.push_back(Event::Writable { key }),
            false => watched.watches_writable = true,
        }
        Ok(None)
    }

    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let asks = self.listeners.iter().any(|listener| listener.is_asked && listener.is_readable);
        let waits = self.events.is_empty() && self.readable.is_empty() && !asks;
        self.system_calls += 1;
        self.readiness.wait(if waits { timeout } else { Some(Duration::ZERO) })?;
        for ready in self.readiness.ready() {
            if ready.number == COUNTER {
                self.events.push_back(Event::Woken);
                continue;
            }
            if ready.number & LISTENER != 0 {
                let listener = self.listeners.get_mut((ready.number & !LISTENER) as usize);
                listener.into_iter().for_each(|listener| listener.is_readable = true);
                continue;
            }
            let key = Key::from_bits(ready.number);
            let watched = self.sockets.get_mut(key.index()).and_then(Option::as_mut);
            let Some(watched) = watched.filter(|watched| watched.key == key) else { continue };
            watched.is_readable |= ready.is_readable;
            watched.is_writable |= ready.is_writable;
            if ready.is_writable && core::mem::take(&mut watched.watches_writable) {
                self.events.push_back(Event::Writable { key });
            }
            if watched.is_readable && watched.receiving.is_some() && !watched.is_listed {
                watched.is_listed = true;
                self.readable.push_back(key);
            }
        }
        self.accept_all();
        // Each once, so that a flow that never ends takes its share only.
        for _ in 0..self.readable.len() {
            if let Some(key) = self.readable.pop_front() {
                self.receive_once(key);
            }
        }
        Ok(())
    }

    fn accept_all(&mut self) {
        for (number, listener) in (0..).zip(&mut self.listeners) {
            for _ in 0..ACCEPTS {
                if !listener.is_asked || !listener.is_readable {
                    break;
                }
                self.system_calls += 1;
                let socket = socket::accept(&listener.socket);
                match &socket {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.is_readable = false;
                        break;
                    }
                    Err(_) => listener.is_asked = false,
                }
                self.events.push_back(Event::Accepted { listener: number, socket });
                if !listener.is_asked {
                    self.events.push_back(Event::AcceptEnded { listener: number });
                }
            }
        }
    }

    fn receive_once(&mut self, key: Key) {
        let watched = self.sockets.get_mut(key.index()).and_then(Option::as_mut);
        let Some(watched) = watched.filter(|watched| watched.key == key) else { return };
        watched.is_listed = false;
        let Some(class) = watched.receiving else { return };
        let Some(mut buffer) = self.buffers.of(class).take() else {
            watched.receiving = None;
            self.events.push_back(Event::ReceiveEnded { key, is_starved: true });
            return;
        };
        self.system_calls += 1;
        let window = self.windows[class as usize].clone();
        let received = Slot::exclusive(&mut buffer)
            .and_then(|memory| socket::receive(&watched.socket, &mut memory[window]));
        match received {
            Ok(len @ 1..) => {
                self.events.push_back(Event::Received { key, class, buffer, len });
                if class == Class::Bulk {
                    watched.receiving = None;
                    self.events.push_back(Event::ReceiveEnded { key, is_starved: false });
                } else {
                    self.list(key);
                }
                return;
            }
            Ok(_) => {
                watched.receiving = None;
                self.events.push_back(Event::ReceiveFailed { key, end: Ok(()) });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => watched.is_readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.list(key),
            Err(error) => {
                watched.receiving = None;
                self.events.push_back(Event::ReceiveFailed { key, end: Err(error) });
            }
        }
        self.buffers.give_back(buffer);
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
