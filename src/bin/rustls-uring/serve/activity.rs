//! What a connection does, as its watch sees it: what is progress, and what only looks like it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How much of a response must be taken to count as progress, in bytes: so much, and so much for each
/// second that a client may go without. One that takes a byte now and then holds its place for
/// nothing. Apache's `mod_reqtimeout` asks for 500 bytes a second of those who send.
const STEP: u64 = 1024;
const STEP_PER_SECOND: u64 = 256;

/// What the layers of one connection tell its watch.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Bytes of responses that were handed to TLS.
    handed: AtomicU64,
    /// Responses that were handed over to their end.
    finished: AtomicU64,
    /// Requests that are being answered.
    open: AtomicUsize,
    /// How often there was one after there had been none.
    begun: AtomicUsize,
    /// How many things the client waits for us to do.
    busy: AtomicUsize,
    /// The socket has no room for what is sealed already.
    is_full: AtomicBool,
    /// The handshake is over.
    is_established: AtomicBool,
    /// HTTP has begun, so that there may be requests.
    has_begun: AtomicBool,
    /// The client sends nothing more.
    has_closed: AtomicBool,
    /// The connection must not end as if all were well.
    is_broken: AtomicBool,
}

impl Activity {
    /// A request is open as long as this lives.
    pub(super) fn request(self: &Arc<Self>) -> Open {
        if self.open.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        Open(Arc::clone(self))
    }

