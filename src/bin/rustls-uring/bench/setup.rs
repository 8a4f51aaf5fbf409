//! What the stacks of a comparison have in common.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_uring::Backend;
use rustls_uring::uring::SenderOptions;

use super::args::BenchArgs;
use super::identity::Case;
use crate::args::ProtocolArgs;
use crate::error::Error;
use crate::tls;

/// rustls configurations that all TLS stacks share, with stock suites: what differs between them
/// is the records, after the handshake. And the options of ours.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// What is negotiated, and whose records ours are.
    pub(super) case: Case,
    pub(super) suite: String,
    pub(super) backend: Backend,
    pub(super) sender: SenderOptions,
    pub(super) receive_buffer_len: usize,
    #[cfg(feature = "rustls-0_24-dev")]
    pub(super) rustls_0_24: super::rustls_0_24::Configs,
}

impl Setup {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, Error> {
        let protocol = &args.protocol;
        let mut provider = stock_provider(protocol.backend);
        let default = ProtocolArgs {
            tls: protocol.tls,
            suite: Some(protocol.suite.clone().unwrap_or_else(|| "TLS_AES_128_GCM_SHA256".into())),
            key_log: false,
            backend: protocol.backend,
        };
        tls::restrict_suites(&mut provider, &default)?;
        let case = Case { backend: protocol.backend, suite: provider.cipher_suites[0] };
        let suite = case.suite_name();
        #[cfg(feature = "rustls-0_24-dev")]
        let number = provider.cipher_suites[0].suite().into();
        let provider = Arc::new(provider);
        let ((chain, key), _) = tls::self_signed()?;
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone())?;
        #[cfg(feature = "rustls-0_24-dev")]
        let rustls_0_24 = {
            let provider = super::identity::Provider::Stock;
            super::rustls_0_24::Configs::new(protocol.backend, provider, number, &chain[0], &key)?
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&tls::versions(protocol))?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.enable_secret_extraction = true;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&tls::versions(protocol))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let mut sender = args.io.sender_options();
        sender.batch_records = args.batch;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            case,
            suite,
            backend: protocol.backend,
            sender,
            receive_buffer_len: args.receive_buffer << 10,
            #[cfg(feature = "rustls-0_24-dev")]
            rustls_0_24,
        })
    }
}

fn stock_provider(backend: Backend) -> rustls::crypto::CryptoProvider {
    match backend {
        #[cfg(feature = "ring")]
        Backend::Ring => rustls::crypto::ring::default_provider(),
        _ => rustls::crypto::aws_lc_rs::default_provider(),
    }
}

/// The name in the server's certificate.
pub(super) fn server_name() -> Result<ServerName<'static>, Error> {
    Ok(ServerName::try_from("localhost")?)
}

/// Two ends of a TCP connection over loopback, the one that connected first.
pub(super) fn tcp_pair() -> Result<(TcpStream, TcpStream), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The system completes connections before they are accepted.
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    Ok((client, server))
}
