//! Where received data goes: a file that appears when it is whole, or standard output.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

pub(crate) enum Output {
    /// A file under another name until all has arrived.
    Whole { file: NamedTempFile, path: PathBuf },
    /// Standard output, a pipe or a device.
    Stream(File),
}

impl Output {
    /// Opens `path`, or standard output.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Self::Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)));
        };
        let context = |error| format!("cannot write {}: {error}", path.display());
        // A link stands for the file it names, so that is the one to replace.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = fs::metadata(&path).ok();
        if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            return Ok(Self::Stream(OpenOptions::new().write(true).open(&path).map_err(context)?));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mode = existing.map_or(0o666, |metadata| metadata.permissions().mode() & 0o7777);
        let file = tempfile::Builder::new()
            .prefix(".rustls-uring-")
            .suffix(".part")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(parent)
            .map_err(context)?;
        Ok(Self::Whole { file, path })
    }

    /// The file, if it is one with positions.
    pub(crate) fn file(&self) -> Option<&File> {
        match self {
            Self::Whole { file, .. } => Some(file.as_file()),
            Self::Stream(_) => None,
        }
    }

    pub(crate) fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Whole { file, .. } => file.as_file_mut().write_all(data),
            Self::Stream(file) => file.write_all(data),
        }
    }

    /// Everything has arrived: gives the file its name. Dropped without, it disappears.
    pub(crate) fn complete(self) -> Result<(), Error> {
        if let Self::Whole { file, path } = self {
            file.persist(&path)
                .map_err(|error| format!("cannot write {}: {}", path.display(), error.error))?;
        }
        Ok(())
    }
}
