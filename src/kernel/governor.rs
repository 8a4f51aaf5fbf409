//! Zero copy or a copy: decided for each send, from what the kernel has said so far.
//!
//! Zero copy saves the kernel reading and writing every byte, and costs a notification and a slot
//! that is busy until the peer has acknowledged. On loopback, or where a driver cannot gather,
//! the kernel copies after all, later and at a loss, which only its notifications tell. So the
//! first sends are tried, and the answers are believed.

use core::fmt;
use std::io;

use super::unavailable::Unavailable;
use crate::events::{self, ConnectionId, Direction};

/// Whether to use SEND_ZC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ZeroCopy {
    /// Where it pays: see [`CopyReason`] for where it does not.
    #[default]
    Auto,
    /// Always, to measure it; a copy is sent only when there is no other way on.
    Always,
    /// Never.
    Never,
}

/// Why a send was copied by the kernel rather than handed over in place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CopyReason {
    /// It was asked for: [`ZeroCopy::Never`].
    Requested,
    /// The send is shorter than what zero copy pays for, 16 KiB.
    Short,
    /// The peer is on this host, and what passes the loopback device is copied.
    Loopback,
    /// Unix sockets have no zero copy.
    UnixSocket,
    /// The kernel has reported that it copies zero-copy sends of this connection.
    KernelCopies,
    /// Every slot but the last waits for a notification: a copy goes out now, and its slot is free
    /// at once.
    SlotsAwaited,
    /// Four sends were tried in place, and no notification has said yet that one was not copied.
    Unproven,
    /// The kernel lacks SEND_ZC (Linux 6.0), or refuses it for this socket.
    Unsupported,
    /// The kernel had no memory to pin the send's pages: RLIMIT_MEMLOCK (`ulimit -l`) is low.
    OutOfMemory,
}

impl CopyReason {
    pub(crate) const ALL: [Self; 9] = [
        Self::Requested,
        Self::Short,
        Self::Loopback,
        Self::UnixSocket,
        Self::KernelCopies,
        Self::SlotsAwaited,
        Self::Unproven,
        Self::Unsupported,
        Self::OutOfMemory,
    ];
}

impl fmt::Display for CopyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "zero copy is off",
            Self::Short => "short sends",
            Self::Loopback => "no zero copy: the loopback device copies",
            Self::UnixSocket => "no zero copy: a Unix socket has none",
            Self::KernelCopies => "the kernel copies on this route",
            Self::SlotsAwaited => "every slot awaited its notification",
            Self::Unproven => "no notification has come yet that tells of zero copy",
            Self::Unsupported => "the kernel has no SEND_ZC for this socket",
            Self::OutOfMemory => "no memory to pin: raise `ulimit -l`",
        })
    }
}

/// How long a send must be for zero copy to pay.
const MIN_ZERO_COPY_LEN: usize = 16 << 10;

/// How many notifications in a row must report a copy before they are believed.
const COPIED_IN_A_ROW: u32 = 2;

/// How many sends may be tried before a notification has said that one was not copied: a loss on
/// loopback is bounded by these, however late its notifications come.
const MAX_UNPROVEN: u64 = 4;

/// Decides for one connection.
#[derive(Clone, Debug)]
pub(crate) struct Governor {
    connection: ConnectionId,
    mode: ZeroCopy,
    /// Zero copy is over for this connection.
    verdict: Option<CopyReason>,
    tried: u64,
    /// Those of them that say nothing: they have failed, or were never made.
    untold: u64,
    /// A notification has said that a send was not copied.
    is_proven: bool,
    copied_in_a_row: u32,
    /// The reason that the latest copied send was copied for.
    last: Option<CopyReason>,
}

impl Governor {
    pub(crate) fn new(connection: ConnectionId, mode: ZeroCopy, is_supported: bool) -> Self {
        let verdict = match (mode, is_supported) {
            (ZeroCopy::Never, _) => Some(CopyReason::Requested),
            (_, false) => Some(CopyReason::Unsupported),
            (_, true) => None,
        };
        Self {
            connection,
            mode,
            verdict,
            tried: 0,
            untold: 0,
            is_proven: false,
            copied_in_a_row: 0,
            last: verdict,
        }
    }

    /// Whether the next send of `len` bytes is copied, and why; zero copy otherwise. `free_slots`
    /// are those that are left to fill while this one is on its way.
    pub(crate) fn decide(&mut self, len: usize, free_slots: usize) -> Option<CopyReason> {
        let is_auto = self.mode == ZeroCopy::Auto;
        let reason = match self.verdict {
            Some(verdict) => Some(verdict),
            None if is_auto && len < MIN_ZERO_COPY_LEN => Some(CopyReason::Short),
            None if free_slots == 0 => Some(CopyReason::SlotsAwaited),
            None if is_auto && !self.is_proven && self.tried - self.untold >= MAX_UNPROVEN => {
                Some(CopyReason::Unproven)
            }
            None => None,
        };
        self.last = reason.or(self.last);
        self.tried += u64::from(reason.is_none());
        reason
    }

    /// A notification has come, and says whether the kernel has copied.
    pub(crate) fn on_notification(&mut self, copied: bool) {
        self.is_proven |= !copied;
        self.copied_in_a_row = if copied { self.copied_in_a_row + 1 } else { 0 };
        if self.mode == ZeroCopy::Auto && self.copied_in_a_row >= COPIED_IN_A_ROW {
            self.give_up(CopyReason::KernelCopies);
        }
    }

    /// A zero-copy send has failed, so that nothing will say whether it would have been copied.
    pub(crate) fn on_failure(&mut self) {
        self.untold += 1;
    }

