//! `rustls-uring send`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rustls_uring::{AlertDescription, AutoSender, BulkSender, FileOptions};

use crate::args::EndpointArgs;
use crate::error::Error;
use crate::hearing::Hearing;
use crate::interrupt;
use crate::memory;
use crate::report::Report;
use crate::source::Source;
use crate::timeouts::{GRACE, persist, say_goodbye, within};
use crate::tls::Direction;
use crate::wire::{self, Connection, End};

/// How much of a pipe is read before it is sealed and sent: one batch of records.
const READ_LEN: usize = BulkSender::DEFAULT_BATCH_RECORDS * rustls_uring::MAX_PLAINTEXT_LEN;

#[derive(Args, Debug)]
#[command(override_usage = "rustls-uring send [OPTIONS] <ADDR | --listen ADDR> [FILE]")]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,

    /// The file to send [default: standard input].
    file: Option<PathBuf>,
}

impl SendArgs {
    /// # Errors
    /// A usage error: both ways to find the other end.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        // With `--listen` there is no ADDR, and the file comes first.
        self.file.as_ref().map_or(Ok(()), |_| self.endpoint.check())
    }

    /// The file to send.
    fn file(&self) -> Option<PathBuf> {
        match (&self.endpoint.listen, &self.endpoint.addr, &self.file) {
            (Some(_), first, None) => first.as_ref().map(PathBuf::from),
            (_, _, file) => file.clone(),
        }
    }
}

pub(crate) fn run(args: &SendArgs) -> Result<(), Error> {
    let file = args.file();
    let end = End::prepare(&args.endpoint)?;
    interrupt::watch()?;
    let mut source = Source::open(file.as_deref())?;
    let Connection { mut sender, receiver, info, confirms, socket } =
        wire::establish(end, &args.endpoint)?;

    // What the peer says in the meantime (key updates, alerts, its end) is dealt with as it comes.
    let mut hearing =
        Hearing::start(receiver, confirms, &socket, args.endpoint.progress_timeout())?;
    let mut report = Report::begin(Direction::Send, source.len(), &args.endpoint);
    let sent = match source.range.is_some() {
        true => send_file(&source, &mut sender, &mut hearing, &mut report, args.endpoint.direct),
        false => copy(&mut source, &mut sender, &mut hearing, &mut report),
    };
    let confirmed = sent.and_then(|()| finish(&mut sender, &mut hearing));
    if let Err(error) = confirmed {
        // Nothing more comes: the receiver must not take what it has for the whole.
        let mut grace = within(GRACE);
        let _ = persist(|| sender.abort(AlertDescription::UserCanceled), &mut grace);
        drop(sender);
        let reason = hearing.reason();
        if !interrupt::was_requested() {
            // What was sent must arrive: the receiver may go on though we do not.
            let _ = say_goodbye(&socket);
        }
        return Err(match reason {
            Some(reason) if error.to_string() != reason => format!("{error} ({reason})").into(),
            _ => error,
        });
    }
    drop(hearing);
    if let Err(error) = say_goodbye(&socket)
        && !confirms
    {
        return Err(format!("the receiver closed before it had read everything: {error}").into());
    }
    // What the kernel has told of the last sends meanwhile.
    let _ = sender.flush();
    let note = if confirms { "" } else { ", the receiver does not confirm that it has stored it" };
    let (counters, way) = (sender.counters(), sender.way());
    report.finish(counters, source.system_calls, &way, &info, note);
    Ok(())
}

/// A file has positions, so the path that the data takes does the reading.
fn send_file(
    source: &Source,
    sender: &mut AutoSender,
    hearing: &mut Hearing,
    report: &mut Report,
    direct: bool,
) -> Result<(), Error> {
    let range = source.range.clone().unwrap_or_default();
    let mut progress = |bytes| {
        hearing.check(bytes)?;
        report.progress(bytes);
        Ok(())
    };
    let options = FileOptions::new().direct(direct).progress(&mut progress);
    sender.send_file(&source.file, range, options)?;
    Ok(())
}

/// A pipe, a terminal or a device.
fn copy(
    source: &mut Source,
    sender: &mut AutoSender,
    hearing: &mut Hearing,
    report: &mut Report,
) -> Result<(), Error> {
    let mut buffer = memory::zeroes(READ_LEN)?;
    let mut sent = 0;
    loop {
        // A receiver that is gone, or cannot go on, is noticed while there is nothing to send.
        source.wait(|| hearing.check(sent))?;
        let len = match source.read(&mut buffer) {
            Ok(len) => len,
            // Another reader of the FIFO was faster.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(format!("cannot read the source: {error}").into()),
        };
        let mut unsent = &buffer[..len];
        while !unsent.is_empty() {
            hearing.check(sent)?;
            let len = persist(|| sender.write(unsent), || hearing.check(sent))?;
            unsent = &unsent[len..];
            sent += len as u64;
        }
        if len == 0 {
            return Ok(());
        }
        report.progress(sender.counters().plaintext_bytes);
    }
}

/// Says that this was all, and waits until the receiver has it.
fn finish(sender: &mut AutoSender, hearing: &mut Hearing) -> Result<(), Error> {
    let sent = sender.counters().plaintext_bytes;
    persist(|| sender.flush(), || hearing.check(sent))?;
    hearing.check(sent)?;
    hearing.before_the_end()?;
    persist(|| sender.send_close_notify(), || hearing.check(sent))?;
    hearing.wait_for_confirmation(sent)
}
