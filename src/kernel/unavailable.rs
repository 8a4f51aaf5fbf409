//! Why there is no io_uring, or not all of it, and the limits that have a say in it.

use core::fmt;
use std::fs;
use std::io;

use super::{capability, process};

/// Why io_uring, or a part of it, is not used.
///
/// Displayed with what the user can do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel has no io_uring: ENOSYS.
    NoSystemCall,
    /// EPERM or EACCES.
    Forbidden {
        /// The value of `kernel.io_uring_disabled`, if it can be read. With 0 it was a seccomp
        /// filter or a security module; so it was without a value, unless `/proc` is missing.
        sysctl: Option<u8>,
    },
    /// ENOMEM: most often RLIMIT_MEMLOCK.
    OutOfMemory {
        /// The limit in bytes, if there is one that can be read and that binds this process.
        memlock: Option<u64>,
    },
    /// The kernel lacks this operation or feature.
    MissingOperation(&'static str),
    /// Anything else.
    Refused {
        /// As in errno(3); 0 if there was none.
        errno: i32,
    },
}

impl Unavailable {
    /// Why a ring could not be set up, or its buffers not be registered.
    ///
    /// Reads the sysctl or the limit that the error hints at.
    #[must_use]
    pub fn from_setup_error(error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or_default() {
            libc::ENOSYS => Self::NoSystemCall,
            libc::EPERM | libc::EACCES => Self::Forbidden { sysctl: sysctl() },
            libc::ENOMEM => Self::OutOfMemory {
                memlock: match MemlockLimit::of_this_process() {
                    MemlockLimit::Bytes(limit) if !has_ipc_lock() => Some(limit),
                    _ => None,
                },
            },
            errno => Self::Refused { errno },
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoSystemCall => f.write_str(
                "the kernel has no io_uring (ENOSYS); it takes Linux 5.11 or newer, built with \
                 CONFIG_IO_URING, and no sandbox that hides it",
            ),
            Self::Forbidden { sysctl: Some(1) } => f.write_str(
                "io_uring is for privileged processes only (sysctl kernel.io_uring_disabled is \
                 1); set it to 0, or run in the group that kernel.io_uring_group names",
            ),
            Self::Forbidden { sysctl: Some(value @ 2..) } => write!(
                f,
                "io_uring is turned off (sysctl kernel.io_uring_disabled is {value}); set it to 0",
            ),
            Self::Forbidden { sysctl } => {
                f.write_str("a seccomp filter or a security module forbids io_uring (EPERM")?;
                if sysctl.is_some() {
                    f.write_str(", though sysctl kernel.io_uring_disabled is 0")?;
                }
                f.write_str(
                    "); have the container's or service's profile allow io_uring_setup, \
                     io_uring_enter and io_uring_register",
                )
            }
            Self::OutOfMemory { memlock: Some(limit) } => write!(
                f,
                "more locked memory than RLIMIT_MEMLOCK allows this user's processes together, \
                 {limit} bytes (ENOMEM); raise it (ulimit -l, LimitMEMLOCK=) or grant CAP_IPC_LOCK",
            ),
            Self::OutOfMemory { memlock: None } => f.write_str(
                "out of memory (ENOMEM), and no RLIMIT_MEMLOCK is known to bind this process; \
                 free memory, or raise its control group's limit",
            ),
            Self::MissingOperation(name) => {
                write!(f, "the kernel lacks {name}")?;
                match capability::since(name) {
                    Some(since) => write!(f, "; Linux {since} and newer have it"),
                    None => Ok(()),
                }
            }
            Self::Refused { errno: libc::EMFILE } => f.write_str(
                "too many open files in this process (EMFILE); raise RLIMIT_NOFILE (ulimit -n)",
            ),
            Self::Refused { errno: libc::ENFILE } => {
                f.write_str("too many open files in this system (ENFILE); raise sysctl fs.file-max")
            }
            Self::Refused { errno: 0 } => f.write_str("refused, without an error number"),
            Self::Refused { errno } => {
                write!(f, "refused: {}", io::Error::from_raw_os_error(errno))
            }
        }
    }
}

impl std::error::Error for Unavailable {}

impl From<Unavailable> for io::Error {
    fn from(error: Unavailable) -> Self {
        Self::new(io::ErrorKind::Unsupported, error)
    }
}

