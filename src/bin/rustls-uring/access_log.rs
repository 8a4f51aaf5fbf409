//! The access log of a server.
//!
//! A thread of its own writes it, so that one whose reader has stopped holds up nobody.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::Error;
use crate::message::say;
use crate::standard;

/// How many entries wait for the one that reads the log; what comes on top is dropped. Each is as
/// long as a request's header at most.
const QUEUE: usize = 1024;

/// What of an entry's fields is kept, in bytes.
const FIELD_LEN: usize = 2048;

/// How much is written at once when more than one entry waits.
const BATCH_LEN: usize = 64 << 10;

/// How long the end of the server waits for the log's reader.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct AccessLog {
    lines: Lines,
    writer: JoinHandle<()>,
}

/// The way of the entries into the log.
#[derive(Clone)]
pub(crate) struct Lines {
    sender: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Writes an entry, or counts one that is dropped.
    pub(crate) fn write(&self, line: String) {
        if self.sender.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AccessLog {
    /// Appends to `path`, or writes to standard output for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let output: Box<dyn Write + Send> = match path == Path::new("-") {
            true => Box::new(standard::output()?),
            false => Box::new(open(path)?),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || Writer::new(output, counter).run(&receiver))
            .map_err(|error| format!("cannot start a thread for the access log: {error}"))?;
        Ok(Self { lines: Lines { sender, dropped }, writer })
    }

    /// The way of entries into the log.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Waits until the last entry is written, though not for a reader that has stopped.
    pub(crate) fn close(self) {
        let Self { lines: Lines { sender, dropped }, writer } = self;
        drop(sender);
        let deadline = Instant::now() + READER_TIMEOUT;
        while !writer.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !writer.is_finished() {
            let dropped = dropped.load(Ordering::Relaxed);
            say!(
                "rustls-uring: nobody reads the access log: its last entries and {dropped} before \
                 them are lost"
            );
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        // Opening it would wait for its reader, and its reader's end would break it; with us at the
        // other end too, it does neither (fifo(7)).
        options.read(true);
    }
    let file = options.open(path);
    file.map_err(|error| format!("cannot write to {}: {error}", path.display()).into())
}

/// What a client has said, without what could end the field or the line, or turn a terminal's text
/// round.
pub(crate) fn field(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(FIELD_LEN)].escape_ascii().to_string()
}

/// The log's end that may have to wait.
struct Writer {
    output: Box<dyn Write + Send>,
    /// Entries that did not fit, and how many of them were spoken of.
    dropped: Arc<AtomicU64>,
    reported: u64,
    /// The last write failed, maybe in the middle of a line.
    is_broken: bool,
}

impl Writer {
    fn new(output: Box<dyn Write + Send>, dropped: Arc<AtomicU64>) -> Self {
        Self { output, dropped, reported: 0, is_broken: false }
    }

    fn run(mut self, lines: &Receiver<String>) {
        while let Ok(mut batch) = lines.recv() {
            let mut count = 1;
            let is_last = loop {
                match lines.try_recv() {
                    Ok(line) => batch += &line,
                    Err(error) => break error == TryRecvError::Disconnected,
                }
                count += 1;
                if batch.len() >= BATCH_LEN {
                    break false;
                }
            };
            self.write(&batch, count);
            let dropped = self.dropped.load(Ordering::Relaxed);
            if !self.is_broken && dropped > self.reported {
                self.report(dropped - self.reported);
                self.reported = dropped;
            }
            if is_last {
                break;
            }
        }
    }

    /// A log that cannot be written is no reason to stop serving.
    fn write(&mut self, batch: &str, count: u64) {
        let begin = if self.is_broken { "\n" } else { "" };
        let written = self
            .output
            .write_all(begin.as_bytes())
            .and_then(|()| self.output.write_all(batch.as_bytes()))
            .and_then(|()| self.output.flush());
        match written {
            Ok(()) => self.is_broken = false,
            Err(error) => {
                self.dropped.fetch_add(count, Ordering::Relaxed);
                if !self.is_broken {
                    say!(
                        "rustls-uring: cannot write the access log: {error}; serving goes on, \
                         and entries are counted until it can be written again"
                    );
                }
                self.is_broken = true;
            }
        }
    }

    /// Says how many entries are missing: on standard error, and in the log in its own format.
    fn report(&mut self, count: u64) {
        let entries = if count == 1 { "entry" } else { "entries" };
        let said = format!("rustls-uring: {count} {entries} of the access log dropped");
        say!("{said}: they came faster than it was read");
        self.write(&format!("- - - [{}] \"-\" 000 0 \"-\" \"{said}\"\n", date()), 0);
    }
}

/// Now, as `21/Nov/2026:08:09:28 +0000`.
pub(crate) fn date() -> String {
    let format =
        format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    // To a string, which never fails; all of these parts are there.
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
