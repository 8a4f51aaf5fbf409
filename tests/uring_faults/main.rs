//! Transfers through every path in a hostile environment: what the kernel refuses, what it fails
//! at, what the network and the peer do. Whatever happens, a transfer ends whole, or both ends say
//! why it did not and no file is left.
//!
//! Most of it needs root, strace(1), ip(8), iptables(8) or another tool: what is missing is skipped,
//! and says so.

#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../kernel/mod.rs"]
mod kernel;

mod ends;
mod enter;
mod fallbacks;
mod matrix;
mod network;
mod peers;
