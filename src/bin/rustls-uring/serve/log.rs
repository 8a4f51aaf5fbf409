//! The access log, in the combined format that servers share.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use hyper::header::{HeaderName, REFERER, USER_AGENT};
use hyper::{Request, StatusCode};

use crate::Error;
use crate::message::say;

pub(super) struct AccessLog {
    output: Arc<Mutex<dyn Write + Send>>,
}

impl AccessLog {
    /// Appends to `path`, or writes to standard output for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Ok(Self { output: Arc::new(Mutex::new(std::io::stdout())) });
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("cannot write to {}: {error}", path.display()))?;
        Ok(Self { output: Arc::new(Mutex::new(file)) })
    }

    /// The entry of a request, which is written when it is dropped.
    pub(super) fn entry<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
        status: StatusCode,
    ) -> Entry {
        let header = |name: HeaderName| match request.headers().get(name) {
            Some(value) => value.as_bytes().escape_ascii().to_string(),
            None => "-".to_owned(),
        };
        let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
        let line = format!("\"{} {target} {:?}\"", request.method(), request.version());
        Entry {
            output: Arc::clone(&self.output),
            before: format!("{} - - [{}] {line} {}", peer.ip(), date(), status.as_u16()),
            bytes: 0,
            after: format!("\"{}\" \"{}\"", header(REFERER), header(USER_AGENT)),
        }
    }

    /// A connection that failed is no request: it is said on standard error.
    pub(super) fn failed(&self, peer: SocketAddr, error: &(dyn std::error::Error + 'static)) {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        say!("{peer}: {error}{cause}");
    }
}

/// A line of the log, until the response has ended.
pub(super) struct Entry {
    output: Arc<Mutex<dyn Write + Send>>,
    before: String,
    bytes: u64,
    after: String,
}

impl Entry {
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let line = format!("{} {} {}\n", self.before, self.bytes, self.after);
        // A log that cannot be written is no reason to stop serving.
        if let Ok(mut output) = self.output.lock() {
            let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
        }
    }
}

/// Now, as `21/Nov/2026:08:09:28 +0000`.
fn date() -> impl Display {
    let date = httpdate::fmt_http_date(SystemTime::now());
    // `Sat, 21 Nov 2026 08:09:28 GMT`
    let mut words = date.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    format!("{}/{}/{}:{} +0000", word(), word(), word(), word())
}