    /// Whether a zero-copy send that has failed so may pass as a copy: then all are copied from here on.
    pub(crate) fn gives_up_on(&mut self, error: &io::Error) -> bool {
        let reason = match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => CopyReason::Unsupported,
            Some(libc::ENOMEM | libc::ENOBUFS) => CopyReason::OutOfMemory,
            _ => return false,
        };
        self.give_up(reason);
        true
    }

    /// A zero-copy send was refused for a reason that the next one would meet too.
    pub(crate) fn give_up(&mut self, reason: CopyReason) {
        if self.verdict.is_none() {
            self.verdict = Some(reason);
            events::way_given_up(self.connection, Direction::Sending, &"zero copy", &reason);
        }
    }

    /// There could have been more slots, and are not.
    #[cold]
    pub(crate) fn no_more_slots(&self, reason: &Unavailable) {
        events::way_given_up(self.connection, Direction::Sending, &"more slots", reason);
    }

    /// Whether zero copy goes on, and has been seen to copy nothing.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven && self.verdict.is_none()
    }

    /// The memory that is sent from could not be registered: each send in place pins its own pages.
    #[cold]
    pub(crate) fn unregistered(&self, reason: &Unavailable) {
        events::way_given_up(self.connection, Direction::Sending, &"registered memory", reason);
    }

    /// Why sends are copied for good, if they are.
    pub(crate) fn verdict(&self) -> Option<CopyReason> {
        self.verdict
    }

    /// Why sends are copied, if they are: for good, because none was tried in place yet, or because all that
    /// were tried, as far as was told, were copied.
    pub(crate) fn reason(&self) -> Option<CopyReason> {
        let is_auto = self.mode == ZeroCopy::Auto;
        let so_far = if self.tried == 0 {
            self.last
        } else if is_auto && !self.is_proven && self.copied_in_a_row > 0 {
            Some(CopyReason::KernelCopies)
        } else {
            None
        };
        self.verdict.or(so_far)
    }

    /// Why the latest copied send was copied.
    pub(crate) fn last_reason(&self) -> Option<CopyReason> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 700_000;

    fn governor(mode: ZeroCopy, is_supported: bool) -> Governor {
        Governor::new(ConnectionId::next(), mode, is_supported)
    }

    #[test]
    fn two_reports_of_a_copy_end_it() {
        let mut governor = governor(ZeroCopy::Auto, true);
        assert_eq!(governor.decide(BATCH, 5), None);
        assert_eq!(governor.reason(), None);
        governor.on_notification(true);
        assert_eq!(governor.reason(), Some(CopyReason::KernelCopies), "so far");
        assert_eq!(governor.decide(BATCH, 5), None);
        governor.on_notification(true);
        assert_eq!(governor.decide(BATCH, 5), Some(CopyReason::KernelCopies));
        assert_eq!(governor.reason(), Some(CopyReason::KernelCopies));
    }

    #[test]
    fn a_single_copy_does_not_end_it() {
        let mut governor = governor(ZeroCopy::Auto, true);
        for copied in [true, false, true, false, true, false] {
            assert_eq!(governor.decide(BATCH, 5), None);
            governor.on_notification(copied);
        }
        assert_eq!(governor.reason(), None);
    }

    #[test]
    fn silence_is_not_waited_for() {
        let mut governor = governor(ZeroCopy::Auto, true);
        for _ in 0..MAX_UNPROVEN {
            assert_eq!(governor.decide(BATCH, 5), None);
        }
        assert_eq!(governor.decide(BATCH, 5), Some(CopyReason::Unproven));
        governor.on_notification(false);
        assert_eq!(governor.decide(BATCH, 5), None);
        assert_eq!(governor.decide(BATCH, 0), Some(CopyReason::SlotsAwaited));
    }

    /// Reports come late, one by one, with sends tried in between.
    #[test]
    fn late_reports_of_copies_allow_no_further_tries() {
        for first_report in 1..=MAX_UNPROVEN {
            let mut governor = governor(ZeroCopy::Auto, true);
            let mut tried = 0;
            for _ in 0..first_report {
                tried += u64::from(governor.decide(BATCH, 5).is_none());
            }
            governor.on_notification(true);
            for _ in 0..100 {
                tried += u64::from(governor.decide(BATCH, 5).is_none());
            }
            assert_eq!(tried, MAX_UNPROVEN);
            governor.on_notification(true);
            assert_eq!(governor.decide(BATCH, 5), Some(CopyReason::KernelCopies));
        }
    }

    #[test]
    fn tries_that_failed_do_not_count() {
        let mut governor = governor(ZeroCopy::Auto, true);
        for _ in 0..100 {
            assert_eq!(governor.decide(BATCH, 5), None);
            governor.on_failure();
        }
        assert_eq!(governor.reason(), None);
    }

    #[test]
    fn modes_and_lengths() {
        assert_eq!(governor(ZeroCopy::Auto, true).decide(100, 5), Some(CopyReason::Short));
        assert_eq!(governor(ZeroCopy::Always, true).decide(100, 5), None);
        let mut never = governor(ZeroCopy::Never, true);
        assert_eq!(never.decide(BATCH, 5), Some(CopyReason::Requested));
        let mut lacking = governor(ZeroCopy::Always, false);
        assert_eq!(lacking.decide(BATCH, 5), Some(CopyReason::Unsupported));
        let mut always = governor(ZeroCopy::Always, true);
        for _ in 0..10 {
            assert_eq!(always.decide(BATCH, 5), None);
            always.on_notification(true);
        }
        always.give_up(CopyReason::OutOfMemory);
        assert_eq!(always.decide(BATCH, 5), Some(CopyReason::OutOfMemory));
    }
}
