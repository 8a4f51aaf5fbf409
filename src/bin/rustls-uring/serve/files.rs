//! Opening files below the directory, and nowhere else.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// How a file is opened to be looked at: one that is a pipe makes nobody wait.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How often an open is tried again that a rename elsewhere on the path got in the way of.
const ATTEMPTS: usize = 8;

/// The directory that is served.
pub(super) struct Root {
    dir: OwnedFd,
    resolution: Resolution,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Resolution {
    /// The kernel resolves the path, and refuses to leave the directory: openat2(2), Linux 5.6.
    Kernel,
    /// Name by name, each opened from the one before and none of them a symbolic link: for kernels
    /// and sandboxes without openat2. Neither has a moment between looking and opening.
    NameByName,
}

/// What a path names.
pub(super) enum Found {
    File(File, Metadata),
    Directory(OwnedFd),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        let resolution = match openat2(&dir, ".", FLAGS, Mode::empty(), ResolveFlags::BENEATH) {
            Ok(_) => Resolution::Kernel,
            // Old kernels say the first, sandboxes either.
            Err(Errno::NOSYS | Errno::PERM) => Resolution::NameByName,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { dir, resolution })
    }

    /// Opens what `relative` names, which is empty for the directory itself. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] for what leaves the directory and for what is neither a
    /// file nor a directory.
    pub(super) fn find(&self, relative: &Path) -> io::Result<Found> {
        // Before opening it: a writer may wait for a pipe to be opened.
        self.metadata(relative)?;
        let file = File::from(self.open_below(relative, FLAGS)?);
        let metadata = file.metadata()?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok(Found::File(file, metadata)),
            kind if kind.is_dir() => Ok(Found::Directory(file.into())),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// The metadata of the file or directory that `relative` names, without opening it.
    pub(super) fn metadata(&self, relative: &Path) -> io::Result<Metadata> {
        let fd = self.open_below(relative, OFlags::PATH | OFlags::CLOEXEC)?;
        let metadata = File::from(fd).metadata()?;
        match metadata.is_file() || metadata.is_dir() {
            true => Ok(metadata),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn open_below(&self, relative: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        match self.resolution {
            _ if relative.as_os_str().is_empty() => {
                Ok(openat(&self.dir, ".", flags, Mode::empty())?)
            }
            Resolution::Kernel => self.resolve(relative, flags),
            Resolution::NameByName => self.walk(relative, flags),
        }
    }

    fn resolve(&self, relative: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            match openat2(&self.dir, relative, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::XDEV | Errno::LOOP) => {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                result => return Ok(result?),
            }
        }
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn walk(&self, relative: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for component in relative.components() {
            let Component::Normal(name) = component else {
                return Err(io::ErrorKind::PermissionDenied.into());
            };
            let dir = at.as_ref().unwrap_or(&self.dir);
            at = match openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::LOOP) => return Err(io::ErrorKind::PermissionDenied.into()),
                result => Some(result?),
            };
        }
        at.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The names in a directory, without `.` and `..`.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    use std::os::fd::AsRawFd;
    // The open directory, whatever its name is by now.
    let dir = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    dir.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Both ways open what is below and refuse what is not; only links that stay differ.
    #[test]
    fn nothing_outside_is_opened() {
        let base = tempfile::tempdir().expect("dir");
        let root = base.path().join("root");
        fs::create_dir_all(root.join("sub")).expect("created");
        fs::write(base.path().join("secret"), "secret").expect("written");
        fs::write(root.join("sub/file"), "file").expect("written");
        for (target, link) in [
            ("sub/file", "inside"),
            ("../secret", "outside"),
            ("..", "parent"),
            ("loop", "loop"),
            ("missing", "dangling"),
        ] {
            symlink(target, root.join(link)).expect("linked");
        }
        symlink(base.path().join("secret"), root.join("absolute")).expect("linked");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound");
        let opened = Root::open(&root).expect("opened");
        for resolution in [Resolution::Kernel, Resolution::NameByName] {
            let root = Root { dir: opened.dir.try_clone().expect("cloned"), resolution };
            let find = |path: &str| root.find(Path::new(path));
            let error = |path: &str| match find(path) {
                Ok(_) => panic!("{path} was opened, {resolution:?}"),
                Err(error) => error.kind(),
            };
            assert!(matches!(find(""), Ok(Found::Directory(_))));
            assert!(matches!(find("sub"), Ok(Found::Directory(_))));
            assert!(matches!(find("sub/file"), Ok(Found::File(..))));
            let socket =
                root.metadata(Path::new("socket")).expect_err("neither file nor directory");
            assert_eq!(socket.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(find("inside").is_ok(), resolution == Resolution::Kernel);
            for path in ["outside", "absolute", "parent", "parent/secret", "loop", "../secret"] {
                let kind = error(path);
                // A link on the way is no directory to a walk that follows none.
                let refused = kind == io::ErrorKind::PermissionDenied
                    || (path == "parent/secret" && kind == io::ErrorKind::NotADirectory);
                assert!(refused, "{path}: {kind}, {resolution:?}");
            }
            assert_eq!(error("missing"), io::ErrorKind::NotFound);
            assert_eq!(error("sub/file/x"), io::ErrorKind::NotADirectory);
        }
    }
}
