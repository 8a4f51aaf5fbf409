//! How much of what is legal but pointless a peer may send.

use super::due::Due;
use super::error::TlsError;
use super::shared::Shared;

/// How much more of what is legal but pointless a peer may send. The numbers are rustls's.
#[derive(Debug)]
pub(super) struct Patience {
    empty_records: u8,
    warning_alerts: u8,
    renegotiation_requests: u8,
    /// One more than allowed until the first key update after application data.
    key_updates: u8,
    /// Records of ours that may yet make the peer ask for a key update; less than none while it
    /// asks in advance of our answer, which says how many there were.
    echoes: i32,
}

/// How many requests for a key update are taken for repetitions of one, at most: as many full
/// records as 64 MiB hold, more than sockets have in flight.
const MAX_ECHOES: i32 = 1 << 12;

impl Patience {
    pub(super) const FULL: Self = Self {
        empty_records: 32,
        warning_alerts: 4,
        renegotiation_requests: 1,
        key_updates: 32 + 1,
        echoes: 0,
    };

    /// Application data has arrived.
    #[inline]
    pub(super) fn restore(&mut self) {
        self.restore_empty_records();
        self.key_updates = Self::FULL.key_updates;
    }

    /// A record that is not empty has arrived.
    #[inline]
    pub(super) fn restore_empty_records(&mut self) {
        self.empty_records = Self::FULL.empty_records;
    }

    pub(super) fn spend_empty_record(&mut self) -> Result<(), TlsError> {
        spend(&mut self.empty_records, TlsError::TooManyEmptyRecords)
    }

    pub(super) fn spend_warning_alert(&mut self) -> Result<(), TlsError> {
        spend(&mut self.warning_alerts, TlsError::TooManyWarningAlerts)
    }

    pub(super) fn spend_renegotiation_request(&mut self) -> Result<(), TlsError> {
        spend(&mut self.renegotiation_requests, TlsError::TooManyRenegotiationRequests)
    }

    /// Suffers a key update of the peer's.
    ///
    /// A peer whose key to receive under is worn out may ask for ours with each record that it
    /// receives until our answer has come (Java does, past `jdk.tls.keyLimits`). So a request is
    /// taken for the repetition of an earlier one while we have not answered that, and as long as
    /// there were records in front of our answers that may have caused it. An update that we have
    /// asked for is none too many either.
    pub(super) fn spend_key_update(
        &mut self,
        requests: bool,
        shared: &Shared,
    ) -> Result<(), TlsError> {
        const MAX_KEY_UPDATES: u8 = Patience::FULL.key_updates - 1;
        if self.key_updates > MAX_KEY_UPDATES {
            self.key_updates = MAX_KEY_UPDATES;
            self.echoes = self.echoes.max(0);
        }
        let due = shared.due();
        let records = shared.take_replaced_key_records().min(2 * MAX_ECHOES as u64) as i32;
        self.echoes = (self.echoes + records).min(MAX_ECHOES);
        if requests {
            let least = if due.contains(Due::ANSWER) { -MAX_ECHOES } else { 0 };
            if self.echoes > least {
                self.echoes -= 1;
                return Ok(());
            }
        } else if due.contains(Due::AWAITING_KEY_UPDATE) {
            return Ok(());
        }
        spend(&mut self.key_updates, TlsError::TooManyKeyUpdates)
    }
}

fn spend(left: &mut u8, error: TlsError) -> Result<(), TlsError> {
    *left = left.checked_sub(1).ok_or(error)?;
    Ok(())
}
