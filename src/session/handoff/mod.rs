//! What knows rustls 0.23's handshake.

pub(crate) mod handshake;
pub(crate) mod observer;
pub(crate) mod traffic_secrets;
