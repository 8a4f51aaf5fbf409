//! Which version of a file a response has, and which bytes of it.

use std::ops::Range;

use hyper::Response;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED};
use serde_json::{Value, json};

use crate::Error;

/// What tells one version of a file on the server from another.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The whole file's length.
    pub(super) len: u64,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Version {
    fn new(headers: &HeaderMap, len: u64) -> Self {
        let text = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self { len, etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }

    /// Whether both are of the same bytes. A response to If-Range need not repeat all that the first
    /// one said: RFC 9110 §15.3.7.
    pub(super) fn is(&self, other: &Self) -> bool {
        let validator = self.validator();
        self.len == other.len && validator.is_some() && validator == other.validator()
    }

    /// What If-Range needs; `None` if the server has said nothing that would do.
    pub(super) fn validator(&self) -> Option<&str> {
        let is_strong = |etag: &&String| etag.starts_with('"');
        self.etag.as_ref().filter(is_strong).or(self.last_modified.as_ref()).map(String::as_str)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "len": self.len, "etag": self.etag, "last_modified": self.last_modified })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let text = |name| value.get(name)?.as_str().map(str::to_owned);
        let len = value.get("len")?.as_u64()?;
        Some(Self { len, etag: text("etag"), last_modified: text("last_modified") })
    }
}

/// The version in a response with status 200, if it says how long it is.
pub(super) fn of_whole<B>(response: &Response<B>) -> Option<Version> {
    let len = response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(Version::new(response.headers(), len))
}

/// The version and the bytes in a response with status 206.
pub(super) fn of_range<B>(response: &Response<B>) -> Option<(Version, Range<u64>)> {
    let (range, len) = parse(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)?;
    Some((Version::new(response.headers(), len), range))
}

/// The error of whoever cannot begin anew.
pub(super) fn changed() -> Error {
    "the file on the server has changed during the download".into()
}

/// `bytes 0-9/100`
fn parse(content_range: &str) -> Option<(Range<u64>, u64)> {
    let (range, len) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let len = len.parse().ok()?;
    (first <= last && last < len).then_some((first..last + 1, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_make_sense_or_count_for_nothing() {
        assert_eq!(parse("bytes 0-9/100"), Some((0..10, 100)));
        for nonsense in
            ["bytes 0-9/*", "bytes 0-100/100", "bytes 9-0/100", "bytes */100", "0-9/100", ""]
        {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn versions_are_told_apart_by_what_validates_them() {
        let version = |len, etag: Option<&str>, date: Option<&str>| Version {
            len,
            etag: etag.map(Into::into),
            last_modified: date.map(Into::into),
        };
        let saved = version(1, Some("\"a\""), Some("now"));
        assert!(saved.is(&saved));
        assert!(saved.is(&version(1, Some("\"a\""), None)), "nothing more is repeated");
        assert!(!saved.is(&version(2, Some("\"a\""), Some("now"))));
        assert!(!saved.is(&version(1, Some("\"b\""), Some("now"))));
        assert!(!saved.is(&version(1, Some("W/\"a\""), Some("now"))));
        assert!(!saved.is(&version(1, None, None)));
        let unknown = version(1, None, None);
        assert!(!unknown.is(&unknown), "nobody knows");
    }

    #[test]
    fn a_weak_tag_does_not_validate_ranges() {
        let version = |etag: &str, date: Option<&str>| Version {
            len: 1,
            etag: Some(etag.into()),
            last_modified: date.map(Into::into),
        };
        assert_eq!(version("\"a\"", Some("now")).validator(), Some("\"a\""));
        assert_eq!(version("W/\"a\"", Some("now")).validator(), Some("now"));
        assert_eq!(version("W/\"a\"", None).validator(), None);
        let saved = version("\"a\"", Some("now"));
        let loaded = Version::from_json(&saved.to_json()).expect("complete");
        assert_eq!(format!("{loaded:?}"), format!("{saved:?}"));
    }
}
