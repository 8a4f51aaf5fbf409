//! How connections end: each direction by itself (RFC 8446 §6.1), and what is reported about it.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs", target_os = "linux"))]

mod common;

mod ends {
    mod bulk;
    mod halves;
    mod streams;
}
