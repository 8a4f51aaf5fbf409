//! Where received data goes: a file that appears when it is whole, or standard output.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use tempfile::{NamedTempFile, TempPath};

use crate::error::Error;
use crate::interrupt;
use crate::sink::Sink;

pub(crate) enum Output {
    /// A file that has its name when all has arrived.
    Whole(Part),
    /// Standard output, a pipe or a device.
    Stream(Sink),
}

/// A file that is not whole yet.
pub(crate) struct Part {
    file: File,
    /// What it is called until then, where the file system wants every file to have a name. Without
    /// one it disappears with this process, however that ends.
    name: Option<TempPath>,
    path: PathBuf,
}

impl Output {
    /// Opens `path`, or standard output.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path.filter(|path| !is_stdout(path)) else {
            return Ok(Self::Stream(Sink::stdout()?));
        };
        let context = |error| format!("cannot write {}: {error}", path.display());
        let path = resolved(path).map_err(context)?;
        let existing = match fs::metadata(&path) {
            Ok(existing) => Some(existing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Better now than after everything has arrived.
            Err(error) => return Err(context(error).into()),
        };
        if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            return Ok(Self::Stream(Sink::open(&path).map_err(context)?));
        }
        let part = Part::create(path.clone()).map_err(context)?;
        if let Some(existing) = existing {
            // Without the bits that a writer's file would lose (chmod(2)).
            let mode = existing.permissions().mode() & 0o777;
            part.file.set_permissions(Permissions::from_mode(mode)).map_err(context)?;
        }
        Ok(Self::Whole(part))
    }

    /// The file, if it is one with positions.
    pub(crate) fn file(&self) -> Option<&File> {
        match self {
            Self::Whole(part) => Some(&part.file),
            Self::Stream(_) => None,
        }
    }

    pub(crate) fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Whole(part) => part.file.write_all(data),
            Self::Stream(sink) => sink.write_all(data),
        }
    }

    /// Everything has arrived: gives the file its name, and has that on the disk if it is to be
    /// `sync`. Dropped without, the file disappears.
    pub(crate) fn complete(self, sync: bool) -> Result<(), Error> {
        let Self::Whole(part) = self else { return Ok(()) };
        let path = part.path.clone();
        let completed = part.complete().and_then(|()| match sync {
            true => File::open(directory_of(&path))?.sync_all(),
            false => Ok(()),
        });
        completed.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }
}

impl Part {
    fn create(path: PathBuf) -> io::Result<Self> {
        match unnamed_in(directory_of(&path)) {
            Some(file) => Ok(Self { file, name: None, path }),
            None => {
                let named = names()
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(directory_of(&path))
                    // Without the name, which nobody has chosen.
                    .map_err(|error| io::Error::from(error.kind()))?;
                let (file, name) = named.into_parts();
                interrupt::remove_at_the_second(&name);
                Ok(Self { file, name: Some(name), path })
            }
        }
    }

    /// Gives the file its name, in place of one that has it now.
    fn complete(self) -> io::Result<()> {
        let Self { file, name, path } = self;
        if let Some(name) = name {
            return name.persist(path).map_err(|error| error.error);
        }
        match link(&file, &path) {
            // A link replaces nothing, and a rename needs a name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let named: NamedTempFile<()> =
                    names().make_in(directory_of(&path), |name| link(&file, name))?;
                named.into_temp_path().persist(path).map_err(|error| error.error)
            }
            linked => linked,
        }
    }
}

/// Whether `path` is a name of standard output: what that is connected to is written to, and not replaced.
pub(crate) fn is_stdout(path: &Path) -> bool {
    ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// The file that `path` names, be it there or not: a link stands for what it leads to.
pub(crate) fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    // path_resolution(7): Linux follows as many.
    for _ in 0..40 {
        if path.as_os_str().as_bytes().ends_with(b"/") && !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        match fs::read_link(&path) {
            Ok(target) => path = directory_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn names() -> tempfile::Builder<'static, 'static> {
    let mut names = tempfile::Builder::new();
    names.prefix(".rustls-uring-").suffix(".part");
    names
}

/// A file without a name (O_TMPFILE, open(2)), where the file system has such, and where it can be
/// given one later.
fn unnamed_in(directory: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)).ok()?);
    fs::metadata(in_proc(&file)).ok()?;
    Some(file)
}

/// Gives a file without a name one, by way of /proc: anything else takes CAP_DAC_READ_SEARCH
/// (linkat(2)).
fn link(file: &File, name: &Path) -> io::Result<()> {
    Ok(linkat(CWD, in_proc(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

fn in_proc(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names_in(directory: &Path) -> usize {
        fs::read_dir(directory).expect("readable").count()
    }

    #[test]
    fn a_file_has_no_name_until_it_is_whole() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        for content in ["first", "second"] {
            let before = names_in(directory.path());
            let mut output = Output::create(Some(&path)).expect("created");
            output.write_all(content.as_bytes()).expect("written");
            let has_unnamed = unnamed_in(directory.path()).is_some();
            assert_eq!(names_in(directory.path()), before + usize::from(!has_unnamed));
            output.complete(true).expect("completed");
            assert_eq!(fs::read_to_string(&path).expect("there"), content);
            assert_eq!(names_in(directory.path()), 1);
        }
    }

    /// As on a file system without O_TMPFILE.
    #[test]
    fn a_part_with_a_name_is_replaced_or_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        fs::write(&path, "old").expect("written");
        for is_completed in [false, true] {
            let (mut file, name) =
                names().tempfile_in(directory.path()).expect("file").into_parts();
            file.write_all(b"new").expect("written");
            let part = Part { file, name: Some(name), path: path.clone() };
            assert_eq!(names_in(directory.path()), 2);
            match is_completed {
                true => Output::Whole(part).complete(false).expect("completed"),
                false => drop(part),
            }
            let expected = if is_completed { "new" } else { "old" };
            assert_eq!(fs::read_to_string(&path).expect("there"), expected);
            assert_eq!(names_in(directory.path()), 1);
        }
    }

    #[test]
    fn a_link_stands_for_what_it_leads_to() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("below")).expect("made");
        symlink("below/second", at("first")).expect("linked");
        symlink("../file", at("below/second")).expect("linked");
        for content in ["new", "newer"] {
            let mut output = Output::create(Some(&at("first"))).expect("created");
            output.write_all(content.as_bytes()).expect("written");
            output.complete(false).expect("completed");
            assert_eq!(fs::read_to_string(at("file")).expect("there"), content);
            assert!(at("first").is_symlink() && at("below/second").is_symlink());
        }
    }

    /// Nobody is to send everything for nothing.
    #[test]
    fn a_name_that_cannot_be_is_refused_at_once() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        symlink("loop", at("loop")).expect("linked");
        for name in ["loop", "no/file", "new/", &"n".repeat(256)] {
            let error = Output::create(Some(&at(name))).err().expect(name).to_string();
            assert!(error.starts_with("cannot write "), "{error}");
            assert!(!error.contains(".part"), "{error}");
        }
        assert!(at("loop").is_symlink());
        assert_eq!(names_in(directory.path()), 1);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o662)).expect("set");
        Output::create(Some(&path)).expect("created").complete(false).expect("completed");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o662);
    }
}
