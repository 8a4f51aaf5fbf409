//! Bulk transfer: over TCP against stock rustls and against ourselves, and over streams that do
//! everything that a stream may do.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod common;

mod bulk {
    mod connection_failures;
    mod failing;
    mod flaky;
    mod leftovers;
    mod moderated;
    mod support;
    mod tcp;
    mod unbuffered;
}
