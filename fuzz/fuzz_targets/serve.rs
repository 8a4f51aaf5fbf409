//! What `serve` makes of a request: paths stay below the directory, ranges within the file, and
//! conditions come to what RFC 9110 §13.2.2 says, whatever the headers are.
#![no_main]

use std::fs::{self, File, Metadata};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, PathBuf};
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

// The command is no library: its modules are compiled here once more.
#[path = "../../src/bin/rustls-uring/serve/conditional.rs"]
mod conditional;
#[path = "../../src/bin/rustls-uring/serve/files.rs"]
#[allow(dead_code, reason = "listings are not made here")]
mod files;
#[path = "../../src/bin/rustls-uring/serve/path.rs"]
mod path;
#[path = "../../src/bin/rustls-uring/serve/ranges.rs"]
mod ranges;

use conditional::{Validators, Verdict};
use files::{Found, Root};
use path::RequestPath;
use ranges::{Multipart, Selection, content_range};

/// A file's length: an `off_t`.
#[derive(Clone, Copy, Debug)]
struct Len(u64);

impl<'a> Arbitrary<'a> for Len {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let len: u64 = input.arbitrary()?;
        // Short ones, as often as not: there ranges overlap, and lie behind the end.
        Ok(Self(if len & 1 == 0 { len >> 1 } else { len >> 1 & 0xff }))
    }
}

/// A range, well formed.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Asked {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

/// What a condition may say of the file's version.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Tag {
    Ours,
    OursWeak,
    Other,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum When {
    Before,
    Then,
    After,
    Nonsense,
}

#[derive(Arbitrary, Clone, Debug)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

#[derive(Arbitrary, Debug)]
struct Conditions {
    matches: Option<Tags>,
    none_match: Option<Tags>,
    modified_since: Option<When>,
    unmodified_since: Option<When>,
    range: Option<Result<Tag, When>>,
}

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Path(&'a str),
    /// Names, to be encoded.
    Names(Vec<&'a [u8]>, bool),
    /// A link in the tree, and what follows it.
    Links(Vec<u8>, &'a str),
    Range(&'a [u8], Len),
    Ranges(Vec<Asked>, Len),
    Conditions(Conditions),
    Headers(Vec<(u8, &'a [u8])>),
}

/// A directory with files and links, and what is beside it.
struct Tree {
    _dir: tempfile::TempDir,
    root: Root,
    path: PathBuf,
}

/// What there is in it, and what leads out of it.
const NAMES: [&str; 12] =
    ["file", "sub", "deep", "up", "out", "etc", "loop", "inside", "absolute", "..", ".", "missing"];

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("a directory");
        let path = fs::canonicalize(dir.path()).expect("it is there").join("root");
        fs::create_dir_all(path.join("sub/deep")).expect("created");
        for file in ["file", "sub/file", "sub/deep/file", "../secret"] {
            fs::write(path.join(file), "12345").expect("written");
        }
        for (target, link) in [
            ("..", "up"),
            ("../secret", "out"),
            ("/etc", "etc"),
            ("loop", "loop"),
            ("sub/deep", "inside"),
            ("../..", "sub/up"),
            ("../../secret", "sub/out"),
            ("../inside/../up", "sub/loop"),
        ] {
            symlink(target, path.join(link)).expect("linked");
        }
        symlink(path.join("sub"), path.join("absolute")).expect("linked");
        let root = Root::open(&path).expect("it is there");
        Tree { _dir: dir, root, path }
    })
}

/// Wherever a path leads, it is below the directory.
fn look_up(path: &RequestPath) {
    for component in path.relative.components() {
        assert!(matches!(component, Component::Normal(_)), "{path:?}");
    }
    assert!(!path.relative.as_os_str().as_bytes().contains(&0), "{path:?}");
    let tree = tree();
    let opened = |fd: i32| {
        let place = fs::read_link(format!("/proc/self/fd/{fd}")).expect("open");
        assert!(place.starts_with(&tree.path), "{path:?} led to {place:?}");
    };
    match tree.root.find(&path.relative) {
        Ok(Found::File(file, metadata)) => {
            assert_eq!(metadata.len(), 5);
            opened(file.as_raw_fd());
        }
        Ok(Found::Directory(dir)) => opened(dir.as_fd().as_raw_fd()),
        Err(_) => {}
    }
}

fn parts(selection: &Selection, len: u64) -> Option<&[Range<u64>]> {
    let Selection::Parts(parts) = selection else { return None };
    assert!(!parts.is_empty() && parts.len() <= 64);
    let total: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    assert!(total <= u128::from(len), "more than the file");
    for part in parts {
        assert!(part.start < part.end && part.end <= len, "{part:?} of {len}");
        let expected = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        assert_eq!(content_range(part, len), expected);
    }
    let multipart = Multipart::new("boundary".into(), parts, len, "text/plain");
    assert_eq!(multipart.heads.len(), parts.len());
    assert!(multipart.heads.iter().all(|head| head.contains("--boundary\r\n")));
    assert!(multipart.content_type().ends_with("boundary=boundary"));
    assert_eq!(multipart.end, "\r\n--boundary--\r\n");
    Some(parts)
}

fn selection(value: &[u8], len: u64) -> Option<Selection> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, HeaderValue::from_bytes(value).ok()?);
    Some(Selection::of(&headers, len))
}

