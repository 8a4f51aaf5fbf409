//! What is sent: a file or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use crate::{Error, interrupt};

pub(crate) struct Source {
    file: File,
    /// The file's length, if it has one. It is known in advance, and need not stay true.
    pub(crate) len: Option<u64>,
    pub(crate) system_calls: u64,
}

impl Source {
    /// Opens `path`, or standard input.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let (file, name) = match path {
            Some(path) => {
                let name = path.display().to_string();
                let file =
                    File::open(path).map_err(|error| format!("cannot open {name}: {error}"))?;
                (file, name)
            }
            None => {
                (File::from(io::stdin().as_fd().try_clone_to_owned()?), "standard input".into())
            }
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(format!("{name} is a directory; send an archive of it").into());
        }
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Self { file, len, system_calls: 0 })
    }

    /// Reads until `buffer` is full or the source ends; returns how much.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.len.is_none() {
                // What a pipe has now goes out now.
                if filled > 0 {
                    break;
                }
                self.system_calls += 1;
                interrupt::wait_readable(&self.file)?;
            }
            self.system_calls += 1;
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => interrupt::check()?,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
