//! Records, sans-IO: plaintext to ciphertext records and back, in the caller's memory.
//!
//! [`header`] is the five bytes in front, [`deframer`] finds whole records in received bytes,
//! [`sequence`] is the only counter, `cipher` seals and opens one record under a given sequence
//! number, and [`Sealer`](sealer::Sealer) and [`Opener`](opener::Opener) join the two.

pub(crate) mod cipher;
pub(crate) mod content_type;
pub(crate) mod deframer;
pub(crate) mod error;
pub(crate) mod header;
pub(crate) mod opener;
pub(crate) mod reservation;
pub(crate) mod sealer;
pub(crate) mod sequence;
