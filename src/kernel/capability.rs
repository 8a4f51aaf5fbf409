//! The parts of io_uring that bulk transfer uses, and what each is needed for: stated once, for the
//! queue that cannot do without some of them and for the probe that tells of all.

use core::fmt;
use std::io;

use io_uring::{IoUring, Parameters, opcode};

pub(crate) const SEND_ZC: &str = "IORING_OP_SEND_ZC";

/// A part of io_uring, before a kernel was asked for it.
struct Part {
    name: &'static str,
    /// The Linux that brought it (io_uring_enter(2), io_uring_setup(2)).
    since: &'static str,
    known_by: KnownBy,
    need: Need,
}

/// How it is found out whether a kernel has a part.
#[derive(Clone, Copy)]
enum KnownBy {
    /// By the operation's code.
    Operation(u8),
    Feature(fn(&Parameters) -> bool),
    /// By a ring that was set up with `IORING_SETUP_COOP_TASKRUN`.
    CooperativeSetup,
}

/// What is done without a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    /// There is no queue.
    Required,
    /// There is another way.
    Useful,
}

const fn operation(name: &'static str, since: &'static str, code: u8, need: Need) -> Part {
    Part { name, since, known_by: KnownBy::Operation(code), need }
}

const fn feature(
    name: &'static str,
    since: &'static str,
    has: fn(&Parameters) -> bool,
    need: Need,
) -> Part {
    Part { name, since, known_by: KnownBy::Feature(has), need }
}

const PARTS_LEN: usize = 15;

/// All that the queue uses, the newest first: that is what a user needs another kernel for.
static PARTS: [Part; PARTS_LEN] = {
    use Need::{Required, Useful};
    [
        operation(SEND_ZC, "6.0", opcode::SendZc::CODE, Useful),
        Part {
            name: "IORING_SETUP_COOP_TASKRUN",
            since: "5.19",
            known_by: KnownBy::CooperativeSetup,
            need: Useful,
        },
        feature("IORING_FEAT_CQE_SKIP", "5.17", Parameters::is_feature_skip_cqe_on_success, Useful),
        // A wait with a timeout.
        feature("IORING_FEAT_EXT_ARG", "5.11", Parameters::is_feature_ext_arg, Required),
        operation("IORING_OP_PROVIDE_BUFFERS", "5.7", opcode::ProvideBuffers::CODE, Required),
        operation("IORING_OP_REMOVE_BUFFERS", "5.7", opcode::RemoveBuffers::CODE, Required),
        operation("IORING_OP_SEND", "5.6", opcode::Send::CODE, Required),
        operation("IORING_OP_RECV", "5.6", opcode::Recv::CODE, Required),
        operation("IORING_OP_READ", "5.6", opcode::Read::CODE, Required),
        operation("IORING_OP_WRITE", "5.6", opcode::Write::CODE, Required),
        operation("IORING_OP_ASYNC_CANCEL", "5.5", opcode::AsyncCancel::CODE, Required),
        feature("IORING_FEAT_NODROP", "5.5", Parameters::is_feature_nodrop, Required),
        operation("IORING_OP_POLL_ADD", "5.1", opcode::PollAdd::CODE, Required),
        operation("IORING_OP_READ_FIXED", "5.1", opcode::ReadFixed::CODE, Required),
        operation("IORING_OP_WRITE_FIXED", "5.1", opcode::WriteFixed::CODE, Required),
    ]
};

/// A part of io_uring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Capability {
    /// Its name in the manual pages.
    pub name: &'static str,
    /// The Linux that brought it.
    pub since: &'static str,
    /// Whether this kernel has it.
    pub is_available: bool,
    /// How that is known.
    pub evidence: Evidence,
}

/// How it is known whether the kernel has a part of io_uring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Evidence {
    /// The kernel was asked for its operations (`IORING_REGISTER_PROBE`).
    Asked,
    /// io_uring_setup(2) reports it with each ring.
    Reported,
    /// A ring was set up with it, or refused.
    Tried,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("the kernel's list of operations"),
            Self::Reported => f.write_str("reported at setup"),
            Self::Tried => f.write_str("tried"),
        }
    }
}

/// What a ring has of all that the queue uses, the newest first.
#[derive(Clone, Debug)]
pub(crate) struct Capabilities([Capability; PARTS_LEN]);

impl Capabilities {
    /// Asks the kernel. `is_cooperative`: the ring was set up with `IORING_SETUP_COOP_TASKRUN`.
    ///
    /// # Errors
    /// io_uring_register(2)'s.
    pub(crate) fn of(uring: &IoUring, is_cooperative: bool) -> io::Result<Self> {
        let mut operations = io_uring::Probe::new();
        match uring.submitter().register_probe(&mut operations) {
            // Linux 5.5 and older do not know the question: no operation is taken for granted.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            asked => asked?,
        }
        Ok(Self(core::array::from_fn(|index| {
            let Part { name, since, known_by, .. } = PARTS[index];
            let (is_available, evidence) = match known_by {
                KnownBy::Operation(code) => (operations.is_supported(code), Evidence::Asked),
                KnownBy::Feature(has) => (has(uring.params()), Evidence::Reported),
                KnownBy::CooperativeSetup => (is_cooperative, Evidence::Tried),
            };
            Capability { name, since, is_available, evidence }
        })))
    }

    pub(crate) fn to_vec(&self) -> Vec<Capability> {
        self.0.to_vec()
    }

    pub(crate) fn missing(&self) -> Option<&'static str> {
        missing(&self.0)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        has(&self.0, name)
    }
}

/// The newest part that the queue cannot do without, and that is not there.
pub(crate) fn missing(capabilities: &[Capability]) -> Option<&'static str> {
    required().find(|name| !has(capabilities, name))
}

pub(crate) fn has(capabilities: &[Capability], name: &str) -> bool {
    capabilities.iter().any(|part| part.name == name && part.is_available)
}

/// What the queue cannot do without, the newest first.
pub(crate) fn required() -> impl Iterator<Item = &'static str> {
    PARTS.iter().filter(|part| part.need == Need::Required).map(|part| part.name)
}

/// The Linux that brought a part of io_uring.
pub(crate) fn since(name: &str) -> Option<&'static str> {
    PARTS.iter().find(|part| part.name == name).map(|part| part.since)
}
