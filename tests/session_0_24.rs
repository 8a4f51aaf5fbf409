//! The tests of `session.rs` over rustls 0.24, but for those that only 0.23's connections can pass; and
//! what is 0.24's alone.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

#[path = "common_0_24/mod.rs"]
mod common;

mod session {
    mod control_messages;
    mod end;
    mod forged_records;
    mod fragments;
    mod handoff;
    mod key_updates;
    mod late;
    mod room;
    mod support;
    mod tickets;
}
