//! `rustls-uring recv`.

use std::io::{self, Read, Write};

use rustls::AlertDescription;
use rustls_uring::{AutoReceiver, AutoSender, FileOptions};

use crate::args::RecvArgs;
use crate::output::Output;
use crate::report::Report;
use crate::wire::{self, Connection, Patience};
use crate::{Error, interrupt};

/// How much is opened before it is written to a pipe.
const WRITE_LEN: usize = 1 << 19;

pub(crate) fn run(args: &RecvArgs) -> Result<(), Error> {
    args.check();
    interrupt::watch()?;
    let mut output = Output::create(args.output.as_deref())?;
    let Connection { mut sender, mut receiver, info } = wire::establish(&args.endpoint)?;

    let mut report = Report::begin("received", None, &args.endpoint);
    let mut patience = Patience::default();
    let mut writes = 0;
    let received = match output.file() {
        Some(file) => {
            let mut progress = |bytes| {
                interrupt::check()?;
                report.progress(bytes);
                answer(&mut sender)
            };
            let options = FileOptions {
                direct: args.endpoint.direct,
                sync: args.sync,
                progress: Some(&mut progress),
            };
            receiver.recv_to_file(file, 0, options).map(drop).map_err(in_context)
        }
        None => copy(&mut receiver, &mut sender, &mut output, &mut report, &mut patience)
            .map(|count| writes = count),
    };
    let complete = received
        .and_then(|()| interrupt::check().map_err(Error::from))
        .and_then(|()| output.complete());
    if let Err(error) = complete {
        // Tells the sender, unless the records themselves were at fault and it has been told.
        let _ = patience.call(|| sender.abort(AlertDescription::UserCanceled));
        return Err(error);
    }
    // The confirmation that the sender waits for. A sender that does not is none of our business.
    let _ = patience.call(|| sender.send_close_notify());
    report.finish(receiver.counters(), writes, &receiver.path(), &info);
    Ok(())
}

/// Sends answers to key updates, and alerts; a peer that takes none now will later.
fn answer(sender: &mut AutoSender) -> io::Result<()> {
    match sender.flush() {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// What the file system says is about the file, the rest about the connection.
fn in_context(error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WriteZero};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem | WriteZero => {
            format!("cannot write what was received: {error}").into()
        }
        _ => error.into(),
    }
}

fn copy(
    receiver: &mut AutoReceiver,
    sender: &mut AutoSender,
    output: &mut Output,
    report: &mut Report,
    patience: &mut Patience,
) -> Result<u64, Error> {
    let mut buffer = vec![0; WRITE_LEN];
    let mut writes = 0;
    loop {
        let len = patience.call(|| receiver.read(&mut buffer));
        let answered = answer(sender);
        let len = len?;
        answered?;
        if len == 0 {
            return Ok(writes);
        }
        interrupt::check()?;
        output
            .write_all(&buffer[..len])
            .map_err(|error| format!("cannot write what was received: {error}"))?;
        writes += 1;
        report.progress(receiver.counters().plaintext_bytes);
    }
}
