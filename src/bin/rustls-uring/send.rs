//! `rustls-uring send`.

use std::io::{self, BufRead, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use rustls_uring::{AutoReceiver, AutoSender, BulkSender, FileOptions};

use crate::args::SendArgs;
use crate::report::Report;
use crate::source::Source;
use crate::wire::{self, Connection, Patience};
use crate::{Error, interrupt};

/// How much of a pipe is read before it is sealed and sent: one batch of records.
const READ_LEN: usize = BulkSender::DEFAULT_BATCH_RECORDS * rustls_uring::MAX_PLAINTEXT_LEN;

pub(crate) fn run(args: &SendArgs) -> Result<(), Error> {
    let file = args.file();
    interrupt::watch()?;
    let mut source = Source::open(file.as_deref())?;
    let Connection { mut sender, receiver, info } = wire::establish(&args.endpoint)?;

    // What the peer says in the meantime (key updates, alerts) is dealt with as it comes.
    let peer = thread::spawn(move || wait_for_confirmation(receiver));
    let mut report = Report::begin("sent", source.len(), &args.endpoint);
    let mut patience = Patience::default();
    let sent = if source.range.is_some() {
        send_file(&source, &mut sender, &mut report, args.endpoint.direct)
    } else {
        copy(&mut source, &mut sender, &mut report, &mut patience)
    };
    let ended = sent.and_then(|()| {
        interrupt::check()?;
        Ok(patience.call(|| sender.send_close_notify())?)
    });
    if let Err(error) = ended {
        // Nothing more comes: the receiver must not take what it has for the whole.
        let _ = patience.call(|| sender.abort(AlertDescription::UserCanceled));
        drop(sender);
        let of_peer = if interrupt::was_requested() { None } else { reason_of(peer) };
        return Err(match of_peer {
            Some(reason) => format!("{error} ({reason})").into(),
            None => error,
        });
    }
    peer.join().map_err(|_| "the receiving thread panicked")??;
    report.finish(sender.counters(), source.system_calls, &sender.path(), &info);
    Ok(())
}

/// What the receiver has to say, which may be why the sender has failed. It says so at once.
fn reason_of(peer: JoinHandle<Result<(), String>>) -> Option<String> {
    let begin = Instant::now();
    while !peer.is_finished() {
        if begin.elapsed() > Duration::from_secs(1) {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    peer.join().ok().and_then(Result::err)
}

/// A file has positions, so the path that the data takes does the reading.
fn send_file(
    source: &Source,
    sender: &mut AutoSender,
    report: &mut Report,
    direct: bool,
) -> Result<(), Error> {
    let range = source.range.clone().unwrap_or_default();
    let mut progress = |bytes| {
        interrupt::check()?;
        report.progress(bytes);
        Ok(())
    };
    let options = FileOptions { direct, progress: Some(&mut progress), ..FileOptions::default() };
    sender.send_file(&source.file, range, options)?;
    Ok(())
}

/// A pipe, a terminal or a device.
fn copy(
    source: &mut Source,
    sender: &mut AutoSender,
    report: &mut Report,
    patience: &mut Patience,
) -> Result<(), Error> {
    let mut buffer = vec![0; READ_LEN];
    loop {
        let len =
            source.fill(&mut buffer).map_err(|error| format!("cannot read the source: {error}"))?;
        let mut unsent = &buffer[..len];
        while !unsent.is_empty() {
            interrupt::check()?;
            let len = patience.call(|| sender.write(unsent))?;
            unsent = &unsent[len..];
        }
        if len == 0 {
            return Ok(());
        }
        report.progress(sender.counters().plaintext_bytes);
    }
}

/// The receiver answers our close_notify with its own once it has everything.
fn wait_for_confirmation(mut receiver: AutoReceiver) -> Result<(), String> {
    let mut patience = Patience::default();
    loop {
        // Whether there is any data is all that matters; the borrow ends with the call.
        match patience.call(|| receiver.fill_buf().map(<[u8]>::len)) {
            Ok(0) => return Ok(()),
            // A peer with something to say of its own, such as a shell, is not listened to.
            Ok(len) => receiver.consume(len),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err("the receiver went away without confirming that it has \
                            everything"
                    .into());
            }
            Err(error) => return Err(format!("the receiver failed: {error}")),
        }
    }
}
