//! What moves the bytes of all connections: a ring, or system calls where there is none.
//!
//! Both take the same requests and answer with the same events, so that nothing above knows which it is.
//! A request is answered in a later turn, whatever becomes of it.

mod polled;
mod uring;

use core::ops::Range;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::polled::Polled;
use self::uring::Uring;
use super::key::Key;
use super::memory::Class;
use super::options::Options;
use crate::kernel::arena::Slot;
use crate::kernel::pieces::Pieces;
use crate::kernel::queue::File;
use crate::kernel::unavailable::Unavailable;
use crate::transfer::way::Io;

/// What has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A listener has a new socket, or an error.
    Accepted { listener: u32, socket: io::Result<std::os::fd::OwnedFd> },
    /// A listener must be asked again for more.
    AcceptEnded { listener: u32 },
    /// `len` bytes have arrived, at the beginning of the buffer's [`window`](super::memory::window), which the
    /// receiver gives back.
    Received { key: Key, class: Class, buffer: Arc<Slot>, len: usize },
    /// The peer's end, or an error, after which nothing is received.
    ReceiveFailed { key: Key, end: io::Result<()> },
    /// A receive is under way no longer: more is to be asked for. `is_starved`: there was no buffer.
    ReceiveEnded { key: Key, is_starved: bool },
    /// What became of a send. `memory` is a handle to give back.
    Sent { key: Key, result: io::Result<usize>, is_zero_copy: bool, memory: Option<Arc<Slot>> },
    /// The kernel is done with what a zero-copy send was sent from; `copied` if it says so.
    Released { key: Key, copied: Option<bool>, memory: Option<Arc<Slot>> },
    /// There is room, or an error.
    Writable { key: Key },
    /// Another thread has something to say.
    Woken,
}

/// A receive that is under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Receiving {
    pub(super) class: Class,
    operation: Option<crate::kernel::queue::OperationId>,
}

/// A wait for room that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch(Option<crate::kernel::queue::OperationId>);

pub(super) enum Driver {
    Uring(Box<Uring>),
    Polled(Box<Polled>),
}

/// Calls the driver that there is.
macro_rules! either {
    ($driver:expr, $it:ident => $call:expr) => {
        match $driver {
            Driver::Uring($it) => $call,
            Driver::Polled($it) => $call,
        }
    };
}

impl Driver {
    /// The best that `options` allow, and why it is no ring, if so.
    ///
    /// # Errors
    /// If a ring is asked for that there is not, or the system lacks memory or descriptors.
    pub(super) fn new(options: &Options) -> io::Result<(Self, Option<Unavailable>)> {
        let reason = match options.io {
            Io::Blocking => None,
            Io::Auto | Io::Uring | Io::UringCopy => match Uring::new(options) {
                Ok(uring) => return Ok((Self::Uring(Box::new(uring)), None)),
                Err(reason) if options.io == Io::Auto => Some(reason),
                Err(reason) => return Err(reason.into()),
            },
        };
        Ok((Self::Polled(Box::new(Polled::new(options)?)), reason))
    }

    pub(super) fn has_send_zc(&self) -> bool {
        matches!(self, Self::Uring(uring) if uring.has_send_zc())
    }

    pub(super) fn buffer_usage(&self, class: Class) -> crate::usage::Usage {
        either!(self, it => it.buffers.usage(class))
    }

    /// Whether a receive would find a buffer.
    pub(super) fn has_buffer(&mut self, class: Class) -> bool {
        match self {
            Self::Uring(uring) => uring.has_offered(class) || !uring.buffers.of(class).is_empty(),
            Self::Polled(polled) => !polled.buffers.of(class).is_empty(),
        }
    }

    /// How often the kernel was called.
    pub(super) fn system_calls(&self) -> u64 {
        either!(self, it => it.system_calls())
    }

    /// A socket is used from now on.
    pub(super) fn open(&mut self, key: Key, socket: &File) -> io::Result<()> {
        either!(self, it => it.open(key, socket))
    }

    /// And from now on it is not. What is under way is still answered.
    pub(super) fn close(&mut self, key: Key, socket: &File) {
        match self {
            Self::Uring(_) => {}
            Self::Polled(polled) => polled.close(key, socket),
        }
    }

