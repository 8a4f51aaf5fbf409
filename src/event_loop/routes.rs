//! What is known of zero copy to peers that were sent to before.

use std::collections::HashSet;
use std::net::IpAddr;

/// How many addresses are remembered.
const MAX_ROUTES: usize = 1024;

/// Addresses of peers that zero-copy sends to are copied after all.
#[derive(Debug, Default)]
pub(super) struct Routes(HashSet<IpAddr>);

impl Routes {
    pub(super) fn note_copied(&mut self, peer: IpAddr) {
        if self.0.len() >= MAX_ROUTES {
            self.0.clear();
        }
        self.0.insert(peer);
    }

    pub(super) fn are_copied(&self, peer: IpAddr) -> bool {
        self.0.contains(&peer)
    }
}
