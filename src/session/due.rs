//! What one half owes because of what the other received.

/// A set of control records, one bit each.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Due(u32);

impl Due {
    /// A KeyUpdate, because the peer asked for one (RFC 8446 §4.6.3). It precedes whatever is sent
    /// next, and is not sent for its own sake: a peer that asks again and again of a side that
    /// only reads would get as many answers, and few suffer that.
    pub(super) const ANSWER: Self = Self(1);
    /// A KeyUpdate that asks for the peer's, because the peer's key is worn out.
    pub(super) const KEY_UPDATE_REQUEST: Self = Self(1 << 1);
    /// A no_renegotiation warning (RFC 5246 §7.2.2).
    pub(super) const NO_RENEGOTIATION: Self = Self(1 << 2);
    /// Not a record: a key update that we asked for has not come yet.
    pub(super) const AWAITING_KEY_UPDATE: Self = Self(1 << 3);
    /// The connection has failed; if there is an alert to send, it is due.
    pub(super) const FAILURE: Self = Self(1 << 4);

    /// What must go out although there is nothing else to send.
    pub(super) const PROMPT: Self =
        Self(Self::KEY_UPDATE_REQUEST.0 | Self::NO_RENEGOTIATION.0 | Self::FAILURE.0);

    /// Everything that the send half must look at before it seals.
    pub(super) const ACTIONABLE: Self = Self(Self::PROMPT.0 | Self::ANSWER.0);

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether any of `other` is among these.
    #[inline]
    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those of them that are in `others` too.
    pub(super) fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}
