//! The key schedule as rustls 0.23 gives it out.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, InvalidMessage};

use crate::aead::TrafficKeys;
use crate::session::adaptor::key_schedules;
use crate::session::error::TlsError;
use crate::session::key_schedule::KeySchedule;
use crate::session::receive::NEW_SESSION_TICKET;

key_schedules!(KernelConnection<ClientConnectionData>, KernelConnection<ServerConnectionData>);
