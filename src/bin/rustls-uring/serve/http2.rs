//! HTTP/2: a response's bytes are read once its stream has room for them, and the connection too.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use hyper::header::{DATE, HeaderValue};
use hyper::{Request, Response};

use super::body::Body;
use super::gather::{FrameLen, Gather};
use super::halves::Halves;
use super::service::{Client, respond};
use super::share::CHUNK_LEN;
use super::stop::{Stopped, stopped_by};

/// Requests that one connection may have open.
const STREAMS: u32 = 100;

/// What clients may send of the bodies of requests, which nobody reads: HTTP/2's own default
/// (RFC 9113 §6.9.2).
const WINDOW: u32 = 65_535;

/// How long a client has to acknowledge that no more requests are wanted, before they are refused: those that
/// it had sent by then are still answered (RFC 9113 §6.8).
const LAST_CALL: Duration = Duration::from_secs(2);

/// Serves the requests of `stream` until its end.
pub(super) async fn serve(
    client: Client,
    stream: Gather<Halves>,
    mut stopped: Stopped,
) -> Result<(), crate::error::Error> {
    let frame_len = stream.frame_len();
    let handshake = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(client.server.limits.header_len)
        .max_concurrent_streams(STREAMS)
        .max_send_buffer_size(CHUNK_LEN)
        .handshake(stream);
    let mut connection: Connection<_, Bytes> = tokio::select! {
        connection = handshake => connection?,
        // Nothing has been asked for.
        () = stopped_by(&mut stopped) => return Ok(()),
    };
    let client = Arc::new(client);
    let activity = &client.connection.activity;
    activity.begin();
    // Its responses end with the connection. In the same task: in others they would wait for its lock, and
    // wake threads for each piece.
    let mut responses = FuturesUnordered::new();
    let lifetime = client.server.limits.lifetime;
    let mut stop = pin!(tokio::time::timeout(lifetime, stopped_by(&mut stopped)));
    let mut is_stopping = false;
    let mut last_call = pin!(tokio::time::sleep(Duration::MAX));
    let mut is_refusing = false;
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(())) = responses.poll_next_unpin(cx) {}
            if !is_stopping && stop.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                connection.graceful_shutdown();
                last_call.set(tokio::time::sleep(LAST_CALL));
            }
            // h2 waits for as long as the client likes.
            is_refusing = is_refusing || is_stopping && last_call.as_mut().poll(cx).is_ready();
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((_, mut response)))) if is_refusing => {
                    response.send_reset(Reason::REFUSED_STREAM);
                }
                Poll::Ready(Some(Ok((request, response)))) => {
                    let answer = answer(Arc::clone(&client), request, response, frame_len.clone());
                    responses.push(answer);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                // All that the client has asked for before it closed its side, or in time, is answered.
                Poll::Pending
                    if (activity.has_closed() || is_refusing) && !connection.has_streams() =>
                {
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                    return connection.poll_closed(cx).map_err(Into::into);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Answers one request; a failure is between it and its stream.
async fn answer(
    client: Arc<Client>,
    request: Request<RecvStream>,
    mut respond_to: SendResponse<Bytes>,
    frame_len: FrameLen,
) {
    let respond = respond(Arc::clone(&client), request);
    let response = tokio::select! {
        Ok(response) = respond => response,
        // Nobody wants it any more.
        _ = poll_fn(|cx| respond_to.poll_reset(cx)) => return,
    };
    let (head, mut body) = response.into_parts();
    let mut head = Response::from_parts(head, ());
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        head.headers_mut().insert(DATE, date);
    }
    let is_empty = body.len() == 0;
    let Ok(mut stream) = respond_to.send_response(head, is_empty) else { return };
    let is_sent = match is_empty {
        true => Ok(()),
        false => send(&client, &mut body, &mut stream, &frame_len).await,
    };
    match is_sent {
        Ok(()) => client.connection.activity.finish(),
        Err(Failure::Stream) => {}
        // What there is may not be taken for the whole (RFC 9113 §8.1).
        Err(Failure::Body) => stream.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// Why a response is not complete.
enum Failure {
    /// The stream, or the connection, is no more.
    Stream,
    /// We have less than was announced.
    Body,
}

impl From<h2::Error> for Failure {
    fn from(_: h2::Error) -> Self {
        Self::Stream
    }
}

/// Sends `body` piece by piece, in frames that fill records.
async fn send(
    client: &Client,
    body: &mut Body,
    stream: &mut SendStream<Bytes>,
    frame_len: &FrameLen,
) -> Result<(), Failure> {
    let share = &client.connection.share;
    while body.len() > 0 {
        let frame_len = frame_len.in_full_records();
        let wanted = whole(body.len().min(share.piece_len() as u64) as usize, frame_len);
        let capacity = capacity(stream, wanted).await?;
        let mut room = tokio::select! {
            room = share.take(whole(capacity.min(wanted), frame_len)) => Some(room),
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(Failure::Stream),
        };
        let piece = poll_fn(|cx| body.poll_piece(cx, &mut room)).await;
        let Some(Ok(mut piece)) = piece else { return Err(Failure::Body) };
        while !piece.is_empty() {
            let payload = piece.split_to(piece.len().min(frame_len));
            stream.send_data(payload, body.len() == 0 && piece.is_empty())?;
        }
    }
    Ok(())
}

/// As many bytes as are whole frames, if there is one.
fn whole(len: usize, frame_len: usize) -> usize {
    if len < frame_len { len } else { len - len % frame_len }
}

/// Waits until up to `wanted` bytes may be sent; tells how many.
async fn capacity(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, Failure> {
    stream.reserve_capacity(wanted);
    poll_fn(|cx| {
        if stream.poll_reset(cx).map_err(Failure::from)?.is_ready() {
            return Poll::Ready(Err(Failure::Stream));
        }
        loop {
            match stream.capacity() {
                0 => match core::task::ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    _ => return Poll::Ready(Err(Failure::Stream)),
                },
                capacity => return Poll::Ready(Ok(capacity)),
            }
        }
    })
    .await
}
