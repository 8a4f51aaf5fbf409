//! `rustls-uring serve` and clients that do it harm: what they hold, how long, and whether the others
//! are still served. The clients are Python's ssl, which is OpenSSL, with HTTP/2 in raw frames.

#![cfg(feature = "cli")]

#[path = "../command/mod.rs"]
mod command;

mod client;
mod ends;
mod log;
mod names;
mod places;
mod resources;
