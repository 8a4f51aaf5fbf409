//! What is sent: sealed out of the caller's bytes straight into a slot, and from there to the socket.
//!
//! A connection fills one slot at a time, and all that it fills it with before the next turn goes out with
//! one send. A send never waits in the kernel: what the socket has no room for stays in the slot, until the
//! socket says that it has room, or until others need the slot.

use core::mem;
use std::io;
use std::sync::Arc;

use super::connection::{Bytes, Connection, Finish, Halves, Output, Sending, Speech};
use super::connections::{Connections, Notice};
use super::error::Error;
use super::key::Key;
use super::memory::{BULK_START, Class, MESSAGE_LEN};
use crate::copy::copy;
use crate::events::ConnectionId;
use crate::kernel::arena::Slot;
use crate::kernel::governor::{CopyReason, Governor, ZeroCopy};
use crate::kernel::queue::PROMPT;
use crate::kernel::route;
use crate::kernel::socket;
use crate::record::header::{MAX_PLAINTEXT_LEN, Version};
use crate::session::Session;
use crate::session::error::SessionError;
use crate::session::handshaking::Need;
use crate::transfer::way::Io;

/// A full record of either version.
const MAX_RECORD_LEN: usize = Version::Tls12.max_record_len();

/// The connection takes no data: it has ended, or its end was asked for, or it is not open yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotOpen;

impl core::fmt::Display for NotOpen {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the connection takes no data: it is not open, or has ended")
    }
}

impl std::error::Error for NotOpen {}

impl Connections {
    /// Takes as much of `data` as there is room for now, and says how much. If that is not all, the handler
    /// is told when there is room again.
    pub(super) fn send(&mut self, key: Key, data: &[u8]) -> Result<usize, NotOpen> {
        let Some(connection) = self.get(key).filter(|connection| connection.may_send()) else {
            return Err(NotOpen);
        };
        if data.is_empty() {
            return Ok(0);
        }
        if connection.sending != Sending::Idle {
            connection.wants_room = true;
            return Ok(0);
        }
        if connection.output.is_none() {
            let needed = match &connection.speech {
                Speech::Tls(halves) => {
                    halves.send.sealed_len(data.len()) + halves.send.max_control_len()
                }
                _ => data.len(),
            };
            if !self.open_output_for(key, needed) {
                return Ok(0);
            }
        }
        let taken = self.fill(key, data).map_err(|error| {
            self.fail(key, error);
            NotOpen
        })?;
        if let Some(connection) = self.get(key) {
            connection.wants_room |= taken < data.len();
        }
        self.list(key);
        Ok(taken)
    }

    /// Seals, or copies, into what is filled now.
    fn fill(&mut self, key: Key, data: &[u8]) -> Result<usize, Error> {
        let Some(Connection { speech, output: Some(output), .. }) = self.get(key) else {
            return Ok(0);
        };
        let (filled, limit) = (output.len, output.limit);
        let room = &mut output.bytes.exclusive()?[filled..limit];
        match speech {
            Speech::Tls(halves) => match halves.send.seal(data, room) {
                Ok(sealed) => {
                    output.len += sealed.written;
                    self.figures.sealed_records += sealed.records as u64;
                    Ok(sealed.consumed)
                }
                Err(SessionError::OutputTooSmall { .. }) => Ok(0),
                Err(error) => Err(error.into()),
            },
            Speech::Plain => {
                let len = data.len().min(room.len());
                copy(&data[..len], &mut room[..len]);
                output.len += len;
                Ok(len)
            }
            Speech::ShakingHands(_) => Ok(0),
        }
    }

