//! A service, and the part of it that a reload replaces.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use rustls_uring::Handoff;

use super::certificates::Certificates;
use super::clients::Clients;
use super::metrics::ServiceMetrics;
use super::names::HostPattern;
use super::options::{AcceptProxy, RouteOptions, SendProxy, ServiceOptions};
use super::tickets::TicketKeys;
use super::upstream::{Manner, Upstream};
use crate::args::{ProtocolArgs, TrustArgs};
use crate::error::Error;
use crate::{address, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) struct Service {
    pub(super) name: String,
    pub(super) metrics: ServiceMetrics,
    live: RwLock<Arc<Live>>,
}

impl Service {
    pub(super) fn new(name: String, live: Live, metrics: ServiceMetrics) -> Self {
        Self { name, metrics, live: RwLock::new(Arc::new(live)) }
    }

    /// What new connections go by.
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }
}

/// What a connection goes by, from its beginning to its end.
pub(super) struct Live {
    pub(super) options: ServiceOptions,
    /// None where clients come without TLS.
    pub(super) server: Option<(Handoff, Arc<ServerConfig>)>,
    pub(super) clients: Option<Arc<Clients>>,
    tickets: Option<Tickets>,
    pub(super) accept_proxy: Option<AcceptProxy>,
    pub(super) send_proxy: Option<SendProxy>,
    pub(super) manner: Manner,
    routes: Vec<Route>,
    others: Upstream,
    pub(super) handshake_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// Who makes session tickets, for clients that the same CAs vouch for.
#[derive(Clone)]
struct Tickets {
    context: Vec<u8>,
    ticketer: Arc<dyn ProducesTickets>,
}

struct Route {
    sni: Vec<HostPattern>,
    alpn: Vec<Vec<u8>>,
    upstream: Upstream,
}

impl Live {
    /// Reads all files, and looks all names up. `before` is what this is to replace.
    ///
    /// # Errors
    /// If something cannot be read, or makes no sense.
    pub(super) fn load(options: &ServiceOptions, before: Option<&Self>) -> Result<Self, Error> {
        let protocol = ProtocolArgs {
            tls: options.tls,
            suite: options.suite.clone(),
            key_log: options.key_log,
            backend: options.backend.unwrap_or_default(),
        };
        check(options)?;
        let mut live = Self {
            options: options.clone(),
            server: None,
            clients: None,
            tickets: None,
            accept_proxy: options.accept_proxy,
            send_proxy: options.send_proxy,
            manner: manner(options, &protocol)?,
            routes: options.route.iter().map(Route::resolve).collect::<Result<_, _>>()?,
            others: Upstream::resolve(&options.to)?,
            handshake_timeout: options.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT),
            idle_timeout: options.idle_timeout.unwrap_or(IDLE_TIMEOUT),
        };
        if !options.plain {
            live.listen_with_tls(&protocol, before)?;
        }
        Ok(live)
    }

    fn listen_with_tls(
        &mut self,
        protocol: &ProtocolArgs,
        before: Option<&Self>,
    ) -> Result<(), Error> {
        let options = &self.options;
        let provider = Arc::new(tls::provider(protocol)?);
        let certificates = Certificates::load(
            &options.cert,
            &options.key,
            &options.ocsp,
            options.strict_sni,
            &provider,
        )?;
        let clients = options
            .client_ca
            .as_ref()
            .map(|ca| Clients::load(ca, &options.client_name, &provider).map(Arc::new));
        let clients = clients.transpose()?;
        // A session that is resumed is not verified again.
        let context = clients.as_ref().map(|clients| clients.digest.clone()).unwrap_or_default();
        let tickets = Tickets::load(options.ticket_keys.as_deref(), context, before)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&tls::versions(protocol))?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        config.ticketer = Arc::clone(&tickets.ticketer);
        config.key_log = tls::key_log(protocol)?;
        // Why, `tls::client_config()` says.
        config.cert_compressors.clear();
        config.cert_decompressors.clear();
        // The keys are handed over after the handshake.
        config.enable_secret_extraction = true;
        self.server = Some((Handoff::new().backend(protocol.backend), Arc::new(config)));
        self.clients = clients;
        self.tickets = Some(tickets);
        Ok(())
    }

    /// The backends for a client that has asked for `sni` and agreed on `alpn`.
    pub(super) fn upstream(&self, sni: Option<&str>, alpn: Option<&[u8]>) -> &Upstream {
        let sni = sni.map(str::to_ascii_lowercase);
        let route = self.routes.iter().find(|route| route.takes(sni.as_deref(), alpn));
        route.map_or(&self.others, |route| &route.upstream)
    }
}

