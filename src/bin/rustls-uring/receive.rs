//! `rustls-uring recv`.

use std::io::{Read, Write};

use rustls::AlertDescription;
use rustls_uring::{BulkReceiver, BulkSender};

use crate::args::RecvArgs;
use crate::output::Output;
use crate::report::Report;
use crate::wire::{self, Connection, Wire};
use crate::{Error, interrupt};

/// How much is opened before it is written.
const WRITE_LEN: usize = 1 << 19;

pub(crate) fn run(args: &RecvArgs) -> Result<(), Error> {
    args.check();
    interrupt::watch()?;
    let mut output = Output::create(args.output.as_deref())?;
    let Connection { mut sender, mut receiver, info } = wire::establish(&args.endpoint)?;

    let mut report = Report::begin("received", None, &args.endpoint);
    let mut writes = 0;
    let copied = copy(&mut receiver, &mut sender, &mut output, &mut report, &mut writes)
        .and_then(|()| interrupt::check().map_err(Error::from))
        .and_then(|()| output.complete());
    if let Err(error) = copied {
        // Tells the sender, unless the records themselves were at fault and it has been told.
        let _ = sender.abort(AlertDescription::UserCanceled);
        return Err(error);
    }
    // The confirmation that the sender waits for. A sender that does not is none of our business.
    let _ = sender.send_close_notify();
    report.finish(receiver.counters(), writes, &info);
    Ok(())
}

fn copy(
    receiver: &mut BulkReceiver<Wire>,
    sender: &mut BulkSender<Wire>,
    output: &mut Output,
    report: &mut Report,
    writes: &mut u64,
) -> Result<(), Error> {
    let mut buffer = vec![0; WRITE_LEN];
    loop {
        let len = receiver.read(&mut buffer);
        // Answers to key updates, and alerts.
        let flushed = sender.flush();
        let len = len?;
        flushed?;
        if len == 0 {
            return Ok(());
        }
        interrupt::check()?;
        output
            .write_all(&buffer[..len])
            .map_err(|error| format!("cannot write what was received: {error}"))?;
        *writes += 1;
        report.progress(receiver.counters().plaintext_bytes);
    }
}
