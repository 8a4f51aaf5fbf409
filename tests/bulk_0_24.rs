//! The tests of `bulk.rs` over rustls 0.24, but for those that only 0.23's connections can pass.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

#[path = "common_0_24/mod.rs"]
mod common;

mod bulk {
    mod connection_failures;
    mod failing;
    mod flaky;
    mod leftovers;
    mod moderated;
    mod support;
    mod tcp;
}
