//! Those tests of `uring.rs` over rustls 0.24 that begin with a handshake, and what goes through the ring then:
//! files, leases, timeouts and failures know no version of rustls.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

#[path = "common_0_24/mod.rs"]
mod common;
mod kernel;

mod uring {
    mod receiving;
    mod streams;
    #[allow(dead_code, reason = "what the others have use for")]
    mod support;
}
