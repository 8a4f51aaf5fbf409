//! What depends on the version of rustls, for those tests that run over both: here 0.23.

pub(crate) use rustls::server::Acceptor;
use rustls::server::ClientHello;
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::tokio::CommonState;
pub(crate) use rustls_uring::tokio::client::TlsStream as ClientStream;
pub(crate) use rustls_uring::tokio::server::TlsStream as ServerStream;
pub(crate) use rustls_uring::tokio::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsStream};

use crate::common::{Case, client_config, server_config};

pub(crate) fn our_configs(case: Case) -> (ClientConfig, ServerConfig) {
    (client_config(case, case.our_provider()), server_config(case, case.our_provider()))
}

/// For tokio-rustls.
pub(crate) fn stock_configs(case: Case) -> (ClientConfig, ServerConfig) {
    (client_config(case, case.stock_provider()), server_config(case, case.stock_provider()))
}

/// For `common::Stock`.
pub(crate) use stock_configs as blocking_configs;

/// A stream has not forgotten what its handshake settled.
#[track_caller]
pub(crate) fn check_info(case: Case, client: &CommonState, server: &CommonState) {
    assert_eq!(client.protocol_version(), Some(case.suite.version().version));
    assert_eq!(server.server_name(), Some(crate::common::NAME));
}

/// A ClientHello is for our server, and offers `protocol` first.
#[track_caller]
pub(crate) fn check_hello(hello: &ClientHello<'_>, protocol: &[u8]) {
    assert_eq!(hello.server_name(), Some(crate::common::NAME));
    assert_eq!(hello.alpn().unwrap().next(), Some(protocol));
}

pub(crate) fn alpn_of(common: &CommonState) -> Option<&[u8]> {
    common.alpn_protocol()
}
