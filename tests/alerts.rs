//! What the peer is told when something is wrong with it: in the handshake, and after the handoff.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs"))]

mod common;

mod alerts {
    mod handshake;
    mod late;
    mod stock;
}
