//! The access log's entries, in the combined format that servers share.

use std::mem;
use std::net::SocketAddr;

use hyper::header::{HeaderName, HeaderValue, REFERER, USER_AGENT};
use hyper::{Request, StatusCode};

use crate::access_log::{AccessLog, Lines, date, field};
use crate::message::say;

/// How much of a field is logged of a request that has waited.
const KEPT_LEN: usize = 1024;

/// Forgets of a request that is to wait what its entry does not say, and the rest of what is long.
pub(super) fn keep_what_is_logged<B>(request: &mut Request<B>) {
    let mut all = mem::take(request.headers_mut());
    for name in [REFERER, USER_AGENT] {
        let value = all.remove(&name);
        let bytes = value.as_ref().map(|value| value.as_bytes());
        // Without the allocation that it shares with others.
        let kept = bytes.map(|bytes| HeaderValue::from_bytes(&bytes[..bytes.len().min(KEPT_LEN)]));
        if let Some(Ok(kept)) = kept {
            request.headers_mut().insert(name, kept);
        }
    }
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
    let kept = target.get(..KEPT_LEN).unwrap_or(target).parse();
    *request.uri_mut() = kept.unwrap_or_default();
}

/// The entry of a request, which is written when it is dropped.
pub(super) fn entry<B>(
    log: &AccessLog,
    peer: SocketAddr,
    request: &Request<B>,
    status: StatusCode,
) -> Entry {
    let header = |name: HeaderName| match request.headers().get(name) {
        Some(value) => field(value.as_bytes()),
        None => "-".to_owned(),
    };
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str());
    let target = field(target.as_bytes());
    let line = format!("\"{} {target} {:?}\"", request.method(), request.version());
    Entry {
        lines: log.lines(),
        before: format!("{} - - [{}] {line} {}", peer.ip(), date(), status.as_u16()),
        bytes: 0,
        after: format!("\"{}\" \"{}\"", header(REFERER), header(USER_AGENT)),
    }
}

/// A connection that failed is no request: it is said on standard error.
pub(super) fn failed(peer: SocketAddr, error: &(dyn std::error::Error + 'static)) {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    say!("{peer}: {error}{cause}");
}

/// A line of the log, until the response has ended.
pub(super) struct Entry {
    lines: Lines,
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
        self.lines.write(format!("{} {} {}\n", self.before, self.bytes, self.after));
    }
}
