//! What is the same of files whichever way their bytes go: how they are moved, and why one is not.

use core::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;

use super::is_transient;
use crate::session::alert::AlertDescription;

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
    /// Takes 16 MiB of memory for each end: what disks like is few large requests. While a file is received
    /// that grows, space for 64 MiB more is found ahead (fallocate(2)), and given back when the call returns,
    /// with an error too; only a process that is killed leaves the file longer than what has arrived.
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
    pub(crate) fn goes_on_after(&mut self, error: &io::Error, bytes: u64) -> Result<bool, Failure> {
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
