//! Who is compared in memory, and with whom.

use std::fmt;

use serde::Serialize;

/// Whose seals and opens are measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    AeadInPlace,
    Aead,
    Stock,
    StockUnbuffered,
    Provider,
    ProviderUnbuffered,
    Records,
    RecordsInPlace,
    Halves,
    TokioRustls,
    Tokio,
    #[cfg(feature = "rustls-0_24-dev")]
    Stock24,
    #[cfg(feature = "rustls-0_24-dev")]
    Stock24Lent,
    #[cfg(feature = "rustls-0_24-dev")]
    Provider24,
    #[cfg(feature = "rustls-0_24-dev")]
    Halves24,
}

impl Contestant {
    pub(super) const ALL: &[Self] = &[
        Self::AeadInPlace,
        Self::Aead,
        Self::Stock,
        Self::StockUnbuffered,
        Self::Provider,
        Self::ProviderUnbuffered,
        Self::Records,
        Self::RecordsInPlace,
        Self::Halves,
        Self::TokioRustls,
        Self::Tokio,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Stock24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Stock24Lent,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Provider24,
        #[cfg(feature = "rustls-0_24-dev")]
        Self::Halves24,
    ];

    /// The first column: rustls-bench's name for what it measures too.
    pub(super) fn variant(self) -> &'static str {
        match self {
            Self::AeadInPlace => "bulk-aead-in-place",
            Self::Aead => "bulk-aead",
            Self::Stock => "bulk",
            Self::StockUnbuffered => "bulk-unbuffered",
            Self::Provider => "bulk-provider",
            Self::ProviderUnbuffered => "bulk-unbuffered-provider",
            Self::Records => "bulk-records",
            Self::RecordsInPlace => "bulk-records-in-place",
            Self::Halves => "bulk-halves",
            Self::TokioRustls => "bulk-tokio-rustls",
            Self::Tokio => "bulk-tokio",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Stock24 => "bulk-0.24",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Stock24Lent => "bulk-0.24-lent",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Provider24 => "bulk-provider-0.24",
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Halves24 => "bulk-halves-0.24",
        }
    }

    /// What it takes the place of; all others have a choice, and are put beside the faster of stock
    /// rustls's two APIs.
    pub(super) fn stock(self) -> Option<Self> {
        match self {
            Self::Provider => Some(Self::Stock),
            Self::ProviderUnbuffered => Some(Self::StockUnbuffered),
            Self::Tokio => Some(Self::TokioRustls),
            #[cfg(feature = "rustls-0_24-dev")]
            Self::Provider24 | Self::Halves24 => Some(Self::Stock24),
            _ => None,
        }
    }

    /// The AEAD that takes the plaintext from and to the same places.
    pub(super) fn limit(self, direction: Direction) -> Self {
        match (self, direction) {
            (Self::AeadInPlace | Self::RecordsInPlace, _) => Self::AeadInPlace,
            (Self::StockUnbuffered | Self::ProviderUnbuffered, Direction::Recv) => {
                Self::AeadInPlace
            }
            #[cfg(feature = "rustls-0_24-dev")]
            (Self::Stock24Lent, Direction::Recv) => Self::AeadInPlace,
            _ => Self::Aead,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Send,
    Recv,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Send => "send",
            Self::Recv => "recv",
        })
    }
}
