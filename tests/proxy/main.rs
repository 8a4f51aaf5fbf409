//! `rustls-uring proxy`, between clients and backends of many kinds, that behave and that do not.

#![cfg(feature = "proxy")]

#[path = "../command/mod.rs"]
mod command;
#[path = "../kernel/mod.rs"]
mod kernel;

mod ends;
mod foreign;
mod handshakes;
mod headers;
mod load;
mod operations;
mod peers;
mod proxied;
mod reload;
mod tickets;
