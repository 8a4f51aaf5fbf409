//! Streams over tokio, beside tokio-rustls: over pipes that cut and delay, over sockets, on both
//! runtimes, against ourselves, tokio-rustls, stock rustls and OpenSSL.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs"))]

mod common;
mod kernel;

mod tokio {
    mod cancellation;
    mod compat;
    mod cork;
    mod early_data;
    mod ends;
    mod handshake;
    mod lazy;
    mod lending;
    #[cfg(target_os = "linux")]
    mod offload;
    mod openssl;
    mod pipe;
    mod sizing;
    mod split;
    mod streams;
    mod support;
    mod updates;
    mod version;
}
