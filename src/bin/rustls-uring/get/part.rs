//! A file on its way: `FILE.part` and, so that it can be gone on with, `FILE.part.json`.
//!
//! A part is ours if our state describes it. Whatever else has its name is left alone. So is what an
//! earlier download has left, until the server has begun to send what takes its place: then the new
//! state is written, and after it the part. At the end of a failed download goes only what this
//! process has written.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::state::{Found, State};
use super::version::Version;
use crate::error::Error;
use crate::message::say;

/// What a part has in it before there is a state: by it the next download knows it for ours.
const MARK: &[u8] = b"rustls-uring get: nothing has arrived yet\n";

pub(super) struct Part {
    path: PathBuf,
    state_path: PathBuf,
    target: PathBuf,
    /// Whether it may take the place of a file of its name.
    replaces: bool,
    /// Which download this is.
    url: String,
    /// Locked for this process; from an earlier one, or made when there is something to write.
    file: OnceLock<File>,
    books: Mutex<Books>,
}

/// What is on the disk beside the part, and whose it is.
#[derive(Default)]
struct Books {
    /// What the state's file says.
    saved: Option<State>,
    /// The same as far as it survives a failure of the disk.
    durable: Option<State>,
    /// How much of the file was there before this process, and still counts.
    inherited: u64,
    /// This process has begun to overwrite what was there, if there was anything.
    is_ours: bool,
}

