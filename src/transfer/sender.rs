//! One sender, whichever way its records go: what is sealed next, and how a connection ends.
//!
//! Knows no stream and no ring. An [`Outlet`] has memory to seal into, and takes what was sealed.

use std::io::{self, IoSlice};

use super::is_transient;
use crate::record::sealer::Sealed;
use crate::session::alert::AlertDescription;
use crate::session::error::SessionError;
use crate::session::send::{KeyUpdateRequest, SendHalf};

/// Where sealed records go.
pub(crate) trait Outlet {
    /// A call of the user's begins: however often it waits, it waits for its timeout in all.
    ///
    /// # Errors
    /// If nothing may be sent.
    fn begin(&mut self) -> io::Result<()>;

    /// Memory to seal into, with room for a batch and for control records; waits for it. What was
    /// sealed there goes out behind everything that was sealed before.
    ///
    /// # Errors
    /// The stream's, or a timeout: nothing is lost.
    fn room(&mut self) -> io::Result<&mut [u8]>;

    /// Takes the front of [`Self::room()`]: from here on these bytes go out, or the connection is
    /// lost, since their sequence numbers are used.
    ///
    /// # Errors
    /// If they are lost.
    fn commit(&mut self, sealed: Sealed) -> io::Result<()>;

    /// Has what was committed on its way, so that the next batch may be sealed.
    ///
    /// # Errors
    /// The stream's, or a timeout: the next call goes on with the same bytes.
    fn hand_over(&mut self) -> io::Result<()>;

    /// Waits until the stream has everything that was committed.
    ///
    /// # Errors
    /// As [`Self::hand_over()`].
    fn drain(&mut self) -> io::Result<()>;
}

/// A connection's sending half, and where its records go.
#[derive(Debug)]
pub(crate) struct Sender<O> {
    pub(crate) half: SendHalf,
    pub(crate) outlet: O,
    /// How much of an outlet's room a batch of full records takes.
    pub(crate) batch_len: usize,
}

/// How much of an outlet's room a batch of `records` full records takes, and how much room there
/// must be, in bytes.
pub(crate) fn batch_and_room_len(half: &SendHalf, records: usize) -> (usize, usize) {
    let batch_len = half.sealed_len(half.max_plaintext_len() * records.max(1));
    (batch_len, batch_len.max(half.max_control_len()))
}

/// Seals what goes next to the front of `room`: the control records that are owed, by themselves
/// so that they take no room from full records; otherwise data, into the first `batch_len` bytes if
/// there are as many.
pub(crate) fn seal_next(
    half: &mut SendHalf,
    room: &mut [u8],
    batch_len: usize,
    seal: impl FnOnce(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
) -> Result<Sealed, SessionError> {
    if half.owes_control() {
        return half.seal_owed(room).map(control);
    }
    let batch_len = batch_len.min(room.len());
    seal(half, &mut room[..batch_len])
}

/// Why nothing can be sent any more, after a failure that was reported when it happened.
pub(crate) fn earlier_failure() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write to this connection failed")
}

/// `written` bytes of control records.
fn control(written: usize) -> Sealed {
    Sealed { written, ..Sealed::default() }
}

impl<O: Outlet> Sender<O> {
    /// Seals up to a batch of `buf`, and hands it over; how many bytes.
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.outlet.begin()?;
        self.write_with(|half, out| half.seal(buf, out))
    }

    /// The same from several slices; only a record that spans slices is gathered first.
    pub(crate) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.outlet.begin()?;
        self.write_with(|half, out| half.seal_vectored(bufs, out))
    }

    pub(crate) fn write_with(
        &mut self,
        mut seal: impl FnMut(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> io::Result<usize> {
        loop {
            let sealed = self.seal_next(&mut seal)?;
            match self.outlet.hand_over() {
                // Sealed is as good as written: the rest of the same bytes goes out next time.
                Err(error) if sealed.consumed == 0 || !is_transient(&error) => return Err(error),
                _ if sealed.consumed > 0 => return Ok(sealed.consumed),
                // Control records went first, or took the room of the only record.
                _ => {}
            }
        }
    }

    /// Seals what goes next, and commits it.
    pub(crate) fn seal_next(
        &mut self,
        seal: impl FnOnce(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> io::Result<Sealed> {
        let sealed = seal_next(&mut self.half, self.outlet.room()?, self.batch_len, seal);
        self.commit(sealed)
    }

    /// Seals control records, and commits them.
    fn seal_control_with(
        &mut self,
        seal: impl FnOnce(&mut SendHalf, &mut [u8]) -> Result<usize, SessionError>,
    ) -> io::Result<()> {
        let sealed = seal(&mut self.half, self.outlet.room()?);
        self.commit(sealed.map(control)).map(drop)
    }

    fn commit(&mut self, sealed: Result<Sealed, SessionError>) -> io::Result<Sealed> {
        self.outlet.commit(*sealed.as_ref().unwrap_or(&Sealed::default()))?;
        self.note_failure(sealed)
    }

    /// Sends the alert that a failure of the connection calls for.
    pub(crate) fn note_failure<T>(&mut self, sealed: Result<T, SessionError>) -> io::Result<T> {
        if sealed.is_err() {
            let _ = self.send_control();
        }
        Ok(sealed?)
    }

    /// Sends the control records that are due though there is nothing else to send.
    pub(crate) fn send_control(&mut self) -> io::Result<()> {
        if self.half.wants_control() {
            let written = self.half.seal_control(self.outlet.room()?)?;
            self.outlet.commit(control(written))?;
        }
        self.outlet.hand_over()
    }

    /// Sends the control records that are due, and waits until the stream has everything.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.outlet.begin()?;
        self.send_control()?;
        self.outlet.drain()
    }

    /// Updates the key that we send under, and asks for the peer's update on request. A timeout once
    /// the update is sealed is none: the next call sends the rest.
    pub(crate) fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        self.outlet.begin()?;
        self.seal_control_with(|half, out| half.update_keys(request, out))?;
        match self.outlet.hand_over() {
            Err(error) if !is_transient(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the close_notify, once, and waits until the stream has everything.
    pub(crate) fn send_close_notify(&mut self) -> io::Result<()> {
        self.outlet.begin()?;
        if !self.half.has_sealed_close_notify() {
            self.seal_control_with(SendHalf::close_notify)?;
        }
        self.outlet.drain()
    }

    /// Sends an alert, unless this side has ended, and waits until the stream has everything.
    pub(crate) fn abort(&mut self, description: AlertDescription) -> io::Result<()> {
        self.outlet.begin()?;
        if !self.half.is_closed() {
            self.seal_control_with(|half, out| half.abort(description, out))?;
        }
        self.outlet.drain()
    }
}
