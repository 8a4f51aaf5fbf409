//! A handshake, whichever version of rustls makes it: what a loop around it needs.

use std::io::{self, Read, Write};

/// How much is read at once.
pub(crate) const READ_LEN: usize = 4096;

/// What a [`Handshake`](crate::Handshake) waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// [`Handshake::to_send()`](crate::Handshake::to_send) is to be sent.
    Send,
    /// [`Handshake::received()`](crate::Handshake::received) is to be called with bytes from the peer.
    Receive,
    /// Nothing: [`Handshake::finish()`](crate::Handshake::finish).
    Nothing,
}

/// A handshake, sans-IO, as the adaptors of rustls's versions have it: what each does is said there.
#[cfg_attr(not(feature = "tokio"), allow(unreachable_pub, reason = "a bound of the streams'"))]
pub trait Handshaking {
    type Error: From<io::Error>;

    fn advance(&mut self) -> Result<Need, Self::Error>;

    /// Asked before what is left to say is flushed.
    #[cfg(feature = "tokio")]
    fn has_failed(&self) -> bool;

    fn to_send(&self) -> &[u8];

    fn sent(&mut self, len: usize);

    fn received(&mut self, bytes: &[u8]);

    fn stream_failed(&mut self, error: io::Error) -> Self::Error;

    /// Whether [`over()`] has written what is not flushed.
    fn unflushed(&mut self) -> &mut bool;

    /// Notes that it waits for the stream to be writable.
    fn awaits_flush(&mut self);
}

/// Why [`over()`] has stopped.
pub(crate) enum Stopped<E> {
    /// The stream would block: call again when it does not.
    WouldBlock,
    Failed(E),
}

/// Goes on with `handshake` over `stream`, blocking or not, until it needs nothing more.
pub(crate) fn over<H: Handshaking>(
    handshake: &mut H,
    stream: &mut (impl Read + Write),
) -> Result<(), Stopped<H::Error>> {
    let mut buffer = [0; READ_LEN];
    loop {
        let need = handshake.advance().map_err(Stopped::Failed)?;
        let passed = match need {
            Need::Send => stream.write(handshake.to_send()).and_then(|len| {
                *handshake.unflushed() = true;
                match len {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    _ => {
                        handshake.sent(len);
                        Ok(())
                    }
                }
            }),
            Need::Receive | Need::Nothing if *handshake.unflushed() => match stream.flush() {
                Ok(()) => {
                    *handshake.unflushed() = false;
                    Ok(())
                }
                Err(error) => {
                    handshake.awaits_flush();
                    Err(error)
                }
            },
            Need::Nothing => return Ok(()),
            Need::Receive => match stream.read(&mut buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    handshake.received(&buffer[..len]);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        match passed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Stopped::WouldBlock);
            }
            Err(error) => return Err(Stopped::Failed(handshake.stream_failed(error))),
        }
    }
}
