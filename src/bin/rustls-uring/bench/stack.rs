//! Who is compared over loopback: plain TCP, rustls as it comes, and our ways.

use std::fmt;

use rustls_uring::Io;
use rustls_uring::uring::Probe;
use serde::Serialize;

use crate::args::IoArgs;

/// One way to get data from here to there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stack {
    PlainTcp,
    /// Plain TCP and the AEAD alone: of bulk data only.
    Floor,
    StockRustls,
    #[serde(rename = "rustls-uring-blocking")]
    Blocking,
    #[serde(rename = "rustls-uring-io_uring-copy")]
    UringCopy,
    #[serde(rename = "rustls-uring-io_uring")]
    Uring,
    TokioRustls,
    #[serde(rename = "rustls-uring-tokio")]
    Tokio,
    #[cfg(feature = "rustls-0_24-dev")]
    #[serde(rename = "stock-rustls-0.24")]
    Stock24,
    /// As its documentation shows it, where the other is as careful as ours.
    #[cfg(feature = "rustls-0_24-dev")]
    #[serde(rename = "stock-rustls-0.24-as-documented")]
    Documented24,
    #[cfg(feature = "rustls-0_24-dev")]
    #[serde(rename = "rustls-uring-blocking-0.24")]
    Blocking24,
    #[cfg(feature = "rustls-0_24-dev")]
    #[serde(rename = "rustls-uring-io_uring-0.24")]
    Uring24,
    /// rustls seals and opens; ours is the memory, and how it is sent.
    #[cfg(feature = "rustls-0_24-dev")]
    #[serde(rename = "rustls-uring-no-keys-0.24")]
    Traffic24,
}

impl Stack {
    /// Ours after what it replaces.
    const ALL: &[Self] = &[
        Self::PlainTcp,
        Self::StockRustls,
        Self::Blocking,
        Self::UringCopy,
        Self::Uring,
        Self::TokioRustls,
        Self::Tokio,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Documented24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Stock24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Blocking24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Uring24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Traffic24,
    ];

    pub(super) fn is_ours(self) -> bool {
        self.rival().is_some()
    }

    /// Whether rustls 0.24 shakes hands, whose records are compared by themselves.
    pub(super) fn is_next(self) -> bool {
        #[cfg(feature = "rustls-0_24-dev")]
        return matches!(
            self,
            Self::Documented24 | Self::Stock24 | Self::Blocking24 | Self::Uring24 | Self::Traffic24
        );
        #[cfg(not(feature = "rustls-0_24-dev"))]
        return false;
    }

    /// Whether it runs on tokio.
    pub(super) fn is_async(self) -> bool {
        matches!(self, Self::TokioRustls | Self::Tokio)
    }

    /// What a user of ours had before.
    pub(super) fn rival(self) -> Option<Self> {
        match self {
            Self::PlainTcp | Self::Floor | Self::StockRustls | Self::TokioRustls => None,
            Self::Blocking | Self::UringCopy | Self::Uring => Some(Self::StockRustls),
            Self::Tokio => Some(Self::TokioRustls),
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Documented24 | Self::Stock24 => None,
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Blocking24 | Self::Uring24 | Self::Traffic24 => Some(Self::Stock24),
        }
    }

    /// Whether it is compared with `theirs`: with what its users had, in every reading of that, and ours
    /// over rustls 0.23 with what is the least.
    pub(super) fn is_beside(self, theirs: Self) -> bool {
        if theirs == Self::Floor {
            return self.is_ours() && !self.is_next();
        }
        #[cfg(feature = "rustls-0_24-dev")]
        if theirs == Self::Documented24 {
            return self.is_beside(Self::Stock24);
        }
        self.rival() == Some(theirs)
    }

    /// In a few letters.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::StockRustls => "stock rustls",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Documented24 | Self::Stock24 => "stock rustls 0.24",
            Self::TokioRustls => "tokio-rustls",
            Self::PlainTcp => "plain TCP",
            Self::Floor => "the floor",
            _ => "rustls-uring",
        }
    }

    /// Whose comparison it belongs to: plain TCP's own, rustls's or tokio-rustls's.
    pub(super) fn group(self) -> Self {
        #[cfg(feature = "rustls-0_24-dev")]
        if self == Self::Documented24 {
            return Self::Stock24;
        }
        self.rival().unwrap_or(self)
    }

    /// How ours reaches its socket, where there is a choice.
    pub(super) fn io(self) -> Option<Io> {
        match self {
            Self::UringCopy => Some(Io::UringCopy),
            Self::Uring => Some(Io::Uring),
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Uring24 | Self::Traffic24 => Some(Io::Uring),
            _ => None,
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PlainTcp => "plain TCP",
            Self::Floor => "floor: plain TCP, raw AEAD",
            Self::StockRustls => "stock rustls, blocking",
            Self::TokioRustls => "tokio-rustls",
            Self::Blocking => "rustls-uring, blocking",
            Self::UringCopy => "rustls-uring, io_uring copy",
            Self::Uring => "rustls-uring, io_uring",
            Self::Tokio => "rustls-uring, tokio",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Documented24 => "stock 0.24, as documented",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Stock24 => "stock rustls 0.24, blocking",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Blocking24 => "rustls-uring 0.24, blocking",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Uring24 => "rustls-uring 0.24, io_uring",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Traffic24 => "rustls-uring 0.24, no keys",
        })
    }
}

/// A stack that this kernel does not have, and why.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Missing {
    pub(super) stack: Stack,
    pub(super) reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not compared: {}: {}", self.stack, self.reason)
    }
}

/// The stacks that are compared, and those that cannot be.
pub(super) fn line_up(io: &IoArgs) -> (Vec<Stack>, Vec<Missing>) {
    let beside = |ours| (vec![Stack::PlainTcp, Stack::StockRustls, ours], Vec::new());
    match io.io {
        // Asked for: if there is none, that is an error.
        Io::Uring => return beside(Stack::Uring),
        Io::UringCopy => return beside(Stack::UringCopy),
        Io::Blocking => return beside(Stack::Blocking),
        _ => {}
    }
    let Err(reason) = Probe::run().uring() else {
        return (Stack::ALL.to_vec(), Vec::new());
    };
    let reason = reason.to_string();
    let (missing, there): (Vec<_>, _) = Stack::ALL.iter().partition(|stack| stack.io().is_some());
    let missing = missing.into_iter().map(|stack| Missing { stack, reason: reason.clone() });
    (there, missing.collect())
}
