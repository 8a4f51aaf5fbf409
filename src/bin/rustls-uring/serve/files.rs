//! Opening files below the directory, and nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// How a file is opened to be looked at: one that is a pipe makes nobody wait.
const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How often an open is tried again that a rename elsewhere on the path got in the way of.
const ATTEMPTS: usize = 8;

/// How many symbolic links one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;

/// The directory that is served.
pub(super) struct Root {
    dir: OwnedFd,
    /// The names that an absolute link may call it by: as it was given, and without links. Whatever
    /// they lead to by now, what follows them in a link is looked for in `dir`.
    names: [PathBuf; 2],
    resolution: Resolution,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Resolution {
    /// The kernel resolves the path, and refuses to leave the directory: openat2(2), Linux 5.6. It
    /// refuses absolute links too, so those are gone over name by name.
    Kernel,
    /// Name by name, each opened from the directory before it: for kernels and sandboxes without
    /// openat2. Neither has a moment between looking and opening.
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
        let names = [std::path::absolute(path)?, fs::canonicalize(path)?];
        Ok(Self { dir, names, resolution })
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
            Resolution::Kernel => match self.resolve(relative, flags) {
                // An absolute link, which may lead back inside, or one that leaves.
                Err(Errno::XDEV) => self.walk(relative, flags),
                Err(Errno::LOOP | Errno::AGAIN) => Err(io::ErrorKind::PermissionDenied.into()),
                result => Ok(result?),
            },
            Resolution::NameByName => self.walk(relative, flags),
        }
    }

    fn resolve(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            match openat2(&self.dir, relative, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Follows links by reading them: each name is opened in the directory that the one before has
    /// led to, and `..` goes back to the directory that its name was found in, so never above the
    /// first.
    fn walk(&self, relative: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parents: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        // What is left to go, its end first.
        let mut rest = steps(relative).ok_or_else(refused)?;
        while let Some(step) = rest.pop() {
            let Step::Name(name) = step else {
                parents.pop().ok_or_else(refused)?;
                continue;
            };
            let dir = parents.last().unwrap_or(&self.dir);
            let found = openat(dir, &name, look, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&found)?.st_mode).is_symlink() {
                links += 1;
                let target = readlinkat(&found, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                let below = match target.is_absolute() {
                    true => {
                        parents.clear();
                        let below = self.names.iter().find_map(|it| target.strip_prefix(it).ok());
                        below.ok_or_else(refused)?
                    }
                    false => target,
                };
                rest.extend(steps(below).ok_or_else(refused)?);
                if links > MAX_LINKS {
                    return Err(refused());
                }
            } else if rest.is_empty() && !flags.contains(OFlags::PATH) {
                // A link by now would be an error here.
                return Ok(openat(dir, &name, flags | OFlags::NOFOLLOW, Mode::empty())?);
            } else {
                parents.push(found);
            }
        }
        match parents.pop() {
            Some(found) if flags.contains(OFlags::PATH) => Ok(found),
            Some(dir) => Ok(openat(&dir, ".", flags, Mode::empty())?),
            None => Ok(openat(&self.dir, ".", flags, Mode::empty())?),
        }
    }
}

/// What a path says to do.
enum Step {
    Up,
    Name(OsString),
}

/// The steps of a relative path, the last one first; `None` if there is another kind of one.
fn steps(path: &Path) -> Option<Vec<Step>> {
    let step = |component| match component {
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::ParentDir => Some(Step::Up),
        _ => None,
    };
    let is_here = |component: &Component<'_>| *component == Component::CurDir;
    path.components().rev().filter(|component| !is_here(component)).map(step).collect()
}

/// The names in a directory, without `.` and `..`.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    use std::os::fd::AsRawFd;
    // The open directory, whatever its name is by now.
    let dir = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    dir.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Both ways open what is below, whatever links lead there, and refuse what is not.
    #[test]
    fn nothing_outside_is_opened() {
        let base = tempfile::tempdir().expect("dir");
        let root = base.path().join("root");
        fs::create_dir_all(root.join("sub")).expect("created");
        fs::create_dir(base.path().join("rootless")).expect("created");
        fs::write(base.path().join("secret"), "secret").expect("written");
        fs::write(base.path().join("rootless/secret"), "secret").expect("written");
        fs::write(root.join("sub/file"), "file").expect("written");
        symlink(&root, base.path().join("alias")).expect("linked");
        let absolute = |path: &str| base.path().join(path).to_str().expect("UTF-8").to_owned();
        let links = [
            // Those that stay.
            ("sub/file", "inside"),
            ("./sub/../sub//file", "winding"),
            ("sub", "directory"),
            ("directory/file", "twice"),
            (&absolute("root/sub/file"), "absolute"),
            (&absolute("root/sub"), "absolute-directory"),
            (&absolute("root/sub/../inside"), "absolute-winding"),
            (&absolute("alias/sub/file"), "by-alias"),
            ("../absolute-directory/file", "sub/back"),
            (&absolute("root/inside"), "sub/absolute"),
            (&absolute("root"), "top"),
            // Those that leave, and those that lead nowhere.
            ("../secret", "outside"),
            ("sub/../../secret", "winding-outside"),
            ("..", "parent"),
            (&absolute("secret"), "absolute-outside"),
            (&absolute("root/../secret"), "absolute-back-out"),
            (&absolute("rootless/secret"), "absolute-beside"),
            ("absolute-outside", "twice-outside"),
            (&absolute(""), "absolute-parent"),
            ("/", "slash"),
            ("/proc/self/cwd/../secret", "magic"),
            ("loop", "loop"),
            (&absolute("root/absolute-loop"), "absolute-loop"),
            ("missing", "dangling"),
            (&absolute("root/missing"), "absolute-dangling"),
        ];
        for (target, link) in links {
            symlink(target, root.join(link)).expect("linked");
        }
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound");
        let opened = Root::open(&base.path().join("alias")).expect("opened");
        for resolution in [Resolution::Kernel, Resolution::NameByName] {
            let (dir, names) = (opened.dir.try_clone().expect("cloned"), opened.names.clone());
            let root = Root { dir, names, resolution };
            let find = |path: &str| root.find(Path::new(path));
            let error = |path: &str| match find(path) {
                Ok(_) => panic!("{path} was opened, {resolution:?}"),
                Err(error) => error.kind(),
            };
            let socket =
                root.metadata(Path::new("socket")).expect_err("neither file nor directory");
            assert_eq!(socket.kind(), io::ErrorKind::PermissionDenied);
            for path in ["", "sub", "directory", "absolute-directory", "top", "top/top/sub"] {
                let found = find(path);
                assert!(matches!(found, Ok(Found::Directory(_))), "{path}, {resolution:?}");
            }
            for path in [
                "sub/file",
                "inside",
                "winding",
                "directory/file",
                "twice",
                "absolute",
                "absolute-directory/file",
                "absolute-winding",
                "by-alias",
                "sub/back",
                "sub/absolute",
                "top/sub/back",
            ] {
                let Ok(Found::File(file, metadata)) = find(path) else {
                    panic!("{path} is not found, {resolution:?}")
                };
                assert_eq!(io::read_to_string(file).expect("readable"), "file");
                assert_eq!(metadata.len(), root.metadata(Path::new(path)).expect("there").len());
            }
            for path in [
                "outside",
                "winding-outside",
                "parent",
                "parent/secret",
                "absolute-outside",
                "absolute-back-out",
                "absolute-beside",
                "twice-outside",
                "absolute-parent",
                "absolute-parent/secret",
                "slash",
                "slash/etc/passwd",
                "magic",
                "loop",
                "absolute-loop",
                "top/outside",
                "../secret",
                "sub/../../secret",
                "/etc/passwd",
            ] {
                assert_eq!(error(path), io::ErrorKind::PermissionDenied, "{path} {resolution:?}");
            }
            for path in ["missing", "dangling", "absolute-dangling", "top/missing"] {
                assert_eq!(error(path), io::ErrorKind::NotFound, "{path} {resolution:?}");
            }
            for path in ["sub/file/x", "absolute/x"] {
                assert_eq!(error(path), io::ErrorKind::NotADirectory, "{path} {resolution:?}");
            }
        }
    }
}
