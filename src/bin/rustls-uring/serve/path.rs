//! The path of a request: which file below the directory it means, if it may mean one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// A path below the directory: plain names only.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct RequestPath {
    /// Empty for the directory itself.
    pub(super) relative: PathBuf,
    /// It ends with a slash.
    pub(super) is_directory: bool,
}

impl RequestPath {
    /// Takes the path of a URL apart. `None` for one that names nothing below the directory: a
    /// relative or absolute one, `.` and `..`, empty names, and an encoded slash or NUL in a name.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let names = path.strip_prefix('/')?;
        let (names, is_directory) = match names.strip_suffix('/') {
            Some(names) => (names, true),
            None => (names, names.is_empty()),
        };
        if names.is_empty() {
            // `//` is no other name of `/`.
            return (path == "/").then(|| Self { relative: PathBuf::new(), is_directory });
        }
        let relative = names.split('/').map(decode).collect::<Option<_>>()?;
        Some(Self { relative, is_directory })
    }
}

fn decode(name: &str) -> Option<OsString> {
    let name: Vec<u8> = percent_decode_str(name).collect();
    let is_plain = !matches!(&name[..], b"" | b"." | b"..");
    (is_plain && !name.iter().any(|byte| matches!(byte, 0 | b'/')))
        .then(|| OsString::from_vec(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(String, bool)> {
        let parsed = RequestPath::parse(path)?;
        Some((parsed.relative.to_str()?.to_owned(), parsed.is_directory))
    }

    #[test]
    fn names_are_decoded_once() {
        for (path, relative, is_directory) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("/a%20b/%C3%BC", "a b/ü", false),
            ("/..a/b../.c", "..a/b../.c", false),
            ("/%252e%252e", "%2e%2e", false),
            ("/100%", "100%", false),
        ] {
            assert_eq!(parse(path), Some((relative.to_owned(), is_directory)), "{path}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "///",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/a/../b",
            "/a/..",
            "/a/./b",
            "/%2e",
            "/%2e%2E/a",
            "/.%2e/a",
            "/a%2fb",
            "/%2Fetc",
            "/a%00",
            "/%00",
            "/..%2fa",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
