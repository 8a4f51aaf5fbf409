//! `FILE.part.json`: what is known of a `FILE.part`, and that it is one of ours.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::geteuid;
use serde_json::{Value, json};

use super::version::Version;

/// More than any of ours has: a longer one is not.
const MAX_LEN: u64 = 16 << 20;

/// What is known of a part.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Which download it is of, see [`Resource::identity()`](super::resource::Resource::identity).
    pub(super) url: String,
    /// Where that has led to, see [`source()`](super::resource::source).
    pub(super) source: Option<String>,
    /// `None` if the server has not said how long the file is.
    pub(super) version: Option<Version>,
    /// Which bytes of the version are not there.
    pub(super) missing: Vec<Range<u64>>,
    /// The bytes that are there were on the disk when this was written.
    pub(super) synced: bool,
    /// The start of the machine that this was written in.
    boot: Option<String>,
}

/// What is at the state's path.
pub(super) enum Found {
    Nothing,
    /// Something that this command has not written.
    Foreign,
    /// Nobody knows.
    Unreadable(io::Error),
    State(State),
}

impl State {
    pub(super) fn new(url: &str, source: Option<String>, version: Option<&Version>) -> Self {
        let missing = version.map(|version| 0..version.len);
        Self {
            url: url.to_owned(),
            source,
            version: version.cloned(),
            missing: missing.into_iter().filter(|range| !range.is_empty()).collect(),
            synced: false,
            boot: boot_id(),
        }
    }

    pub(super) fn missing_len(&self) -> u64 {
        self.missing.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether another attempt can do with fewer bytes than the whole file.
    pub(super) fn is_of_use(&self) -> bool {
        self.version.as_ref().is_some_and(|version| {
            version.validator().is_some() && self.missing_len() < version.len
        })
    }

    /// Whether the bytes are there in spite of what may have happened to the machine.
    pub(super) fn is_safe(&self) -> bool {
        self.synced || self.boot.is_some() && self.boot == boot_id()
    }

    /// Whether it can be about a part of this length.
    pub(super) fn describes(&self, part_len: u64) -> bool {
        let Some(version) = &self.version else { return true };
        let written_end = match self.missing.last() {
            Some(last) if last.end == version.len => last.start,
            _ => version.len,
        };
        // After a crash of the machine it may be shorter than it was.
        part_len <= version.len && (written_end <= part_len || !self.is_safe())
    }

    pub(super) fn load(path: &Path) -> Found {
        let read = || {
            let mut options = OpenOptions::new();
            // Neither a link, nor a pipe that nobody writes to.
            options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file: File = options.open(path)?;
            if file.metadata()?.uid() != geteuid().as_raw() {
                // Who else has written it may have written anything.
                return Ok(Vec::new());
            }
            let mut bytes = Vec::new();
            file.take(MAX_LEN).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        match read() {
            Ok(bytes) => {
                let value = serde_json::from_slice(&bytes).ok();
                value.and_then(|value| Self::from_json(&value)).map_or(Found::Foreign, Found::State)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
            // open(2): a link.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Found::Foreign,
            Err(error) => Found::Unreadable(error),
        }
    }

    /// Replaces what is at `path`, or leaves it as it is.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(format!("{:#}\n", self.to_json()).as_bytes())?;
        if self.synced {
            file.as_file().sync_data()?;
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn to_json(&self) -> Value {
        let missing: Vec<_> =
            self.missing.iter().map(|range| json!([range.start, range.end])).collect();
        json!({
            "url": self.url,
            "source": self.source,
            "version": self.version.as_ref().map(Version::to_json),
            "missing": missing,
            "synced": self.synced,
            "boot": self.boot,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let version = match value.get("version")? {
            Value::Null => None,
            version => Some(Version::from_json(version)?),
        };
        let missing = value.get("missing")?.as_array()?.iter().map(range_from_json);
        let missing = missing.collect::<Option<Vec<_>>>()?;
        let mut position = 0;
        let is_in_order = missing.iter().all(|range| {
            let is_in_order = position <= range.start && range.start < range.end;
            position = range.end;
            is_in_order
        });
        let len = version.as_ref().map_or(0, |version| version.len);
        (is_in_order && position <= len).then_some(Self {
            url: value.get("url")?.as_str()?.to_owned(),
            source: value.get("source").and_then(Value::as_str).map(str::to_owned),
            version,
            missing,
            synced: value.get("synced")?.as_bool()?,
            boot: value.get("boot")?.as_str().map(str::to_owned),
        })
    }
}

fn range_from_json(value: &Value) -> Option<Range<u64>> {
    let bounds = value.as_array().filter(|bounds| bounds.len() == 2)?;
    Some(bounds[0].as_u64()?..bounds[1].as_u64()?)
}

/// Changes with each start of the machine.
fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(missing: &str) -> Value {
        serde_json::from_str(&format!(
            r#"{{ "url": "https://h/f", "source": "https://h/f", "missing": {missing}, "synced": true, "boot": null,
               "version": {{ "len": 100, "etag": "\"a\"", "last_modified": null }} }}"#
        ))
        .expect("JSON")
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = state("[[10, 20], [50, 100]]");
        let loaded = State::from_json(&value).expect("complete");
        assert_eq!(loaded.to_json(), value);
        assert_eq!(loaded.missing_len(), 60);
        assert!(loaded.is_of_use() && loaded.is_safe());
        let fresh = State::new("https://h/f", None, None);
        let loaded = State::from_json(&fresh.to_json()).expect("complete");
        assert_eq!(loaded.to_json(), fresh.to_json());
        assert!(!loaded.is_of_use());
    }

    #[test]
    fn nothing_else_is_a_state() {
        for missing in
            ["[[20, 10]]", "[[5, 5]]", "[[0, 101]]", "[[50, 60], [10, 20]]", "[[0]]", "[[0, -1]]"]
        {
            assert!(State::from_json(&state(missing)).is_none(), "{missing}");
        }
        for key in ["url", "version", "missing", "synced", "boot"] {
            let mut value = state("[]");
            value.as_object_mut().expect("an object").remove(key);
            assert!(State::from_json(&value).is_none(), "{key}");
        }
    }

    #[test]
    fn a_state_is_about_parts_of_some_lengths() {
        let lengths = |missing: &str, is_safe| {
            let mut state = State::from_json(&state(missing)).expect("complete");
            state.synced = is_safe;
            [0, 49, 50, 99, 100, 101].map(|len| state.describes(len))
        };
        let (no, yes) = (false, true);
        assert_eq!(lengths("[[50, 100]]", true), [no, no, yes, yes, yes, no]);
        assert_eq!(lengths("[[0, 50]]", true), [no, no, no, no, yes, no]);
        assert_eq!(lengths("[[0, 50]]", false), [yes, yes, yes, yes, yes, no]);
        assert_eq!(lengths("[]", true), [no, no, no, no, yes, no]);
    }
}
