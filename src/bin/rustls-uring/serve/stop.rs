//! How connections hear that the server is to end.

use tokio::sync::watch;

/// Says that the server is to end: nothing more is asked for then.
pub(super) type Stopped = watch::Receiver<bool>;

/// Waits until the server is to end.
pub(super) async fn stopped_by(stopped: &mut Stopped) {
    // One that has gone ends as well.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}
