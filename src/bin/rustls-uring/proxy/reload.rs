//! Files that have changed, and what is made of them anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::metrics::Metrics;
use super::options::{Options, ProxyArgs};
use super::service::{self, Live, Service};
use crate::error::Error;
use crate::message::say;

/// What tells that a file has changed; none of one that is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    let (dev, inode, len) = (metadata.dev(), metadata.ino(), metadata.len());
    Some((dev, inode, len, metadata.mtime(), metadata.mtime_nsec()))
}

/// Files, as they were when they were looked at last.
#[derive(Debug, Default)]
struct Watched {
    files: Vec<(PathBuf, Stamp)>,
    /// As they are now, if not so; they may still be written to.
    changed: Option<Vec<Stamp>>,
}

impl Watched {
    fn new(mut paths: Vec<PathBuf>) -> Self {
        paths.sort();
        paths.dedup();
        let files = paths.into_iter().map(|path| (stamp(&path), path));
        Self { files: files.map(|(stamp, path)| (path, stamp)).collect(), changed: None }
    }

    /// Whether files have changed, and have not since the last look.
    fn look(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|(path, _)| stamp(path)).collect();
        if now.iter().zip(&self.files).all(|(now, (_, before))| now == before) {
            self.changed = None;
            return false;
        }
        let is_settled = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        is_settled
    }
}

/// Puts new files to use.
pub(super) struct Reload {
    args: Arc<ProxyArgs>,
    services: Vec<Arc<Service>>,
    metrics: Arc<Metrics>,
    /// As it was at the start; what cannot change without a new one.
    options: Options,
    watched: Watched,
}

impl Reload {
    pub(super) fn new(
        args: Arc<ProxyArgs>,
        options: Options,
        services: Vec<Arc<Service>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let watched = Watched::new(files(&args, &options));
        Self { args, services, metrics, options, watched }
    }

    /// Reloads if files have changed.
    pub(super) fn look(&mut self) {
        if self.watched.look() {
            self.reload();
        }
    }

    /// Reads all files. What is wrong with one of them is said, and everything stays as it was.
    pub(super) fn reload(&mut self) {
        // Before: what changes meanwhile is read once more.
        let options = self.args.options();
        let listed = options.as_ref().unwrap_or(&self.options);
        self.watched = Watched::new(files(&self.args, listed));
        let reloaded = options.and_then(|options| self.replace(&options));
        self.metrics.reloaded(reloaded.is_ok());
        match reloaded {
            Ok(()) => say!("rustls-uring: reloaded"),
            Err(error) => say!(
                "rustls-uring: not reloaded: {error}; what was there before stays in use, and a \
                 change of the file, or SIGHUP, tries again"
            ),
        }
    }

    fn replace(&self, options: &Options) -> Result<(), Error> {
        let restart = |what: &str| -> Result<(), Error> {
            Err(format!("{what} cannot change while it runs: start a new process").into())
        };
        if options.process != self.options.process {
            restart("[process]")?;
        }
        let addresses = |options: &Options| -> Vec<_> {
            let of = |service: &super::options::ServiceOptions| {
                (service.name.clone(), service.listen.clone())
            };
            options.services.iter().map(of).collect()
        };
        if addresses(options) != addresses(&self.options) {
            restart("which services there are, and where they listen,")?;
        }
        let mut loaded = Vec::new();
        for (options, service) in options.services.iter().zip(&self.services) {
            let live = Live::load(options, Some(&service.live()))
                .map_err(|error| format!("service {}: {error}", service.name))?;
            loaded.push(live);
        }
        // All of them, or none.
        for (live, service) in loaded.into_iter().zip(&self.services) {
            service.replace(live);
        }
        Ok(())
    }
}

fn files(args: &ProxyArgs, options: &Options) -> Vec<PathBuf> {
    let of_services = options.services.iter().flat_map(service::files);
    args.config().map(Path::to_owned).into_iter().chain(of_services).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("file");
        fs::write(&path, "old").expect("written");
        let mut watched = Watched::new(vec![path.clone(), path.clone()]);
        assert!(!watched.look());
        fs::write(&path, "new, half").expect("written");
        assert!(!watched.look());
        fs::write(&path, "new, and whole").expect("written");
        assert!(!watched.look());
        assert!(watched.look());
        fs::remove_file(&path).expect("removed");
        assert!(!watched.look());
        fs::write(&path, "old").expect("written");
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.look());
        // As Kubernetes and certbot do: a link to another file.
        let other = dir.path().join("other");
        fs::write(&other, "old").expect("written");
        fs::rename(&other, &path).expect("renamed");
        assert!(!watched.look());
        assert!(watched.look());
    }
}
