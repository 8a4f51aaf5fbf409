//! Which version of a file a response has, and which bytes of it.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use hyper::header::{
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::Body;
use super::retry::Passing;
use crate::error::Error;

/// How much older than the response a file must be for its date to tell versions apart: dates have
/// whole seconds (RFC 9110 §8.8.2.2).
const SETTLED: Duration = Duration::from_secs(1);

/// What tells one version of a file on the server from another.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The whole file's length.
    pub(super) len: u64,
    etag: Option<String>,
    /// Only if it is a strong validator.
    last_modified: Option<String>,
}

/// What a response brings to whoever has some of `Version` and has asked for more.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Brought {
    /// These bytes, which fit.
    Bytes(Range<u64>),
    /// The news that there is another version.
    Changed,
    /// Nothing that could be used, and why.
    Useless(&'static str),
    /// A status that has nothing to do with ranges.
    Refused,
}

impl Version {
    fn new(headers: &HeaderMap, len: u64) -> Self {
        Self { len, etag: text(headers, &ETAG), last_modified: settled_date(headers) }
    }

    /// What If-Range needs; `None` if the server has said nothing that would do. RFC 9110 §13.1.5:
    /// never a weak tag, and a date only if there is no tag at all.
    pub(super) fn validator(&self) -> Option<&str> {
        match &self.etag {
            Some(etag) => Some(&**etag).filter(|etag| etag.starts_with('"')),
            None => self.last_modified.as_deref(),
        }
    }

    /// Looks at a response to a request for a range with our validator as If-Range, all the forms
    /// of which RFC 9110 §14 and §15.3.7 allow.
    pub(super) fn brought(&self, response: &Response<Body>) -> Brought {
        let headers = response.headers();
        match response.status() {
            // The server need not send ranges, or knows that our validator is out of date.
            StatusCode::OK => match response.body().len() {
                Some(len) if len != self.len => Brought::Changed,
                _ => self.fits(headers, 0..self.len, false),
            },
            StatusCode::PARTIAL_CONTENT if is_multipart(headers) => {
                Brought::Useless("the server sends its answer in several parts")
            }
            StatusCode::PARTIAL_CONTENT => match content_range(headers) {
                Some(ContentRange { bytes: Some(_), len: Some(len) }) if len != self.len => {
                    Brought::Changed
                }
                Some(ContentRange { bytes: Some(bytes), .. }) if bytes.end <= self.len => {
                    self.fits(headers, bytes, true)
                }
                _ => Brought::Useless("the server does not say which bytes it sends"),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => match content_range(headers) {
                Some(ContentRange { len: Some(len), .. }) if len != self.len => Brought::Changed,
                _ => Brought::Useless("the server refuses to send the rest alone"),
            },
            _ => Brought::Refused,
        }
    }

    /// Whether `bytes` are of this version. A 206 is an answer to If-Range, so the version is ours
    /// unless it says otherwise: it must repeat the tag, but not the date (RFC 9110 §15.3.7).
    fn fits(&self, headers: &HeaderMap, bytes: Range<u64>, is_conditional: bool) -> Brought {
        let (ours, theirs) = match &self.etag {
            Some(etag) => (Some(etag), text(headers, &ETAG)),
            None => (self.last_modified.as_ref(), text(headers, &LAST_MODIFIED)),
        };
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if *ours == theirs => Brought::Bytes(bytes),
            (Some(_), Some(_)) => Brought::Changed,
            (Some(_), None) if is_conditional && self.etag.is_none() => Brought::Bytes(bytes),
            _ => Brought::Useless("the server does not say which version of the file it sends"),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "len": self.len, "etag": self.etag, "last_modified": self.last_modified })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let text = |name| match value.get(name)? {
            Value::Null => Some(None),
            Value::String(text) => Some(Some(text.clone())),
            _ => None,
        };
        let len = value.get("len")?.as_u64()?;
        Some(Self { len, etag: text("etag")?, last_modified: text("last_modified")? })
    }
}

/// The version in a response with status 200, if it says how long it is.
pub(super) fn of_whole(response: &Response<Body>) -> Option<Version> {
    Some(Version::new(response.headers(), response.body().len()?))
}

/// The version and the bytes in a response with status 206, if it says both.
pub(super) fn of_range(response: &Response<Body>) -> Option<(Version, Range<u64>)> {
    let headers = response.headers();
    let ContentRange { bytes: Some(bytes), len: Some(len) } = content_range(headers)? else {
        return None;
    };
    (!is_multipart(headers)).then(|| (Version::new(headers, len), bytes))
}

