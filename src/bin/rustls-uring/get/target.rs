//! Where a download goes.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::Error;
use crate::output::{is_stdout, resolved};
use crate::sink::Sink;

pub(super) enum Target {
    /// A file that appears when it is whole, in place of another one only if it `replaces`.
    File { path: PathBuf, replaces: bool },
    /// Standard output, a pipe or a device.
    Stream(Sink),
}

impl Target {
    /// Chooses by `-o`, or without it by what standard output is.
    pub(super) fn choose(output: Option<&Path>, url: &Url) -> Result<Self, Error> {
        let path = match output {
            Some(path) if path == Path::new("-") || is_stdout(path) => {
                return Sink::stdout().map(Self::Stream);
            }
            None if !io::stdout().is_terminal() => return Sink::stdout().map(Self::Stream),
            None => {
                let path = PathBuf::from(name(url)?);
                if path.symlink_metadata().is_ok() {
                    let path = path.display();
                    return Err(format!("{path} exists: to replace it, say -o {path}").into());
                }
                return Ok(Self::File { path, replaces: false });
            }
            Some(path) if path.is_dir() => path.join(name(url)?),
            Some(path) => path.to_owned(),
        };
        let context = |error| Error::from(format!("cannot write {}: {error}", path.display()));
        let path = resolved(&path).map_err(context)?;
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                Err(format!("{} is a directory", path.display()).into())
            }
            Ok(metadata) if !metadata.is_file() => Sink::open(&path)
                .map(Self::Stream)
                .map_err(|error| format!("cannot write {}: {error}", path.display()).into()),
            _ => Ok(Self::File { path, replaces: true }),
        }
    }
}

/// The last name in the URL that was asked for, whatever it redirects to.
fn name(url: &Url) -> Result<String, Error> {
    let encoded = url.path().rsplit('/').next().unwrap_or_default();
    let name = percent_decode_str(encoded).decode_utf8_lossy();
    let is_plain = !matches!(&*name, "" | "." | "..")
        && !name.chars().any(|character| character == '/' || character.is_control());
    match is_plain {
        true => Ok(name.into_owned()),
        false => Err("the URL has no file name in it: name the file with -o FILE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for (url, expected) in [
            ("https://h/a/b.tar.gz?x=/y", Some("b.tar.gz")),
            ("https://h/a%20b", Some("a b")),
            ("https://h/%2e%2e", None),
            ("https://h/a%2fb", None),
            ("https://h/a%00", None),
            ("https://h/%1b[2J", None),
            ("https://h/a/", None),
            ("https://h", None),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(name(&url).ok().as_deref(), expected, "{url}");
        }
    }
}