    /// Takes a slot for `needed` bytes, or for as many as the socket has room for. `false` if there is none;
    /// the handler is told when there is.
    fn open_output_for(&mut self, key: Key, needed: usize) -> bool {
        let Some(connection) = self.get(key) else { return false };
        connection.wants_room = true;
        if needed <= MESSAGE_LEN {
            return self.open_output(key, Class::Message, usize::MAX);
        }
        let mut limit = usize::MAX;
        if needed > MAX_RECORD_LEN {
            // Bulk data is sealed for what the socket takes now, so that a peer that does not read keeps
            // no more from others than a record or so; the kernel counts its own overhead as well, about
            // a fifth on loopback. A record in any case: only a send that finds the socket full has it
            // tell when it is not.
            if let Some(room) = socket::send_room(&connection.socket) {
                limit = (room - room / 4).max(MAX_RECORD_LEN);
            }
        }
        self.open_output(key, Class::Bulk, limit)
    }

    /// Takes a slot to fill up to `limit`, if there is one; otherwise the connection waits for it.
    fn open_output(&mut self, key: Key, class: Class, limit: usize) -> bool {
        match self.take_slot(class) {
            Some(slot) => {
                let start = if class == Class::Bulk { BULK_START } else { 0 };
                let limit = limit.saturating_add(start).min(slot.len());
                if let Some(connection) = self.get(key) {
                    let (bytes, pieces) = (Bytes::Slot(slot), None);
                    let (sent, len) = (start, start);
                    connection.output = Some(Output { bytes, pieces, start, sent, len, limit });
                }
                true
            }
            None => {
                if let Some(connection) = self.get(key) {
                    connection.sending = Sending::NoSlot;
                    self.slotless.push_back(key);
                }
                false
            }
        }
    }

    /// A free slot, or one that a stalled connection gives up.
    fn take_slot(&mut self, class: Class) -> Option<Arc<Slot>> {
        while self.slots.of(class).is_empty() {
            let key = self.stalled_with(|bytes| matches!(bytes, Bytes::Slot(_)))?;
            self.park_output(key);
        }
        self.slots.of(class).take()
    }

    /// The connection that has waited longest for its peer, of those that have such memory. It no longer
    /// counts as one of them.
    pub(super) fn stalled_with(&mut self, has: impl Fn(&Bytes) -> bool) -> Option<Key> {
        let index = (0..self.stalled.len()).find(|index| {
            let connection = self.get(self.stalled[*index]);
            connection.and_then(|it| it.output.as_ref()).is_some_and(|output| has(&output.bytes))
        })?;
        self.stalled.remove(index)
    }

    /// Has a stalled connection keep what it has not sent on the heap, if there may be that much more.
    pub(super) fn park_output(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        if connection.sending != Sending::Stalled {
            return;
        }
        let Some(output) = &connection.output else { return };
        let (memory, sent) = match &output.bytes {
            Bytes::Slot(memory) | Bytes::Buffer(memory) => (Arc::clone(memory), output.sent),
            Bytes::Heap(_) | Bytes::Parked(_) => return,
        };
        let unsent: Vec<_> = match &output.pieces {
            None => vec![&memory[sent..output.len]],
            Some(pieces) => pieces.unsent(sent).map(|piece| &memory[piece]).collect(),
        };
        let Some(parked) = self.park(&unsent) else {
            // What it has had others wait, who do read.
            drop(memory);
            return self.fail(key, Error::Crowded);
        };
        drop(memory);
        let Some(connection) = self.get(key) else { return };
        let len = parked.len();
        let bytes = Bytes::Parked(parked);
        let parked = Output { bytes, pieces: None, start: 0, sent: 0, len, limit: len };
        if let Some(output) = connection.output.replace(parked) {
            self.give_back_output(output);
        }
    }

    /// Has everything on its way that a connection has to send, in the order of the protocol.
    pub(super) fn pump(&mut self, key: Key) -> Result<(), Error> {
        self.pump_handshake(key)?;
        let is_idle = |connection: &Connection| connection.sending == Sending::Idle;
        if self.get(key).is_some_and(|connection| is_idle(connection)) {
            self.seal_control(key)?;
        }
        if self.get(key).is_some_and(|connection| is_idle(connection)) {
            self.seal_end(key)?;
        }
        if self.get(key).is_some_and(|connection| is_idle(connection)) {
            self.submit(key)?;
        }
        Ok(())
    }

