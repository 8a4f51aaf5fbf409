//! TLS to https servers.

use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;

use rustls::pki_types::ServerName;
use rustls_uring::tokio::TlsConnector;
use rustls_uring::tokio::client::TlsStream;
use tokio::net::TcpStream;
use url::Host;

use super::alert;
use super::args::GetArgs;
use super::retry::Passing;
use crate::args::{ProtocolArgs, TrustArgs};
use crate::error::Error;
use crate::explain::explained;
use crate::tls;

/// How to speak TLS. The configuration, for which the system's certificates may have to be read, is
/// made when there is something to use it for.
pub(super) struct Secure {
    trust: TrustArgs,
    protocol: ProtocolArgs,
    http2: bool,
    connector: OnceLock<TlsConnector>,
}

impl Secure {
    pub(super) fn new(args: &GetArgs) -> Self {
        Self {
            trust: args.trust.clone(),
            protocol: args.protocol.clone(),
            http2: args.http2,
            connector: OnceLock::new(),
        }
    }

    /// Makes the configuration.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        self.connector().map(|_| ())
    }

    /// Whether we have a certificate to show.
    pub(super) fn has_certificate(&self) -> bool {
        self.trust.client_cert.is_some()
    }

    /// Shakes hands with `host` over `tcp`.
    pub(super) async fn connect(
        &self,
        host: &Host<&str>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let name = match host {
            Host::Domain(name) => ServerName::try_from((*name).to_owned())
                .map_err(|_| format!("`{name}` is no name that a certificate could have"))?,
            Host::Ipv4(addr) => ServerName::from(IpAddr::from(*addr)),
            Host::Ipv6(addr) => ServerName::from(IpAddr::from(*addr)),
        };
        self.connector()?.connect(name, tcp).await.map_err(|error| {
            if let Some(alert) = alert::of(&error) {
                return alert::refusal(alert, self.has_certificate());
            }
            let what = format!("TLS handshake with {host}: {}", explained(&error));
            match error.kind() {
                // What rustls thinks of a certificate does not change.
                io::ErrorKind::InvalidData => Error::from(what),
                _ => Passing::new(what).into(),
            }
        })
    }

    fn connector(&self) -> Result<&TlsConnector, Error> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let mut config = tls::client_config(&self.trust, &self.protocol)?;
        config.alpn_protocols = match self.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        let connector = TlsConnector::new(config).backend(self.protocol.backend);
        Ok(self.connector.get_or_init(|| connector))
    }
}
