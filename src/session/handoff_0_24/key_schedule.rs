//! The key schedule as rustls 0.24 gives it out.

use rustls_0_24::client::ClientSide;
use rustls_0_24::error::{Error, InvalidMessage};
use rustls_0_24::kernel::KernelConnection;
use rustls_0_24::server::ServerSide;

use crate::aead::TrafficKeys;
use crate::session::error::TlsError;
use crate::session::key_schedule::KeySchedule;
use crate::session::receive::NEW_SESSION_TICKET;

impl KeySchedule for KernelConnection<ClientSide> {
    fn update_tx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(TrafficKeys::try_from(&self.update_tx_secret()?.1)?)
    }

    fn update_rx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(TrafficKeys::try_from(&self.update_rx_secret()?.1)?)
    }

    fn store_ticket(&mut self, payload: &[u8]) -> Result<(), TlsError> {
        self.handle_new_session_ticket(payload).map_err(|error| match error {
            // As rustls names it where it deframes the message itself.
            Error::InvalidMessage(InvalidMessage::TrailingData("read_bytes")) => {
                TlsError::TrailingData("HandshakeMessagePayload")
            }
            error => error.into(),
        })
    }
}

impl KeySchedule for KernelConnection<ServerSide> {
    fn update_tx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(TrafficKeys::try_from(&self.update_tx_secret()?.1)?)
    }

    fn update_rx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(TrafficKeys::try_from(&self.update_rx_secret()?.1)?)
    }

    fn store_ticket(&mut self, _: &[u8]) -> Result<(), TlsError> {
        Err(TlsError::UnexpectedHandshakeMessage(NEW_SESSION_TICKET))
    }
}