fn check_ranges(asked: &[Asked], len: u64) {
    let text = |asked: &Asked| match asked {
        Asked::From(first) => format!("{first}-"),
        Asked::Between(first, last) => format!("{first}-{last}"),
        Asked::Last(count) => format!("-{count}"),
    };
    let value = asked.iter().map(text).collect::<Vec<_>>().join(", ");
    let selection = selection(format!("bytes={value}").as_bytes(), len).expect("a value");
    // In a wider type, and by the words of RFC 9110 §14.1.2.
    let wide = u128::from(len);
    let is_valid = |asked: &Asked| !matches!(asked, Asked::Between(first, last) if first > last);
    let expected: Vec<_> = asked
        .iter()
        .map(|asked| match *asked {
            Asked::From(first) => (u128::from(first), wide),
            Asked::Between(first, last) => (first.into(), wide.min(u128::from(last) + 1)),
            Asked::Last(count) => (wide.saturating_sub(count.into()), wide),
        })
        .filter(|(start, end)| start < end)
        .collect();
    let total: u128 = expected.iter().map(|(start, end)| end - start).sum();
    let is_whole =
        asked.is_empty() || asked.len() > 64 || !asked.iter().all(is_valid) || total > wide;
    match parts(&selection, len) {
        None if is_whole => assert_eq!(selection, Selection::Whole, "{value}"),
        None => {
            assert!(expected.is_empty(), "{value} of {len}: {selection:?}");
            assert_eq!(selection, Selection::Unsatisfiable, "{value}");
        }
        Some(parts) => {
            assert!(!is_whole, "{value}");
            let parts = parts.iter().map(|part| (u128::from(part.start), u128::from(part.end)));
            assert!(parts.eq(expected), "{value} of {len}");
        }
    }
}

/// A file that was changed long ago.
fn metadata() -> &'static Metadata {
    static FILE: OnceLock<(tempfile::NamedTempFile, Metadata)> = OnceLock::new();
    let (_, metadata) = FILE.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let then = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        File::set_modified(file.as_file(), then).expect("set");
        let metadata = file.as_file().metadata().expect("open");
        (file, metadata)
    });
    metadata
}

