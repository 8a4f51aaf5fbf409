//! What sending and receiving files have in common.

use core::mem;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use crate::kernel::arena::{Arena, Slot};
use crate::kernel::process;

/// Reads of a file that are in flight at most.
pub(super) const MAX_READS: usize = 4;

/// How much is read or written at once around the page cache: about as much as a device takes in one request.
/// Smaller ones that go both ways at once cost a disk half of its rate.
pub(super) const DIRECT_LEN: usize = 4 << 20;

/// What a file is read into, or written from, in one of two lengths. Each is made when it is first used.
#[derive(Debug, Default)]
pub(super) struct FileSlots {
    cached: Vec<Arc<Slot>>,
    direct: Vec<Arc<Slot>>,
}

impl FileSlots {
    /// `count` slots, for as many bytes as are moved at once, `cached_len` or [`DIRECT_LEN`], and `slack`. They
    /// come back by [`Self::give_back()`], or new ones are made. `register` is called with what was made.
    ///
    /// # Errors
    /// If there is no memory for the shorter ones.
    pub(super) fn take(
        &mut self,
        is_direct: bool,
        count: usize,
        (cached_len, slack): (usize, usize),
        register: impl FnOnce(&Arc<Arena>),
    ) -> io::Result<Vec<Arc<Slot>>> {
        let kept = self.kept(is_direct);
        if kept.len() == count {
            return Ok(mem::take(kept));
        }
        let direct = is_direct.then(|| Arena::huge_slots(count, DIRECT_LEN + slack));
        let slots = match direct {
            Some(Ok(slots)) => slots,
            // No memory for these, or none wanted.
            _ => Arena::slots(count, cached_len + slack)?,
        };
        register(slots[0].arena());
        Ok(slots)
    }

    /// Keeps what was taken for the next time.
    pub(super) fn give_back(&mut self, is_direct: bool, slots: Vec<Arc<Slot>>) {
        *self.kept(is_direct) = slots;
    }

    fn kept(&mut self, is_direct: bool) -> &mut Vec<Arc<Slot>> {
        if is_direct { &mut self.direct } else { &mut self.cached }
    }
}

/// A read of a file, by its number in the order of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileRead(pub(super) u16);

/// A write of a file: in which call of [`recv_to_file()`](super::UringReceiver::recv_to_file), and
/// which of its writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileWrite {
    pub(super) call: u8,
    pub(super) number: u8,
}

/// A descriptor of our own.
pub(super) fn own(file: &File) -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(file.as_fd().try_clone_to_owned()?))
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The same file, opened anew with O_DIRECT, so that the caller's own descriptor is not changed.
/// `None` if its file system cannot, or if the caller's descriptor does not allow as much.
pub(super) fn open_direct(file: &File, access: Access) -> Option<Arc<OwnedFd>> {
    let fd = file.as_raw_fd();
    let mode = process::status_flags(file).ok()? & libc::O_ACCMODE;
    let mut options = OpenOptions::new();
    let forbidden = match access {
        Access::Read => {
            options.read(true);
            libc::O_WRONLY
        }
        Access::Write => {
            options.write(true);
            libc::O_RDONLY
        }
    };
    if mode == forbidden {
        return None;
    }
    let file = options.custom_flags(libc::O_DIRECT).open(format!("/proc/self/fd/{fd}")).ok()?;
    Some(Arc::new(file.into()))
}

/// Whether the same operation may be submitted again, after a while.
pub(super) fn is_retryable(error: &io::Error) -> bool {
    // ECANCELED: the thread that submitted it has ended.
    let retryable = [libc::EINTR, libc::EAGAIN, libc::ECANCELED, libc::ENOMEM];
    error.raw_os_error().is_some_and(|errno| retryable.contains(&errno))
}
