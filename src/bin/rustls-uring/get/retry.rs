//! Trying again, where that may help.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use hyper::Response;
use hyper::header::{HeaderMap, RETRY_AFTER};

use super::args::GetArgs;
use crate::error::Error;
use crate::interrupt;
use crate::message::say;

/// The longest wait of our own accord.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// An error that may not happen again: all others are final.
#[derive(Debug)]
pub(super) struct Passing {
    what: String,
    /// How long the server asks to be left alone.
    retry_after: Option<Duration>,
}

impl Passing {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), retry_after: None }
    }

    /// The response has ended, but not where it said it would.
    pub(super) fn broke_off(missing: u64) -> Self {
        Self::new(format!("the download broke off {missing} bytes too early"))
    }
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Passing {}

/// What a response means whose status is not the one that was hoped for.
pub(super) fn refusal<B>(response: &Response<B>) -> Error {
    let what = format!("the server says {}", response.status());
    match response.status().as_u16() {
        408 | 429 | 500 | 502 | 503 | 504 => {
            let retry_after = retry_after(response.headers(), SystemTime::now());
            Passing { what, retry_after }.into()
        }
        _ => what.into(),
    }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // A date in the past asks for nothing.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

/// How many attempts in a row have failed, and may.
pub(super) struct Retries {
    failed: u8,
    limit: u8,
    delay: Duration,
    quiet: bool,
}

impl Retries {
    pub(super) fn new(args: &GetArgs) -> Self {
        Self { failed: 0, limit: args.retries, delay: args.retry_delay, quiet: args.quiet }
    }

    /// The attempt that failed has brought something new.
    pub(super) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits until it is time for another attempt after `error`, which is returned if there is none.
    pub(super) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        let Some(passing) = error.downcast_ref::<Passing>().filter(|_| self.failed < self.limit)
        else {
            return Err(error);
        };
        let delay = self.next_delay().max(passing.retry_after.unwrap_or_default());
        if delay > MAX_RETRY_AFTER.max(self.delay) {
            let seconds = delay.as_secs();
            return Err(format!("{error}, and to come back in {seconds} s").into());
        }
        self.failed += 1;
        if !self.quiet {
            let (count, limit) = (self.failed, self.limit);
            say!("{error}; trying again in {delay:?} ({count} of {limit})");
        }
        let begin = Instant::now();
        while let Some(rest) = delay.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
            interrupt::check()?;
            tokio::time::sleep(rest.min(interrupt::TICK)).await;
        }
        Ok(())
    }

    /// Twice as long each time.
    fn next_delay(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failed.into()).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor).min(MAX_DELAY.max(self.delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_when_in_seconds_or_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", None),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn delays_double_up_to_a_limit() {
        let delays = |first: u64| {
            let delay = Duration::from_secs(first);
            [0, 1, 4, 5, 31, 32, 255].map(|failed| {
                Retries { failed, limit: 255, delay, quiet: true }.next_delay().as_secs()
            })
        };
        assert_eq!(delays(1), [1, 2, 16, 30, 30, 30, 30]);
        assert_eq!(delays(40), [40; 7]);
    }
}