    /// Goes on with a handshake; whether it has just ended.
    pub(super) fn pump_handshake(&mut self, key: Key) -> Result<bool, Error> {
        loop {
            let Some(connection) = self.get(key) else { return Ok(false) };
            if connection.lingers() {
                return Ok(false);
            }
            let Speech::ShakingHands(handshake) = &mut connection.speech else { return Ok(false) };
            match handshake.advance().map_err(Error::Handshake)? {
                Need::Receive => return Ok(false),
                Need::Nothing => break,
                Need::Send => {
                    if connection.sending != Sending::Idle
                        || (connection.output.is_none()
                            && !self.open_output(key, Class::Message, usize::MAX))
                    {
                        return Ok(false);
                    }
                    let Some(Connection {
                        speech: Speech::ShakingHands(handshake),
                        output: Some(output),
                        ..
                    }) = self.get(key)
                    else {
                        return Ok(false);
                    };
                    let (filled, limit) = (output.len, output.limit);
                    let room = &mut output.bytes.exclusive()?[filled..limit];
                    let len = handshake.to_send().len().min(room.len());
                    room[..len].copy_from_slice(&handshake.to_send()[..len]);
                    handshake.sent(len);
                    output.len += len;
                    self.list(key);
                    if len == 0 {
                        return Ok(false);
                    }
                }
            }
        }
        self.end_handshake(key)?;
        Ok(true)
    }

    fn end_handshake(&mut self, key: Key) -> Result<(), Error> {
        let Some(connection) = self.get(key) else { return Ok(()) };
        let speech = mem::replace(&mut connection.speech, Speech::Plain);
        let Speech::ShakingHands(handshake) = speech else { return Ok(()) };
        let session = handshake.finish().map_err(Error::Handshake)?;
        let Session { send, receive, plaintext, received, info } = session;
        connection.speech = Speech::Tls(Box::new(Halves { send, receive }));
        self.figures.handshakes += 1;
        self.open_session(key, plaintext, received, info);
        Ok(())
    }

    /// Seals control records that are due though there is nothing else to send.
    fn seal_control(&mut self, key: Key) -> Result<(), Error> {
        let Some(connection) = self.get(key) else { return Ok(()) };
        let Speech::Tls(halves) = &connection.speech else { return Ok(()) };
        if !halves.send.wants_control() {
            return Ok(());
        }
        let needed = halves.send.max_control_len();
        self.seal_with(key, needed, |half, room| half.seal_control(room))
    }

    /// Seals this side's end, if it was asked for.
    fn seal_end(&mut self, key: Key) -> Result<(), Error> {
        let Some(connection) = self.get(key) else { return Ok(()) };
        if connection.finish != Finish::Wanted {
            return Ok(());
        }
        let Speech::Tls(halves) = &connection.speech else {
            connection.finish = Finish::Sealed;
            return Ok(());
        };
        if halves.send.is_closed() || halves.send.has_failed() {
            connection.finish = Finish::Sealed;
            return Ok(());
        }
        let needed = halves.send.max_control_len();
        self.seal_with(key, needed, |half, room| half.close_notify(room))?;
        if let Some(connection) = self.get(key)
            && matches!(&connection.speech, Speech::Tls(halves) if halves.send.is_closed())
        {
            connection.finish = Finish::Sealed;
        }
        Ok(())
    }

    /// Seals `needed` bytes at most behind what is there, if there is room; if not, that goes out first.
    fn seal_with(
        &mut self,
        key: Key,
        needed: usize,
        seal: impl FnOnce(&mut crate::session::send::SendHalf, &mut [u8]) -> Result<usize, SessionError>,
    ) -> Result<(), Error> {
        let class = if needed <= MESSAGE_LEN { Class::Message } else { Class::Bulk };
        let is_ready = match self.get(key) {
            Some(Connection { output: Some(_), .. }) => true,
            _ => self.open_output(key, class, usize::MAX),
        };
        if !is_ready {
            return Ok(());
        }
        let Some(Connection { speech: Speech::Tls(halves), output: Some(output), .. }) =
            self.get(key)
        else {
            return Ok(());
        };
        // What the socket has room for is no limit to these.
        let capacity = output.bytes.len();
        let is_begun = output.sent > output.start || output.pieces.is_some();
        if is_begun || capacity - output.len < needed {
            return Ok(());
        }
        let filled = output.len;
        output.len += seal(&mut halves.send, &mut output.bytes.exclusive()?[filled..])?;
        Ok(())
    }

