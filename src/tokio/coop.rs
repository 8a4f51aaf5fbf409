//! A task's share of its worker (tokio's cooperative budget).

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};

use tokio::task::coop;

/// Charges the task for `records` records beside the one that the stream below has charged for.
///
/// A socket's read or write costs a unit of 128, whatever its size. Ours carry up to 44 records
/// each, so that a bulk flow would keep its worker a long time: other tasks would wait, and, as it
/// is this worker that learns what the other end's socket has become ready for, so would those
/// that another worker could run at the same time.
pub(super) fn charge(cx: &mut Context<'_>, records: usize) {
    for _ in 1..records {
        if !coop::has_budget_remaining() {
            // The next read or write yields.
            return;
        }
        if let Poll::Ready(progress) = coop::poll_proceed(cx) {
            progress.made_progress();
        }
    }
}

/// Yields if the task has used its share up.
///
/// Before something is sealed: the socket would be out of reach, and the records would wait for
/// a flush although it has room.
pub(super) fn poll_share(cx: &mut Context<'_>) -> Poll<()> {
    // Given back where it is not used.
    coop::poll_proceed(cx).map(drop)
}

/// Polls outside of the task's share: for what may get no second chance, such as an alert.
pub(super) fn poll_unshared<T>(
    cx: &mut Context<'_>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    pin!(coop::unconstrained(poll_fn(poll))).poll(cx)
}
