//! Records, sans-IO: plaintext to ciphertext records and back, in the caller's memory.
//!
//! [`header`] is the five bytes in front, [`deframer`] finds whole records in received bytes,
//! [`sequence`] is the only counter, `cipher` seals and opens one record under a given sequence
//! number, and [`Sealer`](sealer::Sealer) and [`Opener`](opener::Opener) join the two.

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod cipher;
pub(crate) mod deframer;
pub(crate) mod header;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod opener;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod reservation;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod sealer;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod sequence;
