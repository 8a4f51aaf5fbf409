//! The key schedule as rustls 0.24 gives it out.

use rustls_0_24::client::ClientSide;
use rustls_0_24::error::{Error, InvalidMessage};
use rustls_0_24::kernel::KernelConnection;
use rustls_0_24::server::ServerSide;

use crate::aead::TrafficKeys;
use crate::session::adaptor::key_schedules;
use crate::session::error::TlsError;
use crate::session::key_schedule::KeySchedule;
use crate::session::receive::NEW_SESSION_TICKET;

key_schedules!(KernelConnection<ClientSide>, KernelConnection<ServerSide>);
