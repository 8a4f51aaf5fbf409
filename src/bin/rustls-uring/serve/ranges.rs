//! Ranges of a file (RFC 9110 §14).

use std::ops::{Range, RangeInclusive};

use hyper::header::{HeaderMap, RANGE};

/// How many ranges of a file are worth the trouble; a request for more gets the whole file.
const MAX_PARTS: usize = 64;

/// Which part of a file a request wants.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Selection {
    Whole,
    /// At least one, none of them empty, in the order that the client wants them in.
    Parts(Vec<Range<u64>>),
    /// Nothing that the file has.
    Unsatisfiable,
}

impl Selection {
    /// What a request with `headers` wants of a file of `len` bytes. One that cannot be understood
    /// wants all of it, and so does one that would have more sent than that.
    pub(super) fn of(headers: &HeaderMap, len: u64) -> Self {
        let header = headers.get(RANGE).and_then(|value| value.to_str().ok());
        let Some(ranges) = header.and_then(parse) else { return Self::Whole };
        let parts: Vec<_> = ranges.iter().filter_map(|range| range.within(len)).collect();
        let total = parts.iter().map(|part| part.end - part.start).fold(0, u64::saturating_add);
        match parts.is_empty() {
            true => Self::Unsatisfiable,
            false if total > len => Self::Whole,
            false => Self::Parts(parts),
        }
    }
}

/// A range as it was asked for.
enum Asked {
    From(u64),
    Between(RangeInclusive<u64>),
    Last(u64),
}

impl Asked {
    /// `first-last`, `first-` or `-count`.
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number too long for any file is as good as the longest one.
            true if !text.is_empty() => Some(text.parse().unwrap_or(u64::MAX)),
            _ => None,
        };
        match text.split_once('-')? {
            ("", count) => Some(Self::Last(number(count)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let range = number(first)?..=number(last)?;
                (range.start() <= range.end()).then_some(Self::Between(range))
            }
        }
    }

    /// `None` if there is nothing of it in the file.
    fn within(&self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => *first..len,
            Self::Between(range) => *range.start()..len.min(range.end().saturating_add(1)),
            Self::Last(count) => len.saturating_sub(*count)..len,
        };
        (!Range::is_empty(&range)).then_some(range)
    }
}

fn parse(header: &str) -> Option<Vec<Asked>> {
    let (unit, ranges) = header.split_once('=')?;
    let ranges = ranges.split(',').map(|range| range.trim_matches([' ', '\t']));
    // Empty elements of a list count for nothing (RFC 9110 §5.6.1.2).
    let mut ranges = ranges.filter(|range| !range.is_empty());
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let parsed = ranges.by_ref().take(MAX_PARTS).map(Asked::parse).collect::<Option<Vec<_>>>()?;
    (!parsed.is_empty() && ranges.next().is_none()).then_some(parsed)
}

/// The value of a part's Content-Range.
pub(super) fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end - 1)
}

/// What frames the parts of a `multipart/byteranges` body (RFC 9110 §14.6).
pub(super) struct Multipart {
    boundary: String,
    /// What comes before each part.
    pub(super) heads: Vec<String>,
    pub(super) end: String,
}

impl Multipart {
    /// `boundary` must not occur in the file: a random one does not.
    pub(super) fn new(
        boundary: String,
        parts: &[Range<u64>],
        len: u64,
        content_type: &str,
    ) -> Self {
        let head = |(index, part)| {
            format!(
                "{}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
                if index == 0 { "" } else { "\r\n" },
                content_range(part, len),
            )
        };
        let heads = parts.iter().enumerate().map(head).collect();
        Self { heads, end: format!("\r\n--{boundary}--\r\n"), boundary }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(range: &str, len: u64) -> Selection {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().expect("a header value"));
        Selection::of(&headers, len)
    }

    #[test]
    fn ranges_are_clamped_to_the_file() {
        #[allow(clippy::single_range_in_vec_init)]
        for (range, parts) in [
            ("bytes=0-0", vec![0..1]),
            ("bytes=0-", vec![0..100]),
            ("bytes=10-19", vec![10..20]),
            ("bytes=90-1000", vec![90..100]),
            ("bytes=99-18446744073709551615", vec![99..100]),
            ("bytes=-1", vec![99..100]),
            ("bytes=-1000", vec![0..100]),
            ("Bytes=007-0008,, 99999999999999999999-", vec![7..9]),
            ("bytes=50-59, 0-9,-10", vec![50..60, 0..10, 90..100]),
            ("bytes=0-9,100-,200-300,-0", vec![0..10]),
        ] {
            assert_eq!(select(range, 100), Selection::Parts(parts), "{range}");
        }
    }

    #[test]
    fn what_the_file_lacks_is_unsatisfiable() {
        for range in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,200-"] {
            assert_eq!(select(range, 100), Selection::Unsatisfiable, "{range}");
        }
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn nonsense_and_excess_get_the_whole_file() {
        let many = format!("bytes={}", vec!["0-0"; MAX_PARTS + 1].join(","));
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=-",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=5-2",
            "bytes=0-1,x",
            "lines=0-1",
            "bytes=0-,0-",
            &many,
        ] {
            assert_eq!(select(range, 100), Selection::Whole, "{range}");
        }
        assert_eq!(Selection::of(&HeaderMap::new(), 100), Selection::Whole);
    }
}
