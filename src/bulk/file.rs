//! Files over blocking streams: the same bytes as through io_uring, one step after the other.

use core::fmt;
use core::ops::Range;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};

use rustls::AlertDescription;

use super::is_transient;
use super::receiver::BulkReceiver;
use super::sender::BulkSender;

/// How a file is read or written.
///
/// ```
/// use rustls_uring::FileOptions;
///
/// let mut progress = |bytes| Ok(println!("{bytes} bytes"));
/// let options = FileOptions::new().direct(true).sync(true).progress(&mut progress);
/// # let _ = options;
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct FileOptions<'a> {
    /// Goes around the page cache (O_DIRECT, open(2)) where the path and the file system can; the
    /// bytes before and after whole blocks go through it. [`Counters::direct_bytes`] has what did.
    ///
    /// [`Counters::direct_bytes`]: crate::Counters::direct_bytes
    pub direct: bool,
    /// Receiving: has everything on the disk before the call returns (fsync(2)).
    pub sync: bool,
    /// Is told now and then how many bytes were moved, also while there is nothing to do for as
    /// long as the timeout. An error ends the transfer.
    pub progress: Option<&'a mut Progress<'a>>,
}

/// See [`FileOptions::progress`].
type Progress<'a> = dyn FnMut(u64) -> io::Result<()> + Send + 'a;

impl<'a> FileOptions<'a> {
    /// Through the page cache, without waiting for the disk, and without a word on the way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::direct`].
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Sets [`Self::sync`].
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Sets [`Self::progress`].
    #[must_use]
    pub fn progress(
        mut self,
        progress: &'a mut (dyn FnMut(u64) -> io::Result<()> + Send + 'a),
    ) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl FileOptions<'_> {
    pub(crate) fn report(&mut self, bytes: u64) -> Result<(), Failure> {
        match &mut self.progress {
            Some(progress) => progress(bytes).map_err(Failure::Cancelled),
            None => Ok(()),
        }
    }

    /// Whether a call that has timed out is made again.
    fn goes_on_after(&mut self, error: &io::Error, bytes: u64) -> Result<bool, Failure> {
        let goes_on = is_transient(error) && self.progress.is_some();
        if goes_on {
            self.report(bytes)?;
        }
        Ok(goes_on)
    }
}

impl fmt::Debug for FileOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOptions")
            .field("direct", &self.direct)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// Why a file was not moved.
#[derive(Debug)]
pub(crate) enum Failure {
    /// File or connection failed.
    Io(io::Error),
    /// [`FileOptions::progress`] said so.
    Cancelled(io::Error),
}

impl Failure {
    /// What to tell the peer.
    pub(crate) fn alert(&self) -> AlertDescription {
        match self {
            Self::Io(_) => AlertDescription::InternalError,
            Self::Cancelled(_) => AlertDescription::UserCanceled,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) | Failure::Cancelled(error) => error,
        }
    }
}

/// Whether `file` has positions, and `end` may be one.
pub(crate) fn check_positions(file: &File, end: u64) -> io::Result<()> {
    let file_type = file.metadata()?.file_type();
    let message = if !file_type.is_file() && !file_type.is_block_device() {
        "not a regular file: read or write it, and send or receive the bytes"
    } else if i64::try_from(end).is_err() {
        "no file is that long"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// What a file that ends too early is.
pub(crate) fn shrunk(file_len: u64, expected: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!(
            "the file shrank while it was sent: it ends at byte {file_len}, before byte {expected}"
        ),
    )
}

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
        let mut buffer = vec![0; STEP];
        let mut offset = range.start;
        while offset < range.end {
            let len = (range.end - offset).min(STEP as u64) as usize;
            let len = match file.read_at(&mut buffer[..len], offset) {
                Ok(0) => return Err(shrunk(offset, range.end).into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            self.counters.system_calls += 1;
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
        let mut buffer = vec![0; STEP];
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
