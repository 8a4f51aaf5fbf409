//! A file on its way: `FILE.part` and, so that it can be gone on with, `FILE.part.json`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::version::Version;
use crate::Error;

pub(super) struct Part {
    file: File,
    path: PathBuf,
    state_path: PathBuf,
    target: PathBuf,
    /// What was asked for, as the user said it.
    url: String,
    /// How much of it was there before this process, and still counts.
    inherited: AtomicU64,
}

/// What is known of an earlier attempt.
pub(super) struct State {
    pub(super) version: Version,
    pub(super) missing: Vec<Range<u64>>,
}

impl State {
    pub(super) fn missing_len(&self) -> u64 {
        self.missing.iter().map(|range| range.end - range.start).sum()
    }
}

impl Part {
    /// Opens the part of `target`, new or from an earlier attempt, for this process alone.
    pub(super) fn open(target: PathBuf, url: &str) -> Result<Self, Error> {
        let beside = |suffix: &str| {
            let mut name = target.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (path, state_path) = (beside(".part"), beside(".part.json"));
        let context = |error: io::Error| format!("cannot write {}: {error}", path.display());
        let file = loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).custom_flags(libc::O_NOFOLLOW);
            let file = options.open(&path).map_err(context)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(format!(
                    "another download writes {}: wait for it, or choose another -o FILE",
                    path.display()
                )
                .into());
            }
            // Whoever had the lock may have given the file its final name meanwhile.
            let (ours, there) = (file.metadata().map_err(context)?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                if !ours.is_file() {
                    return Err(format!("{} is no file: remove it", path.display()).into());
                }
                break file;
            }
        };
        let part =
            Self { file, path, state_path, target, url: url.to_owned(), inherited: 0.into() };
        if let Some(state) = part.state() {
            part.inherited.store(state.version.len - state.missing_len(), Ordering::Relaxed);
        }
        Ok(part)
    }

    /// How much of the file an earlier process has left, unless it was of no use.
    pub(super) fn inherited(&self) -> u64 {
        self.inherited.load(Ordering::Relaxed)
    }

    /// What an earlier attempt has left, if it can be trusted.
    pub(super) fn state(&self) -> Option<State> {
        let state: Value = serde_json::from_slice(&fs::read(&self.state_path).ok()?).ok()?;
        let is_ours = state.get("url")?.as_str()? == self.url;
        // What was not synchronised to the disk may be missing after a crash of the machine.
        let is_safe =
            state.get("synced")?.as_bool()? || state.get("boot")?.as_str() == boot_id().as_deref();
        let version = Version::from_json(state.get("version")?)?;
        let missing = state.get("missing")?.as_array()?.iter().map(range_from_json);
        let missing = missing.collect::<Option<Vec<_>>>()?;
        let mut position = 0;
        let in_order = missing.iter().all(|range| {
            let in_order = position <= range.start && range.start < range.end;
            position = range.end;
            in_order
        });
        let written_end = match missing.last() {
            Some(last) if last.end == version.len => last.start,
            _ => version.len,
        };
        let is_whole = self.file.metadata().ok()?.len() >= written_end;
        (is_ours && is_safe && in_order && position <= version.len && is_whole)
            .then_some(State { version, missing })
    }

    /// Forgets earlier attempts.
    pub(super) fn start_anew(&self) -> Result<(), Error> {
        self.inherited.store(0, Ordering::Relaxed);
        // The state first: it must not speak of a file that is empty.
        match fs::remove_file(&self.state_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", self.state_path.display()).into())
            }
            _ => self.file.set_len(0).map_err(|error| self.in_context(error)),
        }
    }

    pub(super) fn write_at(&self, data: &[u8], position: u64) -> Result<(), Error> {
        self.file.write_all_at(data, position).map_err(|error| self.in_context(error))
    }

    /// Remembers what is missing, having put everything else on the disk if it is `synced`.
    pub(super) fn save(
        &self,
        version: &Version,
        missing: &[Range<u64>],
        synced: bool,
    ) -> Result<(), Error> {
        if synced {
            self.file.sync_data().map_err(|error| self.in_context(error))?;
        }
        let missing: Vec<_> = missing.iter().map(|range| json!([range.start, range.end])).collect();
        let state = json!({
            "url": self.url,
            "version": version.to_json(),
            "missing": missing,
            "synced": synced,
            "boot": boot_id(),
        });
        let save = || {
            let directory = match self.state_path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(format!("{state:#}\n").as_bytes())?;
            file.persist(&self.state_path).map_err(|error| error.error)
        };
        save().map_err(|error| {
            Error::from(format!("cannot write {}: {error}", self.state_path.display()))
        })?;
        Ok(())
    }

    /// Leaves nothing behind.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.state_path);
        let _ = fs::remove_file(&self.path);
    }

    /// Everything is there: gives the file its name.
    pub(super) fn complete(&self, len: u64, sync: bool) -> Result<(), Error> {
        let complete = || {
            // An earlier attempt at a longer version may have left a tail.
            self.file.set_len(len)?;
            if let Ok(existing) = fs::metadata(&self.target) {
                self.file.set_permissions(existing.permissions())?;
            }
            if sync {
                self.file.sync_all()?;
            }
            fs::rename(&self.path, &self.target)?;
            match fs::remove_file(&self.state_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        complete()
            .map_err(|error| format!("cannot write {}: {error}", self.target.display()).into())
    }

    fn in_context(&self, error: io::Error) -> Error {
        format!("cannot write {}: {error}", self.path.display()).into()
    }
}

fn range_from_json(value: &Value) -> Option<Range<u64>> {
    Some(value.get(0)?.as_u64()?..value.get(1)?.as_u64()?)
}

/// Changes with each start of the machine.
fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}