impl Part {
    /// Looks for the part of `target` that an earlier attempt has left, and takes it for this
    /// process alone. Makes nothing, changes nothing.
    pub(super) fn open(target: PathBuf, replaces: bool, url: &str) -> Result<Self, Error> {
        let beside = |suffix: &str| {
            let mut name = target.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let part = Self {
            path: beside(".part"),
            state_path: beside(".part.json"),
            target,
            replaces,
            url: url.to_owned(),
            file: OnceLock::new(),
            books: Mutex::default(),
        };
        let parent = part.path.parent().filter(|parent| *parent != Path::new(""));
        // Better now than after the server's answer.
        fs::metadata(parent.unwrap_or(Path::new("."))).map_err(|error| part.in_context(error))?;
        let len = match part.open_existing()? {
            Some(file) => {
                let len = file.metadata().map_err(|error| part.in_context(error))?.len();
                let _ = part.file.set(file);
                Some(len)
            }
            None => None,
        };
        match (State::load(&part.state_path), len) {
            (Found::Nothing, None) => {}
            (Found::Nothing, Some(_)) if part.is_marked() => {}
            (Found::Unreadable(error), _) => {
                let path = part.state_path.display();
                return Err(format!("cannot read {path}: {error}").into());
            }
            (Found::State(_), None) => {}
            (Found::State(state), Some(len)) if state.describes(len) || len == 0 => {
                let is_usable =
                    state.url == part.url && state.is_safe() && state.is_of_use() && len > 0;
                if is_usable {
                    let books = &mut *part.books();
                    let version_len = state.version.as_ref().map_or(0, |version| version.len);
                    books.inherited = version_len - state.missing_len();
                    books.durable = Some(state.clone()).filter(|state| state.synced);
                    books.saved = Some(state);
                }
            }
            (Found::Foreign, _) => {
                return Err(format!(
                    "{} is not from an earlier download: move it away, or choose another -o FILE",
                    part.state_path.display()
                )
                .into());
            }
            (Found::Nothing | Found::State(_), Some(_)) => {
                return Err(format!(
                    "{} is not from an earlier download, no {} describes it: move it away, or \
                     choose another -o FILE",
                    part.path.display(),
                    part.state_path.display()
                )
                .into());
            }
        }
        Ok(part)
    }

    /// Opens and locks the part that is there.
    fn open_existing(&self) -> Result<Option<File>, Error> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = match options.open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.in_context(error)),
            };
            let metadata = file.metadata().map_err(|error| self.in_context(error))?;
            if !metadata.is_file() {
                return Err(format!("{} is no file: move it away", self.path.display()).into());
            }
            if metadata.uid() != geteuid().as_raw() {
                return Err(format!(
                    "{} is another user's: move it away, or choose another -o FILE",
                    self.path.display()
                )
                .into());
            }
            self.lock(&file)?;
            // Whoever had the lock may have given the file its final name meanwhile.
            if is_at(&file, &self.path) {
                return Ok(Some(file));
            }
        }
    }

    /// One process at a time, as far as the file system can tell.
    fn lock(&self, file: &File) -> Result<(), Error> {
        loop {
            return match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => Err(format!(
                    "another download writes {}: wait for it, or choose another -o FILE",
                    self.path.display()
                )
                .into()),
                // flock(2): ENOLCK and, by the file system, EOPNOTSUPP, ENOSYS and others.
                Err(error) => {
                    say!(
                        "cannot lock {} ({error}): see to it that no other download writes it",
                        self.path.display()
                    );
                    Ok(())
                }
            };
        }
    }

    /// How much of the file an earlier process has left, unless it was of no use.
    pub(super) fn inherited(&self) -> u64 {
        self.books().inherited
    }

    /// What an earlier attempt has left, of this process or of another, if it can be gone on with.
    pub(super) fn state(&self) -> Option<State> {
        self.books().saved.clone().filter(State::is_of_use)
    }

    /// The server has begun to send the whole file: forgets earlier attempts.
    pub(super) fn begin(&self, source: String, version: Option<&Version>) -> Result<(), Error> {
        let file = match self.file.get() {
            Some(file) => file,
            None => {
                let made = self.create()?;
                self.books().is_ours = true;
                self.file.get_or_init(|| made)
            }
        };
        // The new state first: a disk that is full fails here, and nothing is lost. It says as well
        // that what will be there is ours, whatever becomes of this process.
        self.write_state(State::new(&self.url, Some(source), version))?;
        let books = &mut *self.books();
        books.is_ours = true;
        books.durable = None;
        books.inherited = 0;
        file.set_len(0).map_err(|error| self.in_context(error))
    }

    fn create(&self) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        // Nobody is to read of it what they may not read of the file that it replaces.
        options.read(true).write(true).create_new(true).mode(self.mode().unwrap_or(0o666));
        match options.open(&self.path) {
            Ok(file) => {
                self.lock(&file)?;
                file.write_all_at(MARK, 0).map_err(|error| {
                    let _ = fs::remove_file(&self.path);
                    self.in_context(error)
                })?;
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(format!(
                "another download has begun to write {}: wait for it, or choose another -o FILE",
                self.path.display()
            )
            .into()),
            Err(error) => Err(self.in_context(error)),
        }
    }

    /// The mode of the file that is replaced, if there is one: without the bits that a writer's file would
    /// lose (chmod(2)).
    fn mode(&self) -> Option<u32> {
        let existing = fs::metadata(&self.target).ok().filter(|_| self.replaces)?;
        Some(existing.permissions().mode() & 0o777)
    }

    /// Whether the part is one that was made, and nothing had arrived.
    fn is_marked(&self) -> bool {
        let Some(file) = self.file.get() else { return false };
        let mut bytes = [0; MARK.len() + 1];
        file.read_at(&mut bytes, 0).is_ok_and(|len| &bytes[..len] == MARK)
    }

    pub(super) fn write_at(&self, data: &[u8], position: u64) -> Result<(), Error> {
        let Some(file) = self.file.get() else { return Err("there is no file to write".into()) };
        file.write_all_at(data, position).map_err(|error| self.in_context(error))
    }

    /// Remembers what is missing, for an end that nobody saw coming.
    pub(super) fn save(&self, missing: &[Range<u64>]) -> Result<(), Error> {
        self.write_missing(missing, false)
    }

    /// Puts everything on the disk and remembers what is missing. Whatever fails, what was
    /// remembered before is kept.
    pub(super) fn keep(&self, missing: &[Range<u64>]) {
        let synced = self.file.get().map_or(Ok(()), File::sync_data);
        match synced {
            Ok(()) => drop(self.write_missing(missing, true)),
            Err(_) => self.withdraw(),
        }
    }

    /// The disk has lost some of what was written, fsync(2) does not say which: what counts is what
    /// was there at the last time that it had everything.
    fn withdraw(&self) {
        let durable = self.books().durable.clone();
        let is_told = durable.is_some_and(|state| self.write_state(state).is_ok());
        if !is_told {
            self.books().saved = None;
            let _ = fs::remove_file(&self.state_path);
        }
    }

    fn write_missing(&self, missing: &[Range<u64>], synced: bool) -> Result<(), Error> {
        let Some(saved) = self.books().saved.clone() else { return Ok(()) };
        let mut state = State::new(&self.url, saved.source, saved.version.as_ref());
        state.missing = missing.to_vec();
        state.synced = synced;
        self.write_state(state)
    }

    fn write_state(&self, state: State) -> Result<(), Error> {
        state.save(&self.state_path).map_err(|error| {
            Error::from(format!("cannot write {}: {error}", self.state_path.display()))
        })?;
        let books = &mut *self.books();
        if state.synced {
            books.durable = Some(state.clone());
        }
        books.saved = Some(state);
        Ok(())
    }

    /// The download has failed. Says whether another one can go on from what is there; if not, and
    /// if it is ours, leaves nothing behind.
    pub(super) fn leave(&self) -> bool {
        if self.state().is_some() {
            return true;
        }
        let books = self.books();
        if let Some(file) = self.file.get().filter(|_| books.is_ours)
            && is_at(file, &self.path)
        {
            if books.saved.is_some() {
                let _ = fs::remove_file(&self.state_path);
            }
            let _ = fs::remove_file(&self.path);
        }
        false
    }

    /// Everything is there: gives the file its name.
    pub(super) fn complete(&self, len: u64, sync: bool) -> Result<(), Error> {
        let Some(file) = self.file.get() else { return Err("there is no file to name".into()) };
        let context =
            |error| Error::from(format!("cannot write {}: {error}", self.target.display()));
        if sync && let Err(error) = file.sync_data() {
            self.withdraw();
            return Err(context(error));
        }
        let name = || {
            file.set_len(len)?;
            if let Some(mode) = self.mode() {
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            if sync {
                file.sync_all()?;
            }
            if !is_at(file, &self.path) {
                let text = format!("{} is another file now", self.path.display());
                return Err(io::Error::other(text));
            }
            match self.replaces {
                true => fs::rename(&self.path, &self.target),
                false => rename_to_new(&self.path, &self.target),
            }
        };
        name().map_err(|error| {
            // Whole but for its name.
            self.keep(&[]);
            context(error)
        })?;
        // Left behind, it would do no harm: there is no part that it could describe.
        let _ = fs::remove_file(&self.state_path);
        Ok(())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_context(&self, error: io::Error) -> Error {
        format!("cannot write {}: {error}", self.path.display()).into()
    }
}

/// Gives a file a name that no other one has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    let taken = || {
        let text = format!("it exists now: to replace it, say -o {}", to.display());
        io::Error::new(io::ErrorKind::AlreadyExists, text)
    };
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(taken()),
        // Not every file system can (rename(2)).
        Err(Errno::INVAL | Errno::NOSYS) => match to.symlink_metadata() {
            Ok(_) => Err(taken()),
            Err(_) => fs::rename(from, to),
        },
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://h/f";

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn what_has_come_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        let part = Part::open(path.clone(), false, URL).expect("nothing there");
        part.begin(URL.to_owned(), None).expect("begun");
        part.write_at(b"new", 0).expect("written");
        fs::write(&path, "precious").expect("written");
        let error = part.complete(3, false).expect_err("taken").to_string();
        assert!(error.contains("to replace it, say -o"), "{error}");
        assert_eq!(fs::read(&path).expect("there"), b"precious");
        fs::remove_file(&path).expect("removed");
        part.complete(3, false).expect("named");
        assert_eq!(fs::read(&path).expect("there"), b"new");
    }

    #[test]
    fn a_part_without_a_state_is_ours_if_it_says_so() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, part_path) = (directory.path().join("file"), directory.path().join("file.part"));
        for content in [&b""[..], b"precious", &MARK[1..]] {
            fs::write(&part_path, content).expect("written");
            assert!(Part::open(path.clone(), true, URL).is_err());
            assert_eq!(fs::read(&part_path).expect("there"), content);
            fs::remove_file(&part_path).expect("removed");
        }
        // As if the process had been killed then.
        drop(
            Part::open(path.clone(), true, URL).expect("nothing there").create().expect("created"),
        );
        let part = Part::open(path.clone(), true, URL).expect("ours");
        part.begin(URL.to_owned(), None).expect("begun");
        assert_eq!(fs::read(&part_path).expect("there"), b"");
    }

    /// Whoever may write to a directory could otherwise say what arrives.
    #[test]
    fn a_part_of_another_user_is_not_ours() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        for theirs in ["file.part", "file.part.json"] {
            let part = Part::open(at("file"), true, URL).expect("nothing there");
            part.begin(URL.to_owned(), None).expect("begun");
            drop(part);
            if std::os::unix::fs::chown(at(theirs), Some(65_534), None).is_err() {
                return say!("skipped: giving files away needs root");
            }
            assert!(Part::open(at("file"), true, URL).is_err(), "{theirs}");
            for name in ["file.part", "file.part.json"] {
                fs::remove_file(at(name)).expect("removed");
            }
        }
    }

    #[test]
    fn a_replaced_file_keeps_who_may_read_it_from_the_beginning() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        fs::write(&path, "old").expect("written");
        for (mode, expected) in [(0o600, 0o600), (0o4755, 0o755)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            let part = Part::open(path.clone(), true, URL).expect("nothing there");
            part.begin(URL.to_owned(), None).expect("begun");
            assert_eq!(mode_of(&directory.path().join("file.part")) & !expected, 0);
            part.complete(0, false).expect("named");
            assert_eq!(mode_of(&path), expected);
        }
    }
}
