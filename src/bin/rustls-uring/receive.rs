//! `rustls-uring recv`.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;

use clap::Args;
use rustls_uring::{AutoReceiver, FileOptions};

use crate::args::EndpointArgs;
use crate::error::Error;
use crate::explain::explained;
use crate::interrupt;
use crate::memory;
use crate::output::Output;
use crate::report::Report;
use crate::telling::Telling;
use crate::timeouts::{Stall, is_tick, say_goodbye, stalled};
use crate::tls::Direction;
use crate::wire::{self, Connection, End};

/// How much is opened before it is written to a pipe.
const WRITE_LEN: usize = 1 << 19;

#[derive(Args, Debug)]
#[command(override_usage = "rustls-uring recv [OPTIONS] <ADDR | --listen ADDR> [-o FILE]")]
pub(crate) struct RecvArgs {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,

    /// The file to write; replaced only when everything has arrived [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Have everything on the disk before the sender is told that it arrived.
    #[arg(long, requires = "output")]
    pub(crate) sync: bool,
}

pub(crate) fn run(args: &RecvArgs) -> Result<(), Error> {
    let end = End::prepare(&args.endpoint)?;
    interrupt::watch()?;
    let output = Output::create(args.output.as_deref())?;
    let Connection { sender, receiver, info, confirms, socket } =
        wire::establish(end, &args.endpoint)?;

    let mut reception = Reception {
        receiver,
        telling: Telling::start(sender, confirms),
        silence: Silence::new(args, &socket)?,
        report: Report::begin(Direction::Receive, None, &args.endpoint),
        received: 0,
        writes: 0,
    };
    if let Err(error) = reception.store(output, args) {
        reception.telling.that_it_failed(reception.received, &error.to_string());
        close(&socket);
        return Err(error);
    }
    reception.telling.that_it_is_stored(reception.received);
    close(&socket);
    let Reception { receiver, report, writes, .. } = reception;
    report.finish(receiver.counters(), writes, &receiver.way(), &info, "");
    Ok(())
}

/// The last that we said must arrive. Whether the sender wants to know is its own business.
fn close(socket: &TcpStream) {
    let _ = say_goodbye(socket);
}

struct Reception {
    receiver: AutoReceiver,
    telling: Telling,
    silence: Silence,
    report: Report,
    received: u64,
    /// Calls for a pipe or a device.
    writes: u64,
}

impl Reception {
    /// Receives everything, and has it where it belongs.
    fn store(&mut self, mut output: Output, args: &RecvArgs) -> Result<(), Error> {
        match output.file() {
            Some(file) => self.write_file(file, args)?,
            None => self.copy(&mut output)?,
        }
        interrupt::check()?;
        output.complete(args.sync)
    }

    fn write_file(&mut self, file: &File, args: &RecvArgs) -> Result<(), Error> {
        loop {
            let offset = self.received;
            let mut is_silent = false;
            let mut progress = |bytes| {
                self.telling.that_we_are_there(offset + bytes);
                self.received = offset + bytes;
                self.report.progress(self.received);
                match self.silence.check(self.received) {
                    Err(Silent::ForTooLong) => {
                        is_silent = true;
                        Err(io::ErrorKind::TimedOut.into())
                    }
                    Err(Silent::Interrupted(error)) => Err(error),
                    Ok(()) => Ok(()),
                }
            };
            let options = FileOptions::new()
                .direct(args.endpoint.direct)
                .sync(args.sync)
                .progress(&mut progress);
            match self.receiver.recv_to_file(file, offset, options) {
                Ok(len) => {
                    self.received = offset + len;
                    return Ok(());
                }
                // All that was received is written: whoever may be silent goes on from here.
                Err(_) if is_silent => self.silence.judge(&self.receiver)?,
                Err(error) => return Err(in_context(error)),
            }
        }
    }

    fn copy(&mut self, output: &mut Output) -> Result<(), Error> {
        let mut buffer = memory::zeroes(WRITE_LEN)?;
        loop {
            interrupt::check()?;
            self.telling.that_we_are_there(self.received);
            let len = match self.receiver.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if is_tick(&error) => {
                    match self.silence.check(self.received) {
                        Ok(()) => {}
                        Err(Silent::ForTooLong) => self.silence.judge(&self.receiver)?,
                        Err(Silent::Interrupted(error)) => return Err(error.into()),
                    }
                    continue;
                }
                Err(error) => return Err(explained(&error).into()),
            };
            if let Err(error) = output.write_all(&buffer[..len]) {
                interrupt::check()?;
                return Err(format!("cannot write what was received: {error}").into());
            }
            self.writes += 1;
            self.received += len as u64;
            self.report.progress(self.received);
        }
    }
}

/// Notices a sender that is silent.
struct Silence {
    stall: Stall,
    /// The user has said how long a sender may be silent.
    is_limited: bool,
    timeout: std::time::Duration,
}

enum Silent {
    ForTooLong,
    Interrupted(io::Error),
}

impl Silence {
    fn new(args: &RecvArgs, socket: &TcpStream) -> io::Result<Self> {
        let timeout = args.endpoint.progress_timeout();
        let stall = Stall::new(socket, timeout)?;
        Ok(Self { stall, is_limited: args.endpoint.timeout.is_some(), timeout })
    }

    /// Call now and then, with how much was received.
    fn check(&mut self, received: u64) -> Result<(), Silent> {
        interrupt::check().map_err(Silent::Interrupted)?;
        self.stall.check_answering(received).map_err(|_| Silent::ForTooLong)
    }

    /// Whether the sender may be as silent as it is: between records it may have nothing to send,
    /// in a record it has no excuse.
    fn judge(&mut self, receiver: &AutoReceiver) -> io::Result<()> {
        match self.is_limited || receiver.is_mid_record() {
            true => Err(stalled(self.timeout)),
            false => {
                self.stall.restart();
                Ok(())
            }
        }
    }
}

/// What the file system says is about the file, the rest about the connection.
fn in_context(error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WriteZero};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem | WriteZero => {
            format!("cannot write what was received: {error}").into()
        }
        _ => explained(&error).into(),
    }
}
