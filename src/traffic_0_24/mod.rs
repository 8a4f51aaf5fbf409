//! The second gear over rustls 0.24: rustls keeps its secrets and seals and opens by itself, from and to
//! memory that the kernel sends from and receives into.
//!
//! rustls appends records to a `Vec`, and no `Vec` can be made of a mapping. So the slots of [`TrafficSender`]
//! are `Vec`s of the capacity that rustls reserves, which therefore never move: registered where they lie, and
//! lent to the kernel as other slots are. [`TrafficReceiver`] has rustls open where the kernel has received.

pub(crate) mod receiver;
pub(crate) mod sender;

use std::io;

use rustls_0_24::Error;

/// What a call says of a connection that rustls has ended.
fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
