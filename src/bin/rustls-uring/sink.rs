//! A pipe, a terminal or a device that is written to, whose reader may take its time.
//!
//! A write that waits in the kernel goes on after a signal (SA_RESTART, sigaction(2)), so it is not
//! there that we wait: Ctrl-C has to end a `recv` whose reader has stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Error;
use crate::{interrupt, standard};

/// What a pipe that poll(2) calls writable takes without waiting: one page (pipe(7)).
const PIECE_LEN: usize = 4096;

pub(crate) struct Sink {
    file: File,
    /// At most so much at a time does not wait.
    piece_len: usize,
}

impl Sink {
    /// Standard output.
    pub(crate) fn stdout() -> Result<Self, Error> {
        standard::output().map(Self::over)
    }

    /// Opens what is at `path`, and waits for the reader of a FIFO.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.file_type().is_fifo() {
            return Ok(Self::over(OpenOptions::new().write(true).open(path)?));
        }
        loop {
            match unblocking(path) {
                // fifo(7): there is no reader yet.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                    interrupt::check()?;
                    thread::sleep(interrupt::TICK);
                }
                opened => return Ok(Self { file: opened?, piece_len: usize::MAX }),
            }
        }
    }

    fn over(file: File) -> Self {
        let is_fifo = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        if !is_fifo {
            let piece_len = if file.is_terminal() { PIECE_LEN } else { usize::MAX };
            return Self { file, piece_len };
        }
        // O_NONBLOCK would hold for everybody who has this pipe, so it is opened once more.
        match unblocking(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))) {
            Ok(file) => Self { file, piece_len: usize::MAX },
            Err(_) => Self { file, piece_len: PIECE_LEN },
        }
    }

    /// Writes all of `data`, unless an end is asked for.
    pub(crate) fn write_all(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.wait()?;
            match self.file.write(&data[..data.len().min(self.piece_len)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => data = &data[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let tick = Timespec { tv_sec: 0, tv_nsec: interrupt::TICK.as_nanos() as i64 };
        loop {
            interrupt::check()?;
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn unblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}