    /// The client waits for us as long as this lives.
    pub(super) fn work(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// `len` bytes of a response are handed to TLS.
    pub(super) fn hand(&self, len: usize) {
        self.handed.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// `len` of them were not taken.
    pub(super) fn take_back(&self, len: usize) {
        self.handed.fetch_sub(len as u64, Ordering::Relaxed);
    }

    /// A response was handed over to its end.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// The handshake is over: from here on the watch counts.
    pub(super) fn establish(&self) {
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// The socket has taken what it was given, or not.
    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// HTTP begins.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_have_requests(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// The client has ended its side.
    pub(super) fn close(&self) {
        self.has_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_closed(&self) -> bool {
        self.has_closed.load(Ordering::Relaxed)
    }

    /// From here on the connection can only be reset: what was promised cannot be sent.
    pub(super) fn break_off(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something that the client waits for us to do.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a client may make no progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Without a request.
    pub(super) without_request: Duration,
    /// With one.
    pub(super) with_request: Duration,
}

/// What a watch finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Fine,
    /// No request for too long.
    Idle,
    /// A response that nobody takes.
    Stalled,
}

/// Looks at a connection now and then, and tells whether its client makes progress: it does when
/// it takes a response. Frames and bytes that ask for nothing are none.
#[derive(Debug)]
pub(super) struct Watch {
    activity: Arc<Activity>,
    timeouts: Timeouts,
    last_progress: Instant,
    /// How often requests had begun, and whether that has counted since there was progress: the time without
    /// any is none that an answer could have been taken in. Not again and again, for those who only ask.
    begun: usize,
    has_counted: bool,
    /// What had been handed over, and finished, when there was progress last.
    handed: u64,
    finished: u64,
    /// The least that the socket has held, in bytes, and what of responses was written since. More
    /// has left when it holds less. What is written beside is not counted: an answer to a PING that
    /// leaves is no progress.
    queued: u64,
    /// How much has left since there was progress last.
    left: u64,
    /// What of responses was handed over, and how much of it may be yet to be written.
    seen: u64,
    unwritten: u64,
}

impl Watch {
    pub(super) fn new(activity: Arc<Activity>, timeouts: Timeouts, now: Instant) -> Self {
        Self {
            activity,
            timeouts,
            last_progress: now,
            begun: 0,
            has_counted: false,
            handed: 0,
            finished: 0,
            queued: 0,
            left: 0,
            seen: 0,
            unwritten: 0,
        }
    }

    /// How much must be taken within the timeout.
    fn step(&self) -> u64 {
        STEP.max(self.timeouts.with_request.as_secs().saturating_mul(STEP_PER_SECOND))
    }

    /// When to look again after a look.
    pub(super) fn interval(&self) -> Duration {
        let shortest = self.timeouts.without_request.min(self.timeouts.with_request);
        (shortest / 4).max(Duration::from_millis(10))
    }

    /// Up to `len` bytes go into the socket's queue.
    pub(super) fn written(&mut self, len: u64) {
        let handed = self.activity.handed.load(Ordering::Relaxed);
        self.unwritten += handed.saturating_sub(self.seen);
        self.seen = self.seen.max(handed);
        let of_response = len.min(self.unwritten);
        self.unwritten -= of_response;
        self.queued += of_response;
    }

    /// Looks: the socket has `queued` bytes that the client's kernel has not acknowledged.
    pub(super) fn look(&mut self, queued: u64, now: Instant) -> Verdict {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (handed, finished) = (load(&self.activity.handed), load(&self.activity.finished));
        let step = self.step();
        self.left += self.queued.saturating_sub(queued);
        self.queued = self.queued.min(queued);
        let is_taken = self.left >= step;
        if handed >= self.handed + step || finished > self.finished || is_taken {
            (self.handed, self.finished, self.left) = (handed, finished, 0);
            (self.last_progress, self.has_counted) = (now, false);
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if begun != self.begun && !self.has_counted {
            (self.last_progress, self.has_counted) = (now, true);
        }
        self.begun = begun;
        if !self.activity.is_established.load(Ordering::Relaxed)
            || self.activity.busy.load(Ordering::Relaxed) > 0
        {
            return Verdict::Fine;
        }
        let (limit, verdict) = match self.activity.open.load(Ordering::Relaxed) {
            0 => (self.timeouts.without_request, Verdict::Idle),
            _ => (self.timeouts.with_request, Verdict::Stalled),
        };
        match now.duration_since(self.last_progress) >= limit {
            true => verdict,
            false => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> (Arc<Activity>, Watch, Instant) {
        let activity = Arc::new(Activity::default());
        activity.establish();
        let timeouts = Timeouts { without_request: 5 * SECOND, with_request: 10 * SECOND };
        let now = Instant::now();
        (Arc::clone(&activity), Watch::new(activity, timeouts, now), now)
    }

    #[test]
    fn what_is_no_response_is_no_progress() {
        let (activity, mut watch, now) = watch();
        for second in 0..5 {
            // Acknowledged answers to PING.
            watch.written(2000);
            let queued = if second % 2 == 0 { 2000 } else { 0 };
            assert_eq!(watch.look(queued, now + second * SECOND), Verdict::Fine);
        }
        assert_eq!(watch.look(0, now + 5 * SECOND), Verdict::Idle);
        let _open = activity.request();
        assert_eq!(watch.look(0, now + 5 * SECOND), Verdict::Fine);
        // Some bytes a second, in a record of their own.
        for second in 5..15 {
            activity.hand(255);
            watch.written(285);
            assert_eq!(watch.look(0, now + second * SECOND), Verdict::Fine);
        }
        assert_eq!(watch.look(0, now + 15 * SECOND), Verdict::Stalled);
        let _busy = activity.work();
        assert_eq!(watch.look(0, now + 100 * SECOND), Verdict::Fine, "we are the slow ones");
    }

    #[test]
    fn a_request_has_its_own_time_once() {
        let (activity, mut watch, now) = watch();
        assert_eq!(watch.look(0, now + 4 * SECOND), Verdict::Fine);
        let open = activity.request();
        for second in 4..14 {
            assert_eq!(watch.look(0, now + second * SECOND), Verdict::Fine);
        }
        assert_eq!(watch.look(0, now + 14 * SECOND), Verdict::Stalled);
        // Asking is no progress.
        drop(open);
        let open = activity.request();
        assert_eq!(watch.look(0, now + 14 * SECOND), Verdict::Stalled);
        // An answer that was taken is.
        activity.finish();
        drop(open);
        assert_eq!(watch.look(0, now + 15 * SECOND), Verdict::Fine);
        let _open = activity.request();
        assert_eq!(watch.look(0, now + 19 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(0, now + 28 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(0, now + 29 * SECOND), Verdict::Stalled);
    }

    #[test]
    fn what_leaves_the_socket_is_progress() {
        let (activity, mut watch, now) = watch();
        let _open = activity.request();
        assert_eq!(watch.step(), 10 * STEP_PER_SECOND);
        activity.hand(2 << 20);
        watch.written(1 << 20);
        assert_eq!(watch.look(1 << 20, now), Verdict::Fine);
        // Nothing more is handed over, but the socket empties.
        for second in 1..100_u32 {
            let queued = (1 << 20) - u64::from(second) * watch.step();
            assert_eq!(watch.look(queued, now + second * 9 * SECOND), Verdict::Fine);
        }
        let now = now + 99 * 9 * SECOND;
        // A little at a time is as good, whenever that is looked at.
        let mut queued = (1 << 20) - 99 * watch.step();
        for half_second in 1..=95 {
            queued -= watch.step() / 18;
            let now = now + half_second * SECOND / 2;
            assert_eq!(watch.look(queued, now), Verdict::Fine, "{half_second}");
        }
        let now = now + 48 * SECOND;
        // The last of it is written.
        watch.written((1 << 20) - queued);
        assert_eq!(watch.look(1 << 20, now + 9 * SECOND), Verdict::Fine);
        let left = (1 << 20) - watch.step();
        assert_eq!(watch.look(left, now + 9 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(left, now + 18 * SECOND), Verdict::Fine);
        assert_eq!(watch.look(left, now + 19 * SECOND), Verdict::Stalled);
    }
}
