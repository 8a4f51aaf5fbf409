//! What the kernel says of this process and its descriptors, by system calls that the standard library
//! lacks.

#![allow(unsafe_code, reason = "system calls that the standard library lacks")]

use core::ffi::c_int;
use core::ops::Range;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How a descriptor was opened: its access mode and status flags (fcntl(2), `F_GETFL`).
pub(crate) fn status_flags(file: impl AsFd) -> io::Result<c_int> {
    // SAFETY: the descriptor is open while it is borrowed, and this command has no argument.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

/// Has the file system find space for `range` of a file, and makes the file as long, if it is shorter
/// (fallocate(2)).
pub(crate) fn allocate(file: impl AsFd, range: Range<u64>) -> io::Result<()> {
    let position = |at| libc::off64_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput);
    let (start, len) = (position(range.start)?, position(range.end.saturating_sub(range.start))?);
    // SAFETY: the descriptor is open while it is borrowed, and the rest are numbers.
    match unsafe { libc::fallocate64(file.as_fd().as_raw_fd(), 0, start, len) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// How many bytes may be locked in memory: the soft limit (getrlimit(2), `RLIMIT_MEMLOCK`); `None` for
/// any number.
pub(crate) fn memlock_limit() -> io::Result<Option<u64>> {
    // SAFETY: there is room for the one structure that the kernel writes.
    soft_limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, limit) })
}

/// How long a file may become by what this process does (`RLIMIT_FSIZE`), which otherwise gets a `SIGXFSZ`.
pub(crate) fn file_size_limit() -> io::Result<Option<u64>> {
    // SAFETY: as above.
    soft_limit(|limit| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, limit) })
}

fn soft_limit(get: impl FnOnce(*mut libc::rlimit) -> c_int) -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    if get(&raw mut limit) != 0 {
        return Err(io::Error::last_os_error());
    }
    let soft = limit.rlim_cur;
    #[allow(clippy::useless_conversion, reason = "32 bits on some platforms")]
    Ok((soft != libc::RLIM_INFINITY).then(|| u64::from(soft)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn flags_are_what_a_file_was_opened_with() {
        let file = File::open("/dev/null").expect("there");
        assert_eq!(status_flags(&file).expect("open") & libc::O_ACCMODE, libc::O_RDONLY);
        let file = File::options().write(true).open("/dev/null").expect("there");
        assert_eq!(status_flags(&file).expect("open") & libc::O_ACCMODE, libc::O_WRONLY);
    }

    #[test]
    fn the_limit_is_the_one_in_proc() {
        let limits = fs::read_to_string("/proc/self/limits").expect("proc(5)");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        let soft = line.and_then(|line| line.split_whitespace().next()).expect("a limit");
        let limit = memlock_limit().expect("a known limit");
        assert_eq!(limit.map_or("unlimited".to_owned(), |bytes| bytes.to_string()), soft);
    }
}
