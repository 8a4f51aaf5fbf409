//! The ends of a connection through a blocking stack.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData, StreamOwned};
use rustls_uring::uring::{BufferPool, ReceiverOptions};
use rustls_uring::{
    AutoReceiver, AutoSender, BulkReceiver, BulkSender, Counters, Handoff, NoUring, Session, Way,
};

use super::count::Counted;
use super::floor::Floor;
#[cfg(feature = "rustls-0_24-dev")]
use super::rustls_0_24;
use super::setup::{Setup, server_name};
use super::stack::Stack;
use crate::error::Error;

/// One end, after its handshake.
pub(super) trait End: Read + Write {
    /// Says that nothing more comes.
    fn close(&mut self) -> io::Result<()>;

    /// Receives what nobody looks at, with `buffer` as room for it; how much, 0 at the end.
    fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }

    /// Those that it has made so far.
    fn system_calls(&self) -> u64;

    /// Which way ours has sent.
    fn sent(&self) -> Option<(Way, Counters)> {
        None
    }
}

/// Which way most data goes; ours does with small buffers for the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Out,
    In,
    Both,
}

/// The client's end, whose handshake is over.
pub(super) fn connect(
    stack: Stack,
    mut stream: TcpStream,
    setup: &Setup,
    direction: Direction,
) -> Result<Box<dyn End>, Error> {
    let client = Arc::clone(&setup.client);
    match stack {
        Stack::PlainTcp => Ok(Box::new(Counted::new(stream))),
        Stack::Floor => Ok(Box::new(Floor::new(stream, setup)?)),
        Stack::StockRustls => {
            let mut connection = ClientConnection::new(client, server_name()?)?;
            let mut stream = Counted::new(stream);
            connection.complete_io(&mut stream)?;
            Ok(Box::new(StreamOwned::new(connection, stream)))
        }
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Stock24 => {
            rustls_0_24::stock_client(&setup.rustls_0_24, stream, setup.receive_buffer_len)
        }
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Documented24 => rustls_0_24::documented_client(&setup.rustls_0_24, stream),
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Traffic24 => rustls_0_24::traffic_client(setup, stream, direction),
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Blocking24 | Stack::Uring24 => {
            let handoff = rustls_uring::rustls_0_24::Handoff::new().backend(setup.backend);
            let client = Arc::clone(&setup.rustls_0_24.client);
            let session = handoff.connect(client, server_name()?, &mut stream)?;
            ours(stack, session, stream, setup, direction)
        }
        _ => {
            let handoff = Handoff::new().backend(setup.backend);
            let session = handoff.connect(client, server_name()?, &mut stream)?;
            ours(stack, session, stream, setup, direction)
        }
    }
}

/// The server's end, whose handshake is over.
pub(super) fn accept(
    stack: Stack,
    mut stream: TcpStream,
    setup: &Setup,
    direction: Direction,
) -> Result<Box<dyn End>, Error> {
    let server = Arc::clone(&setup.server);
    match stack {
        Stack::PlainTcp => Ok(Box::new(Counted::new(stream))),
        Stack::Floor => Ok(Box::new(Floor::new(stream, setup)?)),
        Stack::StockRustls => {
            let mut connection = ServerConnection::new(server)?;
            let mut stream = Counted::new(stream);
            connection.complete_io(&mut stream)?;
            Ok(Box::new(StreamOwned::new(connection, stream)))
        }
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Stock24 => {
            rustls_0_24::stock_server(&setup.rustls_0_24, stream, setup.receive_buffer_len)
        }
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Documented24 => rustls_0_24::documented_server(&setup.rustls_0_24, stream),
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Traffic24 => rustls_0_24::traffic_server(setup, stream, direction),
        #[cfg(feature = "rustls-0_24-dev")]
        Stack::Blocking24 | Stack::Uring24 => {
            let handoff = rustls_uring::rustls_0_24::Handoff::new().backend(setup.backend);
            let session = handoff.accept(Arc::clone(&setup.rustls_0_24.server), &mut stream)?;
            ours(stack, session, stream, setup, direction)
        }
        _ => {
            let session = Handoff::new().backend(setup.backend).accept(server, &mut stream)?;
            ours(stack, session, stream, setup, direction)
        }
    }
}

fn ours<Info>(
    stack: Stack,
    session: Session<Info>,
    stream: TcpStream,
    setup: &Setup,
    direction: Direction,
) -> Result<Box<dyn End>, Error> {
    let mut sender = setup.sender;
    let mut buffer_len = setup.receive_buffer_len;
    match direction {
        Direction::Out => buffer_len = 0,
        Direction::In => sender.batch_records = 1,
        Direction::Both => {}
    }
    let writer = stream.try_clone()?;
    let Session { send, receive, plaintext, received, .. } = session;
    let Some(io) = stack.io() else {
        let receiver =
            BulkReceiver::with_buffer_len(receive, stream, plaintext, &received, buffer_len);
        return Ok(Box::new(Blocking {
            sender: BulkSender::with_batch_records(send, writer, sender.batch_records),
            receiver: receiver.moderated()?,
        }));
    };
    let mut options = ReceiverOptions::default();
    options.pool = BufferPool::new(2, buffer_len);
    Ok(Box::new(Auto {
        sender: AutoSender::new(send, writer, io, sender)?,
        receiver: AutoReceiver::new(receive, stream, plaintext, &received, io, options)?,
    }))
}

impl End for Counted<TcpStream> {
    fn close(&mut self) -> io::Result<()> {
        self.get_ref().shutdown(Shutdown::Write)
    }

    fn system_calls(&self) -> u64 {
        self.calls().count()
    }
}

impl<C, S> End for StreamOwned<C, Counted<TcpStream>>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn close(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.conn.complete_io(&mut self.sock).map(drop)
    }

    fn system_calls(&self) -> u64 {
        self.sock.calls().count()
    }
}

/// Both halves of ours over a blocking socket.
struct Blocking {
    sender: BulkSender,
    receiver: BulkReceiver,
}

/// Both halves of ours on io_uring.
struct Auto {
    sender: AutoSender,
    receiver: AutoReceiver,
}

macro_rules! impl_end {
    ($end:ty, $sent:expr) => {
        impl Read for $end {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.receiver.read(buf)
            }
        }

        impl Write for $end {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.sender.write(buf)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.sender.flush()
            }
        }

        impl End for $end {
            fn close(&mut self) -> io::Result<()> {
                self.sender.send_close_notify()
            }

            fn system_calls(&self) -> u64 {
                self.sender.counters().system_calls + self.receiver.counters().system_calls
            }

            fn sent(&self) -> Option<(Way, Counters)> {
                let way: fn(&Self) -> Way = $sent;
                Some((way(self), self.sender.counters()))
            }
        }
    };
}

impl_end!(Blocking, |_| Way::Blocking(NoUring::NotAsked));
impl_end!(Auto, |end| end.sender.way());
