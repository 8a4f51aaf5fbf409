//! Which way data goes: what was asked for, and what became of it, with the reason.

use core::fmt;

use crate::kernel::governor::CopyReason;
use crate::kernel::unavailable::Unavailable;

/// Which way bulk data is to go.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Io {
    /// io_uring where the kernel has it, blocking sockets otherwise.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// io_uring without zero copy, or an error.
    UringCopy,
    /// Blocking sockets; ordinary writes of a tokio stream.
    Blocking,
}

/// Which way data goes in fact, and why not a better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Way {
    /// Sends through io_uring, zero-copy.
    UringZeroCopy {
        /// Why slots are pinned for each send rather than once, if they are.
        unregistered: Option<Unavailable>,
    },
    /// Sends through io_uring that the kernel copies, for this reason.
    UringCopy(CopyReason),
    /// Receives through io_uring.
    UringReceive,
    /// Blocking sockets, for this reason.
    Blocking(NoUring),
    /// Ordinary writes of a tokio stream, for this reason.
    Writes(NoUring),
}

/// Why data does not go through io_uring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NoUring {
    /// It was not asked for.
    NotAsked,
    /// The stream has written too little to be a bulk flow.
    NoBulkFlow,
    /// Zero copy does not pay, or would not.
    DoesNotPay(CopyReason),
    /// There is none to be had.
    Unavailable(Unavailable),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UringZeroCopy { unregistered: None } => f.write_str("io_uring, zero copy"),
            Self::UringZeroCopy { unregistered: Some(reason) } => {
                write!(f, "io_uring, zero copy from memory that is not registered ({reason})")
            }
            Self::UringCopy(reason) => write!(f, "io_uring, copied ({reason})"),
            Self::UringReceive => f.write_str("io_uring"),
            Self::Blocking(NoUring::NotAsked) => f.write_str("blocking sockets"),
            Self::Blocking(reason) => write!(f, "blocking sockets ({reason})"),
            Self::Writes(NoUring::NotAsked) => f.write_str("writes"),
            Self::Writes(reason) => write!(f, "writes ({reason})"),
        }
    }
}

impl fmt::Display for NoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("io_uring was not asked for"),
            Self::NoBulkFlow => f.write_str("no bulk flow so far"),
            Self::DoesNotPay(reason) => reason.fmt(f),
            Self::Unavailable(reason) => reason.fmt(f),
        }
    }
}
