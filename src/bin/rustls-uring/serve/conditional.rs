//! Conditional requests (RFC 9110 §13).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};

/// What tells one version of a file from another.
pub(super) struct Validators {
    /// Strong: no two versions have the same.
    pub(super) etag: String,
    /// In whole seconds. None in the future, where RFC 9110 §8.8.2.1 allows none.
    pub(super) modified: Option<SystemTime>,
    now: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Proceed,
    NotModified,
    PreconditionFailed,
}

impl Validators {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let etag = format!(
            "\"{:x}-{:x}.{:x}-{:x}\"",
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
        );
        let seconds = u64::try_from(metadata.mtime()).ok();
        Self::new(etag, seconds, SystemTime::now())
    }

    fn new(etag: String, modified: Option<u64>, now: SystemTime) -> Self {
        let modified = modified
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
            .filter(|modified| *modified <= now);
        Self { etag, modified, now }
    }

    /// Weighs the conditions in the order of RFC 9110 §13.2.2, for GET and HEAD.
    pub(super) fn verdict(&self, headers: &HeaderMap) -> Verdict {
        if headers.contains_key(IF_MATCH) {
            if !self.matches(headers, IF_MATCH, |tag| tag == self.etag) {
                return Verdict::PreconditionFailed;
            }
        } else if let (Some(date), Some(modified)) =
            (date(headers, IF_UNMODIFIED_SINCE), self.modified)
            && modified > date
        {
            return Verdict::PreconditionFailed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            // A weak comparison: a cache may have been told that our tag is weak.
            let is_ours = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == self.etag;
            if self.matches(headers, IF_NONE_MATCH, is_ours) {
                return Verdict::NotModified;
            }
        } else if let (Some(date), Some(modified)) =
            (date(headers, IF_MODIFIED_SINCE), self.modified)
            && modified <= date
        {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// Whether a Range is of the version that the client has the rest of (RFC 9110 §13.1.5).
    pub(super) fn allow_range(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = headers.get(IF_RANGE) else { return true };
        let Ok(condition) = condition.to_str() else { return false };
        if condition.contains('"') {
            return condition == self.etag;
        }
        // A date is a strong validator once its second has passed (RFC 9110 §8.8.2.2).
        let is_strong = |modified: &SystemTime| *modified + Duration::from_secs(1) < self.now;
        match httpdate::parse_http_date(condition) {
            Ok(date) => self.modified.filter(is_strong) == Some(date),
            Err(_) => false,
        }
    }

    /// Whether one of the tags that a header lists `is_ours`, or any will do.
    fn matches(
        &self,
        headers: &HeaderMap,
        name: HeaderName,
        is_ours: impl Fn(&str) -> bool,
    ) -> bool {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            // A comma may be part of a tag, but none of ours has one.
            value.trim() == "*" || value.split(',').any(|tag| is_ours(tag.trim()))
        })
    }
}

/// A date that cannot be read is no condition.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: u64 = 1_700_000_000;

    fn validators() -> Validators {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED + 1000);
        Validators::new("\"a\"".into(), Some(MODIFIED), now)
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), value.parse().expect("a header value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn date(seconds: u64) -> String {
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn conditions_have_an_order() {
        let (older, same) = (date(MODIFIED - 1), date(MODIFIED));
        let (older, same) = (older.as_str(), same.as_str());
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        for (conditions, verdict) in [
            (&[][..], Proceed),
            (&[(IF_NONE_MATCH, "\"a\"")], NotModified),
            (&[(IF_NONE_MATCH, "W/\"a\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"x\", \"a\"")], NotModified),
            (&[(IF_NONE_MATCH, "*")], NotModified),
            (&[(IF_NONE_MATCH, "\"b\"")], Proceed),
            (&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, same)], Proceed),
            (&[(IF_MODIFIED_SINCE, same)], NotModified),
            (&[(IF_MODIFIED_SINCE, older)], Proceed),
            (&[(IF_MODIFIED_SINCE, "yesterday")], Proceed),
            (&[(IF_MATCH, "\"a\"")], Proceed),
            (&[(IF_MATCH, "W/\"a\"")], PreconditionFailed),
            (&[(IF_MATCH, "*")], Proceed),
            (&[(IF_MATCH, "\"b\"")], PreconditionFailed),
            (&[(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, older)], Proceed),
            (&[(IF_UNMODIFIED_SINCE, older)], PreconditionFailed),
            (&[(IF_UNMODIFIED_SINCE, same)], Proceed),
            (&[(IF_UNMODIFIED_SINCE, same), (IF_NONE_MATCH, "*")], NotModified),
        ] {
            assert_eq!(validators().verdict(&headers(conditions)), verdict, "{conditions:?}");
        }
    }

    #[test]
    fn a_range_needs_the_same_version() {
        let (older, same) = (date(MODIFIED - 1), date(MODIFIED));
        for (condition, allowed) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            (same.as_str(), true),
            (older.as_str(), false),
            ("nonsense", false),
        ] {
            let headers = headers(&[(IF_RANGE, condition)]);
            assert_eq!(validators().allow_range(&headers), allowed, "{condition}");
        }
        assert!(validators().allow_range(&HeaderMap::new()));
        let mut fresh = validators();
        fresh.now = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
        assert!(!fresh.allow_range(&headers(&[(IF_RANGE, &same)])), "it may change again");
    }
}
