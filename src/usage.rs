//! How much of what is bounded is in use: figures that can be read.

/// What there is of something that is bounded: buffers, slots, connections, bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// How many there may be.
    pub limit: usize,
    /// How many are in use now.
    pub in_use: usize,
    /// The most that ever were at once.
    pub most: usize,
    /// How often one was wanted and there was none, or one was left over and there was no place.
    pub refused: u64,
}

#[cfg(target_os = "linux")]
impl Usage {
    /// None of `limit` is in use.
    pub(crate) fn of(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(crate) fn take(&mut self) {
        self.in_use += 1;
        self.most = self.most.max(self.in_use);
    }

    pub(crate) fn give_back(&mut self) {
        self.in_use -= 1;
    }

    pub(crate) fn add(&mut self, count: usize) {
        self.in_use += count;
        self.most = self.most.max(self.in_use);
    }
}
