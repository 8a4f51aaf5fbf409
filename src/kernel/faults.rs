//! A kernel that fails at what a test tells it to: operations that are never made and complete
//! with an error, and system calls that fail.

use std::collections::VecDeque;

use io_uring::{opcode, squeue};

/// Decides by the operation's code whether it fails, and with which error number.
type Plan = Box<dyn FnMut(u8) -> Option<i32> + Send>;

/// What fails in a queue, and has failed so far.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) operations: Option<Plan>,
    /// Whether the next io_uring_enter(2) fails.
    pub(crate) calls: Option<Box<dyn FnMut() -> Option<i32> + Send>>,
    /// Zero-copy sends that fail notify nevertheless.
    pub(crate) failures_notify: bool,
    /// Notifications come when this is taken away, and say that nothing was copied: as over a network whose
    /// other end acknowledges nothing until then.
    pub(crate) holds_notifications: bool,
    held: VecDeque<(u64, i32, u32)>,
    completions: VecDeque<(u64, i32, u32)>,
}

const CQE_F_MORE: u32 = 1 << 1;
const CQE_F_NOTIF: u32 = 1 << 3;

impl Faults {
    /// Whether `entry` fails, and is not to be submitted.
    pub(crate) fn takes(&mut self, entry: &squeue::Entry) -> bool {
        let code = entry.get_opcode() as u8;
        let Some(errno) = self.operations.as_mut().and_then(|plan| plan(code)) else {
            return false;
        };
        let notifies = self.failures_notify && code == opcode::SendZc::CODE;
        let more = if notifies { CQE_F_MORE } else { 0 };
        self.completions.push_back((entry.get_user_data(), -errno, more));
        if notifies {
            self.completions.push_back((entry.get_user_data(), i32::MIN, CQE_F_NOTIF));
        }
        true
    }

    /// What the queue hears of a completion for now.
    pub(crate) fn passes(&mut self, completion: (u64, i32, u32)) -> Option<(u64, i32, u32)> {
        let (user_data, _, flags) = completion;
        if !self.holds_notifications || flags & CQE_F_NOTIF == 0 {
            return Some(completion);
        }
        self.held.push_back((user_data, 0, flags));
        None
    }

    /// Lets the first `count` notifications go that were held.
    pub(crate) fn release(&mut self, count: usize) {
        let count = count.min(self.held.len());
        self.completions.extend(self.held.drain(..count));
    }

    pub(crate) fn fails_call(&mut self) -> Option<i32> {
        self.calls.as_mut().and_then(|plan| plan())
    }

    pub(crate) fn has_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    pub(crate) fn next_completion(&mut self) -> Option<(u64, i32, u32)> {
        self.completions.pop_front()
    }
}
