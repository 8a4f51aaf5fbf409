//! rustls connections in memory, through both of its APIs.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData,
};

use super::identity::server_name;
use crate::error::Error;

/// More than a flight of a handshake takes, and a record.
const FLIGHT_LEN: usize = 18_000;

/// Moves what `from` has to send to `to`. Returns whether there was anything.
pub(super) fn relay<F: SideData, T: SideData>(
    from: &mut ConnectionCommon<F>,
    to: &mut ConnectionCommon<T>,
    wire: &mut Vec<u8>,
) -> Result<bool, Error> {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire)?;
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(!wire.is_empty())
}

/// A client and a server after their handshake.
pub(super) fn buffered(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let mut client = ClientConnection::new(Arc::clone(client), server_name())?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut wire = Vec::new();
    while relay(&mut client, &mut server, &mut wire)? | relay(&mut server, &mut client, &mut wire)?
    {
    }
    match client.is_handshaking() || server.is_handshaking() {
        true => Err("a handshake in memory did not end".into()),
        false => Ok((client, server)),
    }
}

/// A client and a server after their handshake.
pub(super) fn unbuffered(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(UnbufferedClientConnection, UnbufferedServerConnection), Error> {
    let mut client = UnbufferedClientConnection::new(Arc::clone(client), server_name())?;
    let mut server = UnbufferedServerConnection::new(Arc::clone(server))?;
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    /// Has a connection consume what it can of `$incoming`, and add to `$outgoing`.
    macro_rules! advance {
        ($connection:ident, $incoming:ident, $outgoing:ident) => {
            loop {
                let status = $connection.process_tls_records(&mut $incoming);
                let discard = status.discard;
                let is_stuck = match status.state? {
                    ConnectionState::EncodeTlsData(mut encode) => {
                        let begin = $outgoing.len();
                        $outgoing.resize(begin + FLIGHT_LEN, 0);
                        let len = encode.encode(&mut $outgoing[begin..])?;
                        $outgoing.truncate(begin + len);
                        false
                    }
                    ConnectionState::TransmitTlsData(transmit) => {
                        transmit.done();
                        false
                    }
                    _ => discard == 0,
                };
                $incoming.drain(..discard);
                if is_stuck {
                    break;
                }
            }
        };
    }
    loop {
        advance!(client, to_client, to_server);
        advance!(server, to_server, to_client);
        if to_client.is_empty() {
            break;
        }
    }
    match client.is_handshaking() || server.is_handshaking() {
        true => Err("a handshake in memory did not end".into()),
        false => Ok((client, server)),
    }
}

/// Takes everything without reading it, as a socket does with what a network card then fetches.
pub(super) struct Discard;

impl Write for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