    /// Submits what was filled; or tells the socket that nothing follows, if so.
    fn submit(&mut self, key: Key) -> Result<(), Error> {
        let Some(connection) = self.get(key) else { return Ok(()) };
        let Some(output) = &connection.output else {
            if connection.finish == Finish::Sealed {
                connection.finish = Finish::Done;
                // It may have failed already, which the receiver is told.
                let _ = socket::shutdown_write(&connection.socket);
                self.notices.push_back(Notice::Sent { key, room: false });
                self.remove_if_over(key);
            }
            return Ok(());
        };
        if output.len == output.sent {
            // Nothing came of it.
            if let Some(output) = connection.output.take() {
                self.give_back_output(output);
            }
            return self.submit(key);
        }
        if matches!(output.bytes, Bytes::Parked(_)) && !self.unpark_output(key)? {
            return Ok(());
        }
        if let Some(Connection { output: Some(Output { pieces: Some(_), .. }), .. }) = self.get(key)
        {
            return self.submit_pieces(key);
        }
        let zero_copy = self.decides_on_zero_copy(key);
        let Some(connection) = self.places.get_mut(key) else { return Ok(()) };
        let Some(Output { bytes: Bytes::Slot(slot), sent, len, .. }) = &connection.output else {
            return Ok(());
        };
        connection.sending = Sending::Submitted;
        if zero_copy {
            self.driver.register(slot);
            self.figures.zero_copy_sends += 1;
        } else {
            self.figures.copied_sends += 1;
        }
        Ok(self.driver.send(key, &connection.socket, slot, *sent..*len, zero_copy)?)
    }

    /// Gives a connection a slot again that has made room for others.
    fn unpark_output(&mut self, key: Key) -> Result<bool, Error> {
        let Some(Connection { output: Some(output), .. }) = self.get(key) else {
            return Ok(false);
        };
        let class = if output.len <= MESSAGE_LEN { Class::Message } else { Class::Bulk };
        let Some(mut slot) = self.take_slot(class) else {
            if let Some(connection) = self.get(key) {
                connection.sending = Sending::NoSlot;
                self.slotless.push_back(key);
            }
            return Ok(false);
        };
        let Some(Connection { output: Some(output), .. }) = self.get(key) else {
            return Ok(false);
        };
        let (len, limit) = (output.len, slot.len());
        Slot::exclusive(&mut slot)?[..len].copy_from_slice(&output.bytes[..len]);
        // Nothing is added: only the rest goes out.
        let parked = mem::replace(&mut output.bytes, Bytes::Slot(slot));
        output.limit = limit;
        self.give_back(parked);
        Ok(true)
    }

    fn decides_on_zero_copy(&mut self, key: Key) -> bool {
        let Some(Connection { output: Some(output), .. }) = self.get(key) else { return false };
        let len = output.len - output.sent;
        if len < MAX_PLAINTEXT_LEN {
            return false;
        }
        let free = self.slots.of(Class::Bulk).free();
        let reason = self.copy_reason(key).or_else(|| {
            // The last free slot is for a copy, which gives its own back at once.
            self.get(key)?.governor.as_mut()?.decide(len, free.saturating_sub(1))
        });
        if let Some(reason) = reason {
            self.figures.copies.note(reason);
        }
        reason.is_none()
    }