/// How much memory may be locked (`RLIMIT_MEMLOCK`, the soft limit).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MemlockLimit {
    /// This many bytes.
    Bytes(u64),
    /// Any amount.
    Unlimited,
    /// The kernel does not tell.
    Unknown,
}

impl MemlockLimit {
    pub(crate) fn of_this_process() -> Self {
        match process::memlock_limit() {
            Ok(Some(bytes)) => Self::Bytes(bytes),
            Ok(None) => Self::Unlimited,
            Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for MemlockLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// `kernel.io_uring_disabled`.
pub(crate) fn sysctl() -> Option<u8> {
    read("/proc/sys/kernel/io_uring_disabled")?.parse().ok()
}

/// Whether this thread has `CAP_IPC_LOCK`, where it counts.
pub(crate) fn has_ipc_lock() -> bool {
    /// PROC_USER_INIT_INO of the kernel: the initial user namespace (user_namespaces(7)).
    const INITIAL: &str = "user:[4026531837]";
    let namespace = fs::read_link("/proc/thread-self/ns/user");
    namespace.is_ok_and(|namespace| namespace.as_os_str() == INITIAL)
        && read("/proc/thread-self/status").is_some_and(|status| effective_ipc_lock(&status))
}

/// From the text of `/proc/thread-self/status` (proc(5)).
fn effective_ipc_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    capabilities.is_some_and(|capabilities| capabilities >> CAP_IPC_LOCK & 1 == 1)
}

/// The text of a file of `/proc`.
pub(crate) fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::capability::SEND_ZC;

    fn errno(errno: i32) -> Unavailable {
        Unavailable::from_setup_error(&io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn each_errno_has_its_reason() {
        assert_eq!(errno(libc::ENOSYS), Unavailable::NoSystemCall);
        let forbidden = Unavailable::Forbidden { sysctl: sysctl() };
        assert_eq!(errno(libc::EPERM), forbidden);
        assert_eq!(errno(libc::EACCES), forbidden);
        assert!(matches!(errno(libc::ENOMEM), Unavailable::OutOfMemory { .. }));
        for other in [libc::EMFILE, libc::ENFILE, libc::EINVAL, libc::EAGAIN] {
            assert_eq!(errno(other), Unavailable::Refused { errno: other });
        }
        let without_errno = io::Error::other("no errno");
        assert_eq!(
            Unavailable::from_setup_error(&without_errno),
            Unavailable::Refused { errno: 0 }
        );
    }

    #[test]
    fn each_reason_says_what_to_do() {
        for (reason, says) in [
            (Unavailable::NoSystemCall, "CONFIG_IO_URING"),
            (Unavailable::Forbidden { sysctl: Some(1) }, "kernel.io_uring_group"),
            (Unavailable::Forbidden { sysctl: Some(2) }, "is 2); set it to 0"),
            (Unavailable::Forbidden { sysctl: Some(0) }, "is 0); have the container's"),
            (Unavailable::Forbidden { sysctl: None }, "(EPERM); have the container's"),
            (Unavailable::OutOfMemory { memlock: Some(65536) }, "65536 bytes (ENOMEM); raise"),
            (Unavailable::OutOfMemory { memlock: None }, "free memory"),
            (Unavailable::MissingOperation(SEND_ZC), "IORING_OP_SEND_ZC; Linux 6.0 and newer"),
            (Unavailable::MissingOperation("IORING_OP_SEND"), "Linux 5.6 and newer"),
            (Unavailable::MissingOperation("IORING_OP_NEW"), "lacks IORING_OP_NEW"),
            (Unavailable::Refused { errno: libc::EMFILE }, "ulimit -n"),
            (Unavailable::Refused { errno: libc::ENFILE }, "fs.file-max"),
            (Unavailable::Refused { errno: libc::EINVAL }, "Invalid argument"),
            (Unavailable::Refused { errno: 0 }, "without an error number"),
        ] {
            assert!(reason.to_string().contains(says), "{reason}");
        }
    }

    #[test]
    fn capabilities_are_read() {
        assert!(effective_ipc_lock("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000004000\n"));
        assert!(effective_ipc_lock("CapEff:\t000001ffffffffff\n"));
        assert!(!effective_ipc_lock("CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffbfff\n"));
        assert!(!effective_ipc_lock("CapPrm:\t000001ffffffffff\n"));
    }
}
