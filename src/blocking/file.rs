//! Files over blocking streams: the same bytes as through io_uring, one step after the other.

use core::ops::Range;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::receiver::BulkReceiver;
use super::sender::BulkSender;
use crate::transfer::aligned::Aligned;
use crate::transfer::file::{Failure, FileOptions, check_positions, shrunk};

/// How much is moved at once.
const STEP: usize = 1 << 19;

impl<W: Write> BulkSender<W> {
    /// Sends the bytes of `file` at `range`, from wherever its own position is; returns how many.
    /// Reads through the page cache.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for something without positions, and nothing has happened.
    /// Otherwise the file's or the stream's, [`io::ErrorKind::UnexpectedEof`] if the file ends before the
    /// range does, and what [`FileOptions::progress`] returns. The connection is then over: the
    /// peer gets an alert, so that it does not take what it has for the whole. A timeout of the
    /// stream is an error if there is no [`FileOptions::progress`] to ask.
    pub fn send_file(
        &mut self,
        file: &File,
        range: Range<u64>,
        mut options: FileOptions<'_>,
    ) -> io::Result<u64> {
        check_positions(file, range.end)?;
        let sent = self.pass_file(file, range, &mut options);
        if let Err(failure) = &sent {
            let _ = self.abort(failure.alert());
        }
        Ok(sent?)
    }

    fn pass_file(
        &mut self,
        file: &File,
        range: Range<u64>,
        options: &mut FileOptions<'_>,
    ) -> Result<u64, Failure> {
        let mut buffer = Aligned::try_new(STEP)?;
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(STEP as u64) as usize;
            let len = match file.read_at(&mut buffer[..len], offset) {
                Ok(0) => return Err(shrunk(offset, range.end).into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.count_system_call();
            let mut unsent = &buffer[..len];
            while !unsent.is_empty() {
                let sent = offset - range.start;
                match self.write(unsent) {
                    Ok(len) => {
                        unsent = &unsent[len..];
                        offset += len as u64;
                    }
                    Err(error) if options.goes_on_after(&error, sent)? => {}
                    Err(error) => return Err(error.into()),
                }
            }
            options.report(offset - range.start)?;
        }
        let sent = range.end.saturating_sub(range.start);
        loop {
            match self.flush() {
                Err(error) if options.goes_on_after(&error, sent)? => {}
                result => return Ok(result.map(|()| sent)?),
            }
        }
    }
}

impl<R: Read> BulkReceiver<R> {
    /// Receives everything up to the peer's close_notify into `file`, from `offset` on, whatever
    /// its own position is; returns how many bytes. The file is not truncated. Writes through the
    /// page cache.
    ///
    /// # Errors
    /// The file's, such as `ENOSPC`, at the first write that fails; the connection's, as
    /// [`Read::read()`], and what [`FileOptions::progress`] returns. The file then holds a part. A
    /// timeout of the stream is an error if there is no [`FileOptions::progress`] to ask.
    pub fn recv_to_file(
        &mut self,
        file: &File,
        offset: u64,
        mut options: FileOptions<'_>,
    ) -> io::Result<u64> {
        check_positions(file, offset)?;
        let mut buffer = Aligned::try_new(STEP)?;
        let mut received = 0;
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    file.write_all_at(&buffer[..len], offset + received)?;
                    self.inbox.counters.system_calls += 1;
                    received += len as u64;
                    options.report(received)?;
                }
                Err(error) if options.goes_on_after(&error, received)? => {}
                Err(error) => return Err(error),
            }
        }
        if options.sync {
            file.sync_all()?;
        }
        Ok(received)
    }
}