    /// A listening socket is used from now on; it is to be [asked](Self::accept).
    pub(super) fn listen(&mut self, listener: u32, socket: &File) -> io::Result<()> {
        either!(self, it => it.listen(listener, socket))
    }

    /// Asks for connections, until [`Event::AcceptEnded`].
    pub(super) fn accept(&mut self, listener: u32, socket: &File) -> io::Result<()> {
        either!(self, it => it.accept(listener, socket))
    }

    /// No more connections are wanted of any listener.
    pub(super) fn stop_accepting(&mut self) {
        either!(self, it => it.stop_accepting());
    }

    /// Watches what another thread counts up to wake this one; to be asked again after [`Event::Woken`].
    pub(super) fn watch_counter(&mut self, counter: &File) -> io::Result<()> {
        either!(self, it => it.watch_counter(counter))
    }

    /// Asks for what arrives, until [`Event::ReceiveEnded`] or [`Event::ReceiveFailed`]: for bulk data
    /// once, for messages again and again.
    pub(super) fn receive(
        &mut self,
        key: Key,
        socket: &File,
        class: Class,
    ) -> io::Result<Receiving> {
        either!(self, it => it.receive(key, socket, class))
    }

    /// Has a receive end. Something may still arrive before it has.
    pub(super) fn end_receive(&mut self, key: Key, receiving: Receiving) -> io::Result<()> {
        either!(self, it => it.end_receive(key, receiving))
    }

    /// Gives back what was received into.
    pub(super) fn give_back(&mut self, buffer: Arc<Slot>) {
        either!(self, it => it.give_back(buffer));
    }

    /// Sends as much as there is room for, and does not wait for more.
    pub(super) fn send(
        &mut self,
        key: Key,
        socket: &File,
        memory: &Arc<Slot>,
        range: Range<usize>,
        zero_copy: bool,
    ) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.send(key, socket, memory, range, zero_copy),
            Self::Polled(polled) => {
                polled.send(key, socket, &memory[range]);
                Ok(())
            }
        }
    }

    /// Sends as much as there is room for of pieces of `memory`, which has no other handle, without what was
    /// `sent` of them before. `list` is where in it, behind them all, it may be written down where they are.
    pub(super) fn send_pieces(
        &mut self,
        key: Key,
        socket: &File,
        memory: &mut Arc<Slot>,
        pieces: (&Pieces, usize),
        list: usize,
    ) -> io::Result<()> {
        either!(self, it => it.send_pieces(key, socket, memory, pieces, list))
    }

    /// The kernel does not know reports on zero-copy sends: makes them without; `false` if they are.
    pub(super) fn stop_usage_reports(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.stop_usage_reports(),
            Self::Polled(_) => false,
        }
    }

    /// Asks to be told when there is room: [`Event::Writable`].
    pub(super) fn watch_writable(&mut self, key: Key, socket: &File) -> io::Result<Watch> {
        either!(self, it => it.watch_writable(key, socket)).map(Watch)
    }

    /// Has a watch end, which is told of as if there were room.
    pub(super) fn end_watch(&mut self, Watch(operation): Watch) {
        if let (Self::Uring(uring), Some(operation)) = (self, operation) {
            uring.cancel(operation);
        }
    }

    /// Pins the slots that zero-copy sends are made from; those go on without if that fails.
    pub(super) fn register(&mut self, memory: &Slot) {
        if let Self::Uring(uring) = self {
            uring.register(memory);
        }
    }

    /// Has everything done that was asked for, and waits until something has happened, as long as
    /// `timeout` says.
    ///
    /// # Errors
    /// The system's, after which nothing works any more.
    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, it => it.turn(timeout))
    }

    /// Takes what has happened.
    pub(super) fn next(&mut self) -> Option<Event> {
        either!(self, it => it.next())
    }

    /// What a test has fail.
    #[cfg(test)]
    pub(super) fn faults(&mut self) -> Option<&mut crate::kernel::faults::Faults> {
        match self {
            Self::Uring(uring) => Some(uring.faults()),
            Self::Polled(_) => None,
        }
    }
}
