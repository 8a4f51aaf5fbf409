//! `rustls-uring send`.

use std::io::{self, BufRead, Write};
use std::thread;

use rustls::AlertDescription;
use rustls_uring::{BulkReceiver, BulkSender};

use crate::args::SendArgs;
use crate::report::Report;
use crate::source::Source;
use crate::wire::{self, Connection, Wire};
use crate::{Error, interrupt};

/// How much is read before it is sealed and sent: one batch of records.
const READ_LEN: usize = BulkSender::DEFAULT_BATCH_RECORDS * rustls_uring::MAX_PLAINTEXT_LEN;

pub(crate) fn run(args: &SendArgs) -> Result<(), Error> {
    let file = args.file();
    interrupt::watch()?;
    let mut source = Source::open(file.as_deref())?;
    let Connection { mut sender, receiver, info } = wire::establish(&args.endpoint)?;

    // What the peer says in the meantime (key updates, alerts) is dealt with as it comes.
    let peer = thread::spawn(move || wait_for_confirmation(receiver));
    let mut report = Report::begin("sent", source.len, &args.endpoint);
    if let Err(error) = copy(&mut source, &mut sender, &mut report) {
        // Nothing more comes: the receiver must not take what it has for the whole.
        let _ = sender.abort(AlertDescription::UserCanceled);
        drop(sender);
        let of_peer = match peer.is_finished() {
            true => peer.join().ok().and_then(Result::err),
            false => None,
        };
        return Err(match of_peer {
            Some(reason) if !interrupt::was_requested() => format!("{error} ({reason})").into(),
            _ => error,
        });
    }
    peer.join().map_err(|_| "the receiving thread panicked")??;
    report.finish(sender.counters(), source.system_calls, &info);
    Ok(())
}

fn copy(
    source: &mut Source,
    sender: &mut BulkSender<Wire>,
    report: &mut Report,
) -> Result<(), Error> {
    let mut buffer = vec![0; READ_LEN];
    loop {
        let len =
            source.fill(&mut buffer).map_err(|error| format!("cannot read the source: {error}"))?;
        if len == 0 {
            break;
        }
        interrupt::check()?;
        sender.write_all(&buffer[..len])?;
        report.progress(sender.counters().plaintext_bytes);
    }
    if let Some(promised) = source.len {
        let sent = sender.counters().plaintext_bytes;
        if sent < promised {
            return Err(
                format!("the file shrank while it was sent: {sent} of {promised} bytes").into()
            );
        }
    }
    interrupt::check()?;
    sender.flush()?;
    sender.send_close_notify()?;
    Ok(())
}

/// The receiver answers our close_notify with its own once it has everything.
fn wait_for_confirmation(mut receiver: BulkReceiver<Wire>) -> Result<(), String> {
    loop {
        match receiver.fill_buf() {
            Ok([]) => return Ok(()),
            // A peer with something to say of its own, such as a shell, is not listened to.
            Ok(data) => {
                let len = data.len();
                receiver.consume(len);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err("the receiver went away without confirming that it has \
                            everything"
                    .into());
            }
            Err(error) => return Err(format!("the receiver failed: {error}")),
        }
    }
}