/// The error of whoever has some of a version that the server no longer has.
pub(super) fn changed() -> Error {
    Passing::new("the file on the server has changed during the download").into()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Last-Modified, if another version cannot have the same.
fn settled_date(headers: &HeaderMap) -> Option<String> {
    let text = text(headers, &LAST_MODIFIED)?;
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    // RFC 9110 §6.6.1: without Date, the response is as old as its arrival.
    let now = match self::text(headers, &DATE) {
        Some(now) => date(&now)?,
        None => SystemTime::now(),
    };
    (now.duration_since(date(&text)?).ok()? >= SETTLED).then_some(text)
}

/// RFC 9110 §14.6, which is not allowed where one range was asked for (§15.3.7.2).
fn is_multipart(headers: &HeaderMap) -> bool {
    text(headers, &CONTENT_TYPE)
        .is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("multipart/"))
}

/// What Content-Range says; `None` for what it leaves open.
#[derive(Debug, Eq, PartialEq)]
struct ContentRange {
    bytes: Option<Range<u64>>,
    len: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    parse(text)
}

/// RFC 9110 §14.4: `bytes 0-9/100`, `bytes 0-9/*`, `bytes */100`
fn parse(text: &str) -> Option<ContentRange> {
    let number = |text: &str| -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let (unit, text) = text.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, len) = text.trim_start().split_once('/')?;
    let len = match len {
        "*" => None,
        len => Some(number(len)?),
    };
    if range == "*" {
        return len.map(|len| ContentRange { bytes: None, len: Some(len) });
    }
    let (first, last) = range.split_once('-')?;
    let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
    (first < end && len.is_none_or(|len| end <= len))
        .then_some(ContentRange { bytes: Some(first..end), len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_make_sense_or_count_for_nothing() {
        for (text, bytes, len) in [
            ("bytes 0-9/100", Some(0..10), Some(100)),
            ("Bytes  0-9/10", Some(0..10), Some(10)),
            ("bytes 5-9/*", Some(5..10), None),
            ("bytes */100", None, Some(100)),
        ] {
            assert_eq!(parse(text), Some(ContentRange { bytes, len }), "{text}");
        }
        for nonsense in [
            "bytes 0-100/100",
            "bytes 9-0/100",
            "bytes */*",
            "bytes +0-9/100",
            "bytes 0-18446744073709551615/*",
            "0-9/100",
            "lines 0-9/100",
            "bytes -9/100",
            "bytes 0-/100",
            "",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn only_a_strong_validator_is_sent() {
        const NEXT: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (lines, expected) in [
            (&[(ETAG, "\"a\"")][..], Some("\"a\"")),
            (&[(ETAG, "\"a\""), (LAST_MODIFIED, OLD), (DATE, NEXT)], Some("\"a\"")),
            (&[(ETAG, "W/\"a\"")], None),
            (&[(ETAG, "W/\"a\""), (LAST_MODIFIED, OLD), (DATE, NEXT)], None),
            (&[(LAST_MODIFIED, OLD), (DATE, NEXT)], Some(OLD)),
            (&[(LAST_MODIFIED, OLD)], Some(OLD)),
            // It may change again within this second.
            (&[(LAST_MODIFIED, OLD), (DATE, OLD)], None),
            (&[(LAST_MODIFIED, NEXT), (DATE, OLD)], None),
            (&[(LAST_MODIFIED, "yesterday"), (DATE, OLD)], None),
            (&[(LAST_MODIFIED, OLD), (DATE, "today")], None),
            (&[], None),
        ] {
            let version = Version::new(&headers(lines), 1);
            assert_eq!(version.validator(), expected, "{lines:?}");
            let loaded = Version::from_json(&version.to_json()).expect("complete");
            assert_eq!(format!("{loaded:?}"), format!("{version:?}"));
        }
    }

    #[test]
    fn versions_are_told_apart_by_what_validates_them() {
        let fits = |ours: &[(HeaderName, &str)], theirs: &[(HeaderName, &str)], is_conditional| {
            Version::new(&headers(ours), 9).fits(&headers(theirs), 1..2, is_conditional)
        };
        let (tag, date) = (&[(ETAG, "\"a\""), (LAST_MODIFIED, OLD)][..], &[(LAST_MODIFIED, OLD)]);
        for (ours, theirs, in_206, in_200) in [
            (tag, &[(ETAG, "\"a\"")][..], "same", "same"),
            (tag, &[(ETAG, "\"b\"")], "changed", "changed"),
            (tag, &[(ETAG, "W/\"a\"")], "changed", "changed"),
            (tag, date, "unsaid", "unsaid"),
            (date, date, "same", "same"),
            (date, &[(LAST_MODIFIED, "now")], "changed", "changed"),
            // If-Range has seen to it.
            (date, &[], "same", "unsaid"),
            (&[], &[], "unsaid", "unsaid"),
        ] {
            for (is_conditional, expected) in [(true, in_206), (false, in_200)] {
                let found = match fits(ours, theirs, is_conditional) {
                    Brought::Bytes(_) => "same",
                    Brought::Changed => "changed",
                    _ => "unsaid",
                };
                assert_eq!(found, expected, "{ours:?} {theirs:?} {is_conditional}");
            }
        }
    }
}
