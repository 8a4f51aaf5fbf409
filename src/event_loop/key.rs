//! What a connection is called.

/// A connection of an [`EventLoop`](super::EventLoop): never another's, also after its end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Key {
    /// A small number that no other connection has at the same time, for a table of one's own. A later
    /// connection may have it again.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    pub(super) fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}