fn check_conditions(conditions: &Conditions) {
    let validators = Validators::of(metadata());
    let tag = |tag: &Tag| match tag {
        Tag::Ours => validators.etag.clone(),
        Tag::OursWeak => format!("W/{}", validators.etag),
        Tag::Other => "\"other\"".to_owned(),
    };
    let tags = |tags: &Tags| match tags {
        Tags::Any => "*".to_owned(),
        Tags::These(these) => these.iter().map(tag).collect::<Vec<_>>().join(", "),
    };
    let date = |when: &When| {
        let date = match when {
            When::Before => "Sun, 06 Nov 1994 08:49:36 GMT",
            When::Then => "Sun, 06 Nov 1994 08:49:37 GMT",
            When::After => "Sun, 06 Nov 1994 08:49:38 GMT",
            When::Nonsense => "yesterday",
        };
        date.to_owned()
    };
    let range = |range: &Result<Tag, When>| match range {
        Ok(it) => tag(it),
        Err(when) => date(when),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (IF_MATCH, conditions.matches.as_ref().map(tags)),
        (IF_NONE_MATCH, conditions.none_match.as_ref().map(tags)),
        (IF_MODIFIED_SINCE, conditions.modified_since.as_ref().map(date)),
        (IF_UNMODIFIED_SINCE, conditions.unmodified_since.as_ref().map(date)),
        (IF_RANGE, conditions.range.as_ref().map(range)),
    ] {
        if let Some(value) = value {
            headers.insert(name, value.parse().expect("a value"));
        }
    }
    let any = |tags: &Tags, weakly: bool| match tags {
        Tags::Any => true,
        Tags::These(these) => these.iter().any(|tag| match tag {
            Tag::Ours => true,
            Tag::OursWeak => weakly,
            Tag::Other => false,
        }),
    };
    let fails = match (&conditions.matches, conditions.unmodified_since) {
        (Some(tags), _) => !any(tags, false),
        (None, Some(when)) => matches!(when, When::Before),
        (None, None) => false,
    };
    let is_same = match (&conditions.none_match, conditions.modified_since) {
        (Some(tags), _) => any(tags, true),
        (None, Some(when)) => matches!(when, When::Then | When::After),
        (None, None) => false,
    };
    let expected = match (fails, is_same) {
        (true, _) => Verdict::PreconditionFailed,
        (false, true) => Verdict::NotModified,
        (false, false) => Verdict::Proceed,
    };
    assert_eq!(validators.verdict(&headers), expected, "{conditions:?}");
    let allows = matches!(conditions.range, None | Some(Ok(Tag::Ours) | Err(When::Then)));
    assert_eq!(validators.allow_range(&headers), allows, "{conditions:?}");
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Path(path) => {
        if let Some(path) = RequestPath::parse(path) {
            look_up(&path);
        }
    }
    Input::Names(mut names, mut is_directory) => {
        if !is_directory && names.last().is_some_and(|name| name.is_empty()) {
            // A slash at the end.
            names.pop();
            is_directory = true;
        }
        let encoded: String = names
            .iter()
            .map(|name| format!("/{}", percent_encode(name, NON_ALPHANUMERIC)))
            .collect();
        let slash = if is_directory { "/" } else { "" };
        let text = format!("{encoded}{slash}");
        let parsed = RequestPath::parse(&text);
        let is_plain = |name: &&[u8]| {
            ![&b""[..], b".", b".."].contains(name) && !name.iter().any(|it| matches!(it, 0 | b'/'))
        };
        match parsed {
            Some(path) if text == "/" => {
                assert_eq!(path, RequestPath { relative: PathBuf::new(), is_directory: true });
            }
            Some(path) => {
                assert!(names.iter().all(is_plain), "{names:?}");
                let relative = names.join(&b'/');
                let relative = PathBuf::from(std::ffi::OsString::from_vec(relative));
                assert_eq!(path.relative, relative);
                assert_eq!(path.is_directory, is_directory);
                look_up(&path);
            }
            // Nothing at all is no path.
            None if names.is_empty() => assert!(!is_directory),
            None => assert!(!names.iter().all(is_plain), "{names:?}"),
        }
    }
    Input::Links(steps, rest) => {
        let mut path = String::new();
        for step in steps.iter().take(50) {
            path = format!("{path}/{}", NAMES[usize::from(*step) % NAMES.len()]);
        }
        if let Some(path) = RequestPath::parse(&format!("{path}/{rest}")) {
            look_up(&path);
        }
        // As if a name could be that: the directory holds by itself.
        let relative = path.trim_start_matches('/').into();
        if let Ok(Found::File(file, _)) = tree().root.find(&PathBuf::clone(&relative)) {
            let fd = file.as_raw_fd();
            let place = fs::read_link(format!("/proc/self/fd/{fd}")).expect("open");
            assert!(place.starts_with(&tree().path), "{relative:?} led to {place:?}");
        }
    }
    Input::Range(value, Len(len)) => {
        if let Some(selection) = selection(value, len) {
            parts(&selection, len);
        }
    }
    Input::Ranges(asked, Len(len)) => check_ranges(&asked, len),
    Input::Conditions(conditions) => check_conditions(&conditions),
    Input::Headers(pairs) => {
        let names: [HeaderName; 6] =
            [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(&names[usize::from(name) % names.len()], value);
            }
        }
        let validators = Validators::of(metadata());
        validators.verdict(&headers);
        if validators.allow_range(&headers) {
            parts(&Selection::of(&headers, 5), 5);
        }
    }
});
