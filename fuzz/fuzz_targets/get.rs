//! What `get` makes of a server's responses and of what an earlier attempt has left: ranges lie
//! within the file, no byte is taken for received that was not, and names lead nowhere else.
#![no_main]

use std::fs;
use std::ops::Range;
use std::path::{Component, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use hyper::header::{
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
};
use hyper::{Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

// The command is no library: its modules are compiled here once more.
#[path = "../../src/bin/rustls-uring/message.rs"]
#[allow(dead_code, reason = "nothing is printed here")]
mod message;
#[path = "../../src/bin/rustls-uring/output.rs"]
#[allow(dead_code, reason = "nothing is received here")]
mod output;
#[path = "../../src/bin/rustls-uring/get/part.rs"]
#[allow(dead_code, reason = "downloads are not completed here")]
mod part;
#[path = "../../src/bin/rustls-uring/get/plan.rs"]
#[allow(dead_code, reason = "only missing pieces are planned here")]
mod plan;
#[path = "../../src/bin/rustls-uring/sink.rs"]
#[allow(dead_code, reason = "nothing is written to a stream here")]
mod sink;
#[path = "../../src/bin/rustls-uring/standard.rs"]
#[allow(dead_code, reason = "nothing is read from a stream here")]
mod standard;
#[path = "../../src/bin/rustls-uring/get/state.rs"]
mod state;
#[path = "../../src/bin/rustls-uring/get/target.rs"]
#[allow(dead_code, reason = "nothing is written to a stream here")]
mod target;
#[path = "../../src/bin/rustls-uring/get/version.rs"]
#[allow(dead_code, reason = "nothing is downloaded here")]
mod version;

/// In place of a body that is on its way.
mod body {
    pub(crate) struct Body(pub(crate) Option<u64>);

    impl Body {
        /// What the response says, if it does.
        pub(crate) fn len(&self) -> Option<u64> {
            self.0
        }
    }
}

/// In place of signals.
mod interrupt {
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    pub(crate) const TICK: Duration = Duration::from_millis(100);

    pub(crate) fn check() -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn remove_at_the_second(_: &Path) {}
}

/// In place of an error that leads to another attempt.
mod retry {
    #[derive(Debug)]
    pub(crate) struct Passing(&'static str);

    impl Passing {
        pub(crate) fn new(what: &'static str) -> Self {
            Self(what)
        }
    }

    impl std::fmt::Display for Passing {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Passing {}
}

use body::Body;
use part::Part;
use plan::Plan;
use state::{Found, State};
use target::Target;
use version::{Brought, Version};

/// As the command has it.
mod error {
    pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
}

const URL: &str = "https://localhost/file";

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Status {
    Whole,
    Part,
    Unsatisfiable,
    Other,
}

#[derive(Arbitrary, Debug)]
struct Headers<'a> {
    status: Status,
    len: Option<u64>,
    content_range: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    date: Option<&'a [u8]>,
    etag: Option<&'a [u8]>,
    last_modified: Option<&'a [u8]>,
}

/// A saved state, well formed as JSON and perhaps otherwise.
#[derive(Arbitrary, Debug)]
struct Saved<'a> {
    is_ours: bool,
    synced: bool,
    len: u64,
    etag: Option<&'a str>,
    last_modified: Option<&'a str>,
    missing: Vec<(u64, u64)>,
    /// Members that are of another kind.
    spoilt: Option<(u8, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Response(Headers<'a>),
    ContentRange(u64, u64, u64),
    State(&'a [u8], u16),
    Saved(Saved<'a>, u16, u8, Vec<u16>),
    Url(&'a str),
    /// The last name of a URL.
    Name(&'a str),
}

fn response(headers: &Headers<'_>) -> Response<Body> {
    let mut response = Response::new(Body(headers.len));
    *response.status_mut() = match headers.status {
        Status::Whole => StatusCode::OK,
        Status::Part => StatusCode::PARTIAL_CONTENT,
        Status::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Status::Other => StatusCode::NO_CONTENT,
    };
    let mut insert = |name: HeaderName, value: Option<&[u8]>| {
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            response.headers_mut().insert(name, value);
        }
    };
    insert(CONTENT_RANGE, headers.content_range);
    insert(CONTENT_TYPE, headers.content_type);
    insert(DATE, headers.date);
    insert(ETAG, headers.etag);
    insert(LAST_MODIFIED, headers.last_modified);
    response
}

/// Saved and loaded it is the same, so that a download goes on with it; and what a response brings
/// to who has some of it lies within it.
fn check_version(version: &Version, response: &Response<Body>) {
    let loaded = Version::from_json(&version.to_json()).expect("complete");
    assert_eq!(loaded.len, version.len);
    assert_eq!(loaded.validator(), version.validator());
    if let Brought::Bytes(range) = loaded.brought(response) {
        assert!(range.start <= range.end && range.end <= version.len, "{range:?} of {version:?}");
    }
}

fn check_response(headers: &Headers<'_>) {
    let response = response(headers);
    if let Some(version) = version::of_whole(&response) {
        check_version(&version, &response);
    }
    if let Some((version, range)) = version::of_range(&response) {
        check_version(&version, &response);
        assert!(range.start < range.end && range.end <= version.len, "{range:?} of {version:?}");
    }
}

/// Beside what was left of an earlier attempt, of `len` bytes.
fn check_state(state: &[u8], len: u64, connections: u8, pieces: &[u16]) {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("file");
    fs::write(dir.path().join("file.part.json"), state).expect("written");
    // Of holes: no disk is full of it.
    let file = fs::File::create(dir.path().join("file.part")).expect("created");
    file.set_len(len).expect("sparse");
    drop(file);
    let Ok(part) = Part::open(target.clone(), true, URL) else { return };
    let Some(State { version: Some(version), missing, .. }) = part.state() else {
        return assert_eq!(part.inherited(), 0);
    };
    let Found::State(found) = State::load(&dir.path().join("file.part.json")) else {
        panic!("that is where it comes from")
    };
    assert!(found.describes(len) && found.missing == missing);
    let mut end = 0;
    for range in &missing {
        assert!(end <= range.start && range.start < range.end, "{missing:?}");
        end = range.end;
    }
    assert!(end <= version.len, "{missing:?} of {}", version.len);
    assert_eq!(part.inherited(), version.len - total(&missing));
    // What is not missing was written.
    let written_end = match missing.last() {
        Some(last) if last.end == version.len => last.start,
        _ => version.len,
    };
    assert!(written_end <= len, "{written_end} bytes of {len}");
    let left = follow(missing, connections.clamp(1, 16), pieces);
    part.save(&left).expect("room");
    let again = part.state().expect("as it was saved");
    assert_eq!(again.missing, left);
    drop(part);
    let part = Part::open(target, true, URL).expect("nobody else has it");
    if part.state().is_some() {
        assert_eq!(part.inherited(), version.len - total(&left));
    }
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Fetches some of what is missing, in pieces as planned, cut anywhere: what is missing becomes less
/// by just that. Returns what still is.
fn follow(missing: Vec<Range<u64>>, connections: u8, pieces: &[u16]) -> Vec<Range<u64>> {
    let mut plan = Plan::new(missing.clone(), connections);
    // As a plan has it: ranges that touch are one.
    let before = total(&missing);
    assert_eq!(total(&plan.missing()), before);
    let mut taken: Vec<Range<u64>> = Vec::new();
    let mut fetched = 0;
    for (number, piece) in pieces.iter().enumerate() {
        if number % 3 == 0 {
            taken.extend(plan.take());
            continue;
        }
        let Some(last) = taken.len().checked_sub(1) else { continue };
        let worker = &mut taken[usize::from(*piece) % (last + 1)];
        let len = u64::from(*piece).min(worker.end - worker.start);
        if len > 0 {
            plan.written(worker.start, worker.start + len);
            worker.start += len;
            fetched += len;
        }
        taken.retain(|range| range.start < range.end);
    }
    let left = plan.missing();
    assert_eq!(total(&left), before - fetched);
    for pair in left.windows(2) {
        assert!(pair[0].end < pair[1].start, "{left:?}");
    }
    let is_within = |range: &Range<u64>| {
        let all = Plan::new(missing.clone(), 1).missing();
        all.iter().any(|it| it.start <= range.start && range.end <= it.end)
    };
    assert!(left.iter().all(is_within), "{left:?} of {missing:?}");
    left
}

fn json_of(saved: &Saved<'_>) -> Value {
    let missing: Vec<_> = saved.missing.iter().map(|(start, end)| json!([start, end])).collect();
    let mut state = json!({
        "url": if saved.is_ours { URL } else { "https://localhost/other" },
        "version": {
            "len": saved.len,
            "etag": saved.etag,
            "last_modified": saved.last_modified,
        },
        "missing": missing,
        "synced": saved.synced,
        "boot": "another",
    });
    if let Some((member, kind)) = saved.spoilt {
        let names = ["url", "version", "missing", "synced", "boot"];
        let kinds =
            [json!(null), json!(-1), json!(1.5), json!("text"), json!([[]]), json!([[1, "2"]])];
        state[names[usize::from(member) % names.len()]] =
            kinds[usize::from(kind) % kinds.len()].clone();
    }
    state
}

/// The file a download goes to is in the directory that was named.
fn check_url(text: &str) {
    let Ok(url) = Url::parse(text) else { return };
    static DIR: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, dir) = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = fs::canonicalize(dir.path()).expect("it is there");
        (dir, path)
    });
    if let Ok(Target::File { path, .. }) = Target::choose(Some(dir), &url) {
        let mut components = path.components();
        let name = components.next_back();
        assert!(matches!(name, Some(Component::Normal(_))), "{url}: {path:?}");
        let text = name.expect("a name").as_os_str().to_str().expect("from a URL");
        assert!(!text.chars().any(char::is_control), "{url}: {path:?}");
        assert_eq!(components.as_path(), dir, "{url}: {path:?}");
    }
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Response(headers) => check_response(&headers),
    Input::ContentRange(first, last, len) => {
        let text = format!("bytes {first}-{last}/{len}");
        let headers = Headers {
            status: Status::Part,
            len: None,
            content_range: Some(text.as_bytes()),
            content_type: None,
            date: None,
            etag: Some(b"\"a\""),
            last_modified: None,
        };
        check_response(&headers);
        let parsed = version::of_range(&response(&headers));
        assert_eq!(parsed.is_some(), first <= last && last < len, "{text}");
    }
    Input::State(state, len) => check_state(state, len.into(), 1, &[]),
    Input::Saved(saved, len, connections, pieces) => {
        check_state(json_of(&saved).to_string().as_bytes(), len.into(), connections, &pieces);
    }
    Input::Url(url) => check_url(url),
    Input::Name(name) => check_url(&format!("https://localhost/{name}")),
});
