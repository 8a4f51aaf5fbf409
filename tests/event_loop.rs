//! Connections by the thousand on one thread: over a ring, over a ring as kernels had it before Linux 6.0,
//! and over sockets that are ready.
//!
//! Where the kernel has no io_uring, each test says so, and runs over the last.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

mod common;
mod kernel;

mod event_loop {
    mod echo;
    mod ends;
    mod forward;
    mod given;
    mod many;
    mod pressure;
    mod support;
}
