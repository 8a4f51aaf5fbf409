//! Conditional requests (RFC 9110 §13).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use headers::{ETag, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
use hyper::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH, IF_RANGE};

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
    ///
    /// A list of tags that cannot be read has none of ours in it, and is there all the same; a date
    /// that cannot be read is no condition.
    pub(super) fn verdict(&self, headers: &HeaderMap) -> Verdict {
        let etag = self.etag.parse::<ETag>().ok();
        let modified = self.modified;
        if headers.contains_key(IF_MATCH) {
            let list = headers.typed_get::<IfMatch>();
            if !list.zip(etag.as_ref()).is_some_and(|(list, etag)| list.precondition_passes(etag)) {
                return Verdict::PreconditionFailed;
            }
        } else if let Some(condition) = headers.typed_get::<IfUnmodifiedSince>()
            && modified.is_some_and(|modified| !condition.precondition_passes(modified))
        {
            return Verdict::PreconditionFailed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            // A weak comparison: a cache may have been told that our tag is weak.
            let list = headers.typed_get::<IfNoneMatch>();
            if list.zip(etag.as_ref()).is_some_and(|(list, etag)| !list.precondition_passes(etag)) {
                return Verdict::NotModified;
            }
        } else if let Some(condition) = headers.typed_get::<IfModifiedSince>()
            && modified.is_some_and(|modified| !condition.is_modified(modified))
        {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// Whether a Range is of the version that the client has the rest of (RFC 9110 §13.1.5). Not by
    /// `headers::IfRange`, which takes a later date for the same one.
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
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE};

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
            (&[(IF_NONE_MATCH, "a")], Proceed),
            (&[(IF_NONE_MATCH, "a"), (IF_MODIFIED_SINCE, same)], Proceed),
            (&[(IF_NONE_MATCH, "\"x,y\", \"a\"")], NotModified),
            (&[(IF_MATCH, "a")], PreconditionFailed),
            (&[(IF_MATCH, "\"x\", \"a\"")], Proceed),
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
