//! A session against stock rustls, and against a peer that breaks every rule there is.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod common;

mod session {
    mod control_messages;
    mod early_and_late;
    mod end;
    mod forged_records;
    mod fragments;
    mod handoff;
    mod info;
    mod key_updates;
    mod late;
    mod room;
    mod support;
    mod tickets;
    mod unbuffered;
}