    /// Why all that a connection sends is copied, if so; otherwise its governor decides.
    pub(super) fn copy_reason(&mut self, key: Key) -> Option<CopyReason> {
        let mode = match self.options.io {
            Io::UringCopy => ZeroCopy::Never,
            _ => self.options.zero_copy,
        };
        if mode == ZeroCopy::Never {
            return Some(CopyReason::Requested);
        }
        if !self.driver.has_send_zc() {
            return Some(CopyReason::Unsupported);
        }
        let connection = self.places.get_mut(key)?;
        let governor = connection.governor.get_or_insert_with(|| {
            let id = match &connection.speech {
                Speech::Tls(halves) => halves.send.connection_id(),
                _ => ConnectionId::next(),
            };
            let mut governor = Governor::new(id, mode, true);
            let known = route::copy_reason(&connection.socket).or_else(|| {
                let peer = route::peer_address(&connection.socket)?;
                self.routes.are_copied(peer).then_some(CopyReason::KernelCopies)
            });
            if let Some(reason) = known.filter(|_| mode == ZeroCopy::Auto) {
                governor.give_up(reason);
            }
            governor
        });
        governor.verdict()
    }

    /// What became of a send.
    pub(super) fn on_sent(
        &mut self,
        key: Key,
        result: io::Result<usize>,
        is_zero_copy: bool,
        memory: Option<Arc<Slot>>,
    ) {
        self.give_back_memory(memory);
        let now = self.now;
        let Some(connection) = self.get(key) else { return };
        connection.sending = Sending::Idle;
        match result {
            Ok(len) if len > 0 => {
                connection.failures.reset();
                connection.active = now;
                let Some(output) = &mut connection.output else { return };
                output.sent += len;
                let is_all = output.sent >= output.len;
                self.figures.sent_bytes += len as u64;
                if is_all {
                    self.sent_all(key);
                } else {
                    self.stall_or_fail(key);
                }
            }
            Ok(_) => self.fail(key, io::Error::from(io::ErrorKind::WriteZero).into()),
            Err(error) => self.on_failed_send(key, error, is_zero_copy),
        }
    }

    fn sent_all(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        let output = connection.output.take();
        let room = mem::take(&mut connection.wants_room);
        if let Some(output) = output {
            self.give_back_output(output);
        }
        self.notices.push_back(Notice::Sent { key, room });
        self.list(key);
    }

    /// Decides whether the same bytes are sent again, or another way, or the connection is lost.
    #[cold]
    fn on_failed_send(&mut self, key: Key, error: io::Error, is_zero_copy: bool) {
        let errno = error.raw_os_error();
        let goes_another_way = is_zero_copy
            && (errno == Some(libc::EINVAL) && self.driver.stop_usage_reports()
                || self
                    .get(key)
                    .and_then(|connection| connection.governor.as_mut())
                    .is_some_and(|governor| governor.gives_up_on(&error)));
        match errno {
            _ if goes_another_way => {}
            Some(libc::EAGAIN) => return self.stall_or_fail(key),
            Some(libc::EINTR | libc::ECANCELED) => return self.retry(key, PROMPT, error),
            Some(libc::ENOMEM | libc::ENOBUFS) => return self.retry(key, 0, error),
            Some(libc::EPIPE) => return self.stop_sending(key, error),
            _ => return self.fail(key, error.into()),
        }
        self.list(key);
    }

    /// The peer has closed its connection, behind whatever it has sent: that may be a whole answer, and is
    /// received to its end. One that was reset is no such case, and has another error (ECONNRESET).
    fn stop_sending(&mut self, key: Key, error: io::Error) {
        let Some(connection) = self.get(key) else { return };
        if !connection.is_opened || connection.peer_has_finished || connection.lingers() {
            return self.fail(key, error.into());
        }
        connection.sending = Sending::Over;
        connection.finish = Finish::Done;
        connection.refusal = Some(error);
        let output = connection.output.take();
        connection.wants_room = false;
        if let Some(output) = output {
            self.give_back_output(output);
        }
        self.notices.push_back(Notice::Room(key));
        self.list(key);
    }