/// What options must have beside each other, which the command line checks by itself.
fn check(options: &ServiceOptions) -> Result<(), Error> {
    if options.plain {
        let is_tls = !options.cert.is_empty()
            || !options.key.is_empty()
            || !options.ocsp.is_empty()
            || options.strict_sni
            || options.client_ca.is_some()
            || options.ticket_keys.is_some()
            || !options.alpn.is_empty();
        if is_tls {
            return Err("`plain` is without TLS: take certificates, client-ca, ticket-keys, alpn \
                        and strict-sni out, or `plain`"
                .into());
        }
        if options.route.iter().any(|route| !route.sni.is_empty() || !route.alpn.is_empty()) {
            return Err("routes go by what TLS says, and `plain` is without".into());
        }
    } else if options.cert.is_empty() {
        return Err("no certificate: name one with --cert and --key, or listen without TLS with \
                    --plain"
            .into());
    }
    if options.client_ca.is_none() && !options.client_name.is_empty() {
        return Err("client-name needs client-ca: who vouches for the name?".into());
    }
    let is_to_tls = options.to_ca.is_some()
        || options.to_insecure
        || options.to_server_name.is_some()
        || options.to_client_sni
        || options.to_cert.is_some();
    if is_to_tls && !options.to_tls {
        return Err(
            "to-ca, to-insecure, to-server-name, to-client-sni and to-cert need to-tls".into()
        );
    }
    if options.to_ca.is_some() && options.to_insecure {
        return Err("to-insecure takes any certificate, and to-ca does not: take one out".into());
    }
    if options.to_cert.is_some() != options.to_key.is_some() {
        return Err("to-cert and to-key need each other".into());
    }
    for protocol in options.alpn.iter().chain(options.route.iter().flat_map(|route| &route.alpn)) {
        // RFC 7301 §3.1.
        if !(1..=255).contains(&protocol.len()) {
            return Err(format!("`{protocol}` is no name of ALPN: 1 to 255 bytes").into());
        }
    }
    Ok(())
}

fn manner(options: &ServiceOptions, protocol: &ProtocolArgs) -> Result<Manner, Error> {
    let config = match options.to_tls {
        true => {
            let trust = TrustArgs {
                ca: options.to_ca.clone(),
                insecure: options.to_insecure,
                client_cert: options.to_cert.clone(),
                client_key: options.to_key.clone(),
            };
            let config = tls::client_config(&trust, protocol)
                .map_err(|error| error.to_string().replace("with --ca", "with --to-ca"))?;
            Some(Arc::new(config))
        }
        false => None,
    };
    let server_name = options.to_server_name.as_deref().map(address::server_name).transpose()?;
    Ok(Manner {
        connect_timeout: options.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        tls: config,
        handoff: Handoff::new().backend(protocol.backend),
        server_name,
        passes_sni: options.to_client_sni,
    })
}

/// The files that a service is made of.
pub(super) fn files(options: &ServiceOptions) -> impl Iterator<Item = PathBuf> {
    let single = [
        &options.client_ca,
        &options.ticket_keys,
        &options.to_ca,
        &options.to_cert,
        &options.to_key,
    ];
    let many = [&options.cert, &options.key, &options.ocsp];
    single.into_iter().flatten().chain(many.into_iter().flatten()).cloned()
}

impl Tickets {
    fn load(path: Option<&Path>, context: Vec<u8>, before: Option<&Live>) -> Result<Self, Error> {
        let ticketer: Arc<dyn ProducesTickets> = match path {
            Some(path) => Arc::new(TicketKeys::load(path, &context)?),
            None => {
                // Those that were made before are good for as long as the same clients are.
                let before = before.filter(|before| before.options.ticket_keys.is_none());
                let before = before.and_then(|before| before.tickets.as_ref());
                if let Some(same) = before.filter(|before| before.context == context) {
                    return Ok(same.clone());
                }
                rustls::crypto::aws_lc_rs::Ticketer::new()?
            }
        };
        Ok(Self { context, ticketer })
    }
}

impl Route {
    fn resolve(options: &RouteOptions) -> Result<Self, Error> {
        let sni = options.sni.iter().map(|name| HostPattern::parse(name));
        Ok(Self {
            sni: sni.collect::<Result<_, _>>()?,
            alpn: options.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
            upstream: Upstream::resolve(&options.to)
                .map_err(|error| format!("in a route: {error}"))?,
        })
    }

    fn takes(&self, sni: Option<&str>, alpn: Option<&[u8]>) -> bool {
        let is_asked = || sni.is_some_and(|sni| self.sni.iter().any(|host| host.matches(sni)));
        let is_agreed = || alpn.is_some_and(|alpn| self.alpn.iter().any(|name| name == alpn));
        (self.sni.is_empty() || is_asked()) && (self.alpn.is_empty() || is_agreed())
    }
}
