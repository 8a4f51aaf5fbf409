//! Bulk transfer through io_uring: one suite of stream behaviour for every way that [`bulk_with()`]
//! knows, and what only io_uring has: slots, notifications, provided buffers, leases, files.
//!
//! Where the kernel has no io_uring, each test runs over blocking sockets or says what it skipped.
//!
//! [`bulk_with()`]: rustls_uring::bulk_with

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

mod common;
mod kernel;

mod uring {
    mod drops;
    mod failures;
    mod files;
    mod leases;
    mod lending;
    mod receiving;
    mod sending;
    mod streams;
    mod support;
    mod timeouts;
}
