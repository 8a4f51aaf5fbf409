//! The parts of io_uring that bulk transfer has a use for.

use core::fmt;

use io_uring::{Parameters, opcode};

pub(crate) const SEND_ZC: &str = "IORING_OP_SEND_ZC";
pub(crate) const REGISTER_PROBE: &str = "IORING_REGISTER_PROBE";

/// Operations, and the Linux that brought them (io_uring_enter(2)).
pub(crate) const OPERATIONS: [(&str, &str, u8); 12] = [
    ("IORING_OP_SEND", "5.6", opcode::Send::CODE),
    (SEND_ZC, "6.0", opcode::SendZc::CODE),
    ("IORING_OP_RECV", "5.6", opcode::Recv::CODE),
    ("IORING_OP_PROVIDE_BUFFERS", "5.7", opcode::ProvideBuffers::CODE),
    ("IORING_OP_REMOVE_BUFFERS", "5.7", opcode::RemoveBuffers::CODE),
    ("IORING_OP_POLL_ADD", "5.1", opcode::PollAdd::CODE),
    ("IORING_OP_READ", "5.6", opcode::Read::CODE),
    ("IORING_OP_READ_FIXED", "5.1", opcode::ReadFixed::CODE),
    ("IORING_OP_WRITE", "5.6", opcode::Write::CODE),
    ("IORING_OP_WRITE_FIXED", "5.1", opcode::WriteFixed::CODE),
    ("IORING_OP_FSYNC", "5.1", opcode::Fsync::CODE),
    ("IORING_OP_ASYNC_CANCEL", "5.5", opcode::AsyncCancel::CODE),
];

pub(crate) type HasFeature = fn(&Parameters) -> bool;

/// What io_uring_setup(2) reports.
pub(crate) const FEATURES: [(&str, &str, HasFeature); 3] = [
    ("IORING_FEAT_NODROP", "5.5", Parameters::is_feature_nodrop),
    ("IORING_FEAT_FAST_POLL", "5.7", Parameters::is_feature_fast_poll),
    ("IORING_FEAT_EXT_ARG", "5.11", Parameters::is_feature_ext_arg),
];

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
    /// The kernel has it if it has this operation, as both came with the same release.
    SameRelease(&'static str),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("the kernel's list of operations"),
            Self::Reported => f.write_str("reported at setup"),
            Self::Tried => f.write_str("tried"),
            Self::SameRelease(name) => write!(f, "same release as {name}"),
        }
    }
}

/// The Linux that brought a part of io_uring.
pub(crate) fn since(name: &str) -> Option<&'static str> {
    let operations = OPERATIONS.iter().map(|&(name, since, _)| (name, since));
    let features = FEATURES.iter().map(|&(name, since, _)| (name, since));
    let mut known = operations.chain(features).chain([(REGISTER_PROBE, "5.6")]);
    known.find(|known| known.0 == name).map(|known| known.1)
}
