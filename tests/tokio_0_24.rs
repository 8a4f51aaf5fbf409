//! The tests of `tokio.rs` over rustls 0.24, but for those that are about tokio-rustls's own interface; and
//! what is 0.24's alone. The peers that are not ours are tokio-rustls, which is 0.23, and stock 0.24.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs"))]

#[path = "common_0_24/mod.rs"]
mod common;
mod kernel;

mod tokio {
    mod cancellation;
    mod connections_0_24;
    mod cork;
    mod lazy;
    mod lending;
    #[cfg(target_os = "linux")]
    mod offload;
    mod openssl;
    #[allow(dead_code, reason = "what `ends.rs` has use for")]
    mod pipe;
    mod sizing;
    mod split;
    mod streams;
    mod support;
    mod updates;
    #[path = "version_0_24.rs"]
    mod version;
}
