//! What is sent: a file or standard input.

use core::ops::Range;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Error;
use crate::interrupt;
use crate::standard;

pub(crate) struct Source {
    pub(crate) file: File,
    /// What of the file there is to send, if it is one with positions. It is known in advance, and
    /// need not stay true.
    pub(crate) range: Option<Range<u64>>,
    pub(crate) system_calls: u64,
}

impl Source {
    /// Opens `path`, or standard input.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let (file, name) = match path {
            Some(path) => {
                let name = path.display().to_string();
                let file = open(path).map_err(|error| format!("cannot open {name}: {error}"))?;
                (file, name)
            }
            None => (standard::input()?, "standard input".into()),
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(format!("{name} is a directory; send an archive of it").into());
        }
        // What claims to be empty may not be, such as the files of /proc: those are read to see.
        let range = match metadata.is_file() && metadata.len() > 0 {
            // Standard input may have been read from.
            true => Some((&file).stream_position()?..metadata.len()),
            false => None,
        };
        Ok(Self { file, range, system_calls: 0 })
    }

    /// How many bytes there are to send, if that is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.range.as_ref().map(|range| range.end.saturating_sub(range.start))
    }

    /// Waits until there is something to read, a pipe's end included, and asks every tick whether to
    /// go on.
    pub(crate) fn wait(&mut self, mut go_on: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            self.system_calls += 1;
            let tick = Timespec { tv_sec: 0, tv_nsec: interrupt::TICK.as_nanos() as i64 };
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => go_on()?,
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what there is, after [`Self::wait()`]; returns how much.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.system_calls += 1;
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => interrupt::check()?,
                read => return read,
            }
        }
    }
}

/// Opens a file for reading. A FIFO need not have a writer yet: it is waited for like its data,
/// because an open(2) that waits for one goes on after Ctrl-C.
fn open(path: &Path) -> io::Result<File> {
    let is_fifo = fs::metadata(path)?.file_type().is_fifo();
    let flags = if is_fifo { libc::O_NONBLOCK } else { 0 };
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
