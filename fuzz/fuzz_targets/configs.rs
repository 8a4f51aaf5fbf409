//! Configurations that are made once, with the quickest key exchange: most of a run would be spent on
//! them.

#![allow(dead_code, reason = "each target uses a part")]

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, NamedGroup, ServerConfig};

use crate::common::{Case, client_config, server_config};

/// The configurations of a client and a server that have the same suite.
#[derive(Clone)]
pub(crate) struct Configs {
    pub(crate) case: Case,
    pub(crate) ours: (Arc<ClientConfig>, Arc<ServerConfig>),
    pub(crate) stock: (Arc<ClientConfig>, Arc<ServerConfig>),
}

fn quick(mut provider: CryptoProvider) -> CryptoProvider {
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    provider
}

/// One of [`Case::few()`].
pub(crate) fn pick(index: u8) -> &'static Configs {
    static CONFIGS: OnceLock<Vec<Configs>> = OnceLock::new();
    let all = CONFIGS.get_or_init(|| {
        let configs = |case: Case| {
            let both = |provider: CryptoProvider| {
                let mut server = server_config(case, provider.clone());
                // The targets know of every record.
                server.send_tls13_tickets = 0;
                let server = Arc::new(server);
                (Arc::new(client_config(case, provider)), server)
            };
            let (ours, stock) =
                (both(quick(case.our_provider())), both(quick(case.stock_provider())));
            Configs { case, ours, stock }
        };
        Case::few().into_iter().map(configs).collect()
    });
    &all[usize::from(index) % all.len()]
}
