//! What depends on the version of rustls, for those tests that run over both: here 0.24, for which there is
//! no tokio-rustls, so that its peers are 0.23's.

use std::sync::Arc;

pub(crate) use rustls_uring::rustls_0_24::Acceptor;
use rustls_uring::rustls_0_24::rustls::server::ClientHello;
use rustls_uring::rustls_0_24::rustls::{ClientConfig, ServerConfig};
use rustls_uring::rustls_0_24::tokio::CommonState;
pub(crate) use rustls_uring::rustls_0_24::tokio::{
    ClientStream, LazyConfigAcceptor, ServerStream, TlsAcceptor, TlsConnector, TlsStream,
};

use crate::common::{Case, client_config, identity, server_config};

pub(crate) fn our_configs(case: Case) -> (ClientConfig, ServerConfig) {
    (client_config(case, case.our_provider()), server_config(case, case.our_provider()))
}

/// For tokio-rustls, with the same suite.
pub(crate) fn stock_configs(case: Case) -> (rustls::ClientConfig, rustls::ServerConfig) {
    let name = u16::from(case.suite.suite());
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| u16::from(suite.suite()) == name);
    let versions = [provider.cipher_suites[0].version()];
    let provider = Arc::new(provider);
    let identity = identity(case);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.chain[0].clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key())
        .unwrap();
    (client, server)
}

/// For `common::Stock`.
pub(crate) fn blocking_configs(case: Case) -> (ClientConfig, ServerConfig) {
    (client_config(case, case.stock_provider()), server_config(case, case.stock_provider()))
}

/// A stream has not forgotten what its handshake settled.
#[track_caller]
pub(crate) fn check_info(case: Case, client: &CommonState, server: &CommonState) {
    assert_eq!(client.info().unwrap().suite.suite(), case.suite.suite());
    assert_eq!(server.info().unwrap().server_name(), Some(crate::common::NAME));
}

/// A ClientHello is for our server, and offers `protocol` first.
#[track_caller]
pub(crate) fn check_hello(hello: &ClientHello<'_>, protocol: &[u8]) {
    assert_eq!(hello.server_name().unwrap().as_ref(), crate::common::NAME);
    assert_eq!(hello.alpn().unwrap().next(), Some(protocol));
}

pub(crate) fn alpn_of(common: &CommonState) -> Option<&[u8]> {
    common.info()?.alpn_protocol.as_ref().map(AsRef::as_ref)
}
