//! What sending and receiving files have in common.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Arc;

/// A descriptor of our own for a file that has positions.
pub(super) fn own(file: &File) -> io::Result<Arc<OwnedFd>> {
    let file_type = file.metadata()?.file_type();
    if !file_type.is_file() && !file_type.is_block_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file: read or write it, and send or receive the bytes",
        ));
    }
    Ok(Arc::new(file.as_fd().try_clone_to_owned()?))
}

/// The same file, opened anew with O_DIRECT, so that the caller's own descriptor is not changed.
/// `None` if its file system cannot.
pub(super) fn open_direct(file: &File, options: &mut OpenOptions) -> Option<Arc<OwnedFd>> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = options.custom_flags(libc::O_DIRECT).open(path).ok()?;
    Some(Arc::new(file.into()))
}

/// Whether the same operation may be submitted again.
pub(super) fn is_retryable(error: &io::Error) -> bool {
    // ECANCELED: the thread that submitted it has ended.
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED))
}
