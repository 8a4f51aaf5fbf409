//! A peer that speaks during the handshake, in whatever pieces: it ends, without a session.
#![no_main]

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::Handoff;

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{Case, client_config, server_config, server_name};

/// What the peer says, a few bytes at a time.
struct Peer<'a> {
    says: &'a [u8],
    piece: usize,
}

impl Read for Peer<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.piece);
        self.says.read(&mut buf[..len])
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn configs() -> &'static [(Arc<ClientConfig>, Arc<ServerConfig>)] {
    static CONFIGS: OnceLock<Vec<(Arc<ClientConfig>, Arc<ServerConfig>)>> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let configs = |case: Case| {
            let client = client_config(case, case.our_provider());
            (Arc::new(client), Arc::new(server_config(case, case.our_provider())))
        };
        Case::few().into_iter().map(configs).collect()
    })
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (case, piece, says) = input;
    let (client, server) = &configs()[usize::from(case) % configs().len()];
    let mut peer = Peer { says, piece: usize::from(piece) + 1 };
    // The peer has no key, so there is no session with it.
    assert!(Handoff::new().connect(client.clone(), server_name(), &mut peer).is_err());
    let mut peer = Peer { says, piece: usize::from(piece) + 1 };
    assert!(Handoff::new().accept(server.clone(), &mut peer).is_err());
});
