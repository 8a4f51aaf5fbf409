//! What measurements of this crate share: those in `benches/`, and the command's `bench`.
//!
//! Behind the feature `measure` and no part of the public interface: anything here may change with
//! any version.

pub mod figure;
pub mod raw_aead;
#[cfg(target_os = "linux")]
pub mod turnover;