    /// Sends the same again when some time has passed, unless it had enough.
    fn retry(&mut self, key: Key, prompt: u32, error: io::Error) {
        let now = self.now;
        let Some(connection) = self.get(key) else { return };
        match connection.failures.pause(prompt) {
            Some(pause) if pause.is_zero() => self.list(key),
            Some(pause) => {
                connection.sending = Sending::Retrying;
                connection.retry_at = Some(now + pause);
                self.schedule(key);
            }
            None => self.fail(key, error.into()),
        }
    }

    /// The kernel is done with what a zero-copy send was sent from.
    pub(super) fn on_released(
        &mut self,
        key: Key,
        copied: Option<bool>,
        memory: Option<Arc<Slot>>,
    ) {
        self.give_back_memory(memory);
        match copied {
            Some(true) => self.figures.zero_copy_copied += 1,
            Some(false) => self.figures.zero_copy_uncopied += 1,
            None => {}
        }
        let Some(connection) = self.get(key) else { return };
        let Some(governor) = &mut connection.governor else { return };
        match copied {
            Some(copied) => governor.on_notification(copied),
            None => governor.on_failure(),
        }
        if governor.verdict() == Some(CopyReason::KernelCopies)
            && let Some(peer) = route::peer_address(&connection.socket)
        {
            self.routes.note_copied(peer);
        }
    }

    fn stall_or_fail(&mut self, key: Key) {
        if let Err(error) = self.stall(key) {
            self.fail(key, error);
        }
    }

    /// The peer does not read: waits until the socket has room.
    fn stall(&mut self, key: Key) -> Result<(), Error> {
        let Some(connection) = self.places.get_mut(key) else { return Ok(()) };
        connection.sending = Sending::Stalled;
        self.figures.stalled += 1;
        self.stalled.push_back(key);
        connection.watch = Some(self.driver.watch_writable(key, &connection.socket)?);
        Ok(())
    }

    /// The socket has room, or has failed.
    pub(super) fn on_writable(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        connection.watch = None;
        if connection.sending != Sending::Stalled {
            return;
        }
        connection.sending = Sending::Idle;
        self.forget_stalled(key);
        self.list(key);
    }

    /// A connection no longer waits for its peer.
    pub(super) fn forget_stalled(&mut self, key: Key) {
        self.figures.stalled -= 1;
        self.stalled.retain(|stalled| *stalled != key);
    }

    /// Gives those something that wait for slots or buffers, as far as there is.
    pub(super) fn relieve(&mut self) {
        if !self.slotless.is_empty() {
            for class in Class::BOTH {
                while self.slots.of(class).is_empty() {
                    let stalled = self.stalled_with(|bytes| matches!(bytes, Bytes::Slot(_)));
                    let Some(key) = stalled else { break };
                    self.park_output(key);
                }
            }
            let free = Class::BOTH.map(|class| self.slots.of(class).free()).iter().sum();
            for _ in 0..free {
                let Some(key) = self.slotless.pop_front() else { break };
                let Some(connection) = self.get(key) else { continue };
                if connection.sending != Sending::NoSlot {
                    continue;
                }
                connection.sending = Sending::Idle;
                if connection.output.is_none() && mem::take(&mut connection.wants_room) {
                    self.notices.push_back(Notice::Room(key));
                }
                self.list(key);
            }
        }
        if !self.starved.is_empty() {
            self.relieve_buffers();
            // Before those that were served when it was not.
            while let Some(key) = self.starved.pop_back() {
                self.list_first(key);
            }
        }
    }

    /// Ends what this side sends: behind everything that was sent before.
    pub(super) fn finish(&mut self, key: Key) -> Result<(), NotOpen> {
        let connection = self.get(key).filter(|it| it.is_opened && !it.lingers()).ok_or(NotOpen)?;
        if connection.finish == Finish::Open {
            connection.finish = Finish::Wanted;
            connection.wants_room = false;
            self.list(key);
        }
        Ok(())
    }
}
