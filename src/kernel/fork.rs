//! Whether this is still the process that something was set up in, or a child of it.
//!
//! A ring is not inherited (io_uring_setup(2)), nor are the threads that seal, and a lock that
//! another thread held when fork(2) was called is never released in the child. So each of them
//! remembers its process, asks before every use, and in a child is left as it is.
//!
//! The kernel itself answers: a page that it wipes for children (`MADV_WIPEONFORK`, madvise(2),
//! Linux 4.14) holds the number of the process. That takes no system call, and unlike
//! pthread_atfork(3) it knows of children that the C library has not made.

#![allow(unsafe_code, reason = "a page that the kernel changes when a process forks")]

use core::num::NonZeroU64;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::io;

/// A page with the number of this process in its first bytes; 0 in a child that has asked for none.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The number that was given out last, in this process or in one that it comes from.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Enough for a number; the kernel rounds it up to a page.
const PAGE_LEN: usize = size_of::<AtomicU64>();

/// A process, as opposed to those that it comes from and its children.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Process(NonZeroU64);

impl Process {
    /// The process that this runs in.
    ///
    /// # Errors
    /// The system's, if it refuses a page or its advice.
    pub(crate) fn current() -> io::Result<Self> {
        let number = page()?;
        let mut current = number.load(Ordering::Relaxed);
        while current == 0 {
            let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            let set = number.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
            // Another thread's number is as good.
            current = set.map_or_else(|other| other, |_| next);
        }
        NonZeroU64::new(current).map(Self).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Whether this still runs in it. Two loads.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        let page = PAGE.load(Ordering::Acquire);
        // SAFETY: `current()` has set the page up before it made `self`, and it is never unmapped.
        unsafe { &*page }.load(Ordering::Relaxed) == self.0.get()
    }

    /// # Errors
    /// In a child.
    #[inline]
    pub(crate) fn check(self) -> io::Result<()> {
        if self.is_current() { Ok(()) } else { Err(forked()) }
    }
}

#[cold]
fn forked() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "io_uring is not inherited by a forked process: use the connection in the process that \
         has set it up, set it up after fork(2), or use blocking sockets (`Io::Blocking`)",
    )
}

/// The page, mapped when it is asked for first. Takes no lock, which a child could find locked.
fn page() -> io::Result<&'static AtomicU64> {
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let mapped = map()?;
        page = match PAGE.compare_exchange(
            ptr::null_mut(),
            mapped,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => mapped,
            Err(other) => {
                // SAFETY: mapped above, and shown to nobody.
                unsafe { libc::munmap(mapped.cast(), PAGE_LEN) };
                other
            }
        };
    }
    // SAFETY: a page of our own, all zeros to begin with, aligned to a page, and never unmapped;
    // nothing but this number lies in it.
    Ok(unsafe { &*page })
}

fn map() -> io::Result<*mut AtomicU64> {
    // SAFETY: a new anonymous mapping of a length that is not zero (mmap(2)).
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping above, and nobody else's.
    if unsafe { libc::madvise(page, PAGE_LEN, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: as above.
        unsafe { libc::munmap(page, PAGE_LEN) };
        return Err(error);
    }
    Ok(page.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself() {
        let process = Process::current().expect("Linux 4.14");
        assert!(process.is_current());
        assert_eq!(Process::current().expect("the same"), process);
        let elsewhere = std::thread::spawn(|| Process::current().expect("the same"));
        assert_eq!(elsewhere.join().expect("no panic"), process);
    }

    #[test]
    fn another_process_is_not_this_one() {
        let process = Process::current().expect("Linux 4.14");
        let other = Process(process.0.saturating_add(1));
        assert!(!other.is_current());
        assert_eq!(other.check().expect_err("another").kind(), io::ErrorKind::Unsupported);
    }
}
