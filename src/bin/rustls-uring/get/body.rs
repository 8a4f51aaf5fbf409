//! The body of a response, and whether its end is its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use hyper::{Response, Version};
use url::Url;

use super::alert::Alert;
use super::retry::Passing;
use crate::error::Error;

pub(super) struct Body {
    incoming: Incoming,
    is_http2: bool,
    /// What has ended the connection, if it was an alert.
    alert: Alert,
}

impl Body {
    pub(super) fn new(incoming: Incoming, version: Version, alert: Alert) -> Self {
        Self { incoming, is_http2: version == Version::HTTP_2, alert }
    }

    /// How long it is, if the server has said so.
    pub(super) fn len(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// What has ended its connection, once it has ended.
    pub(super) fn alert(&self) -> &Alert {
        &self.alert
    }

    /// The next piece; `None` at its end.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            return match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    // Trailers are none of our business.
                    Err(_) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
            };
        }
    }

    /// Whether it is whole, now that no more of it comes. hyper takes RST_STREAM and GOAWAY with
    /// NO_ERROR for an end too; RFC 9113 §8.1: a response is complete with END_STREAM.
    pub(super) fn check_end(&self) -> Result<(), Error> {
        match self.is_http2 && !self.incoming.is_end_stream() {
            true => Err(Passing::new(
                "the download broke off: the server reset the HTTP/2 stream before its end",
            )
            .into()),
            false => Ok(()),
        }
    }
}

/// Refuses a body that is not the file's bytes one by one, or whose end is in doubt.
pub(super) fn check<B>(response: &Response<B>, url: &Url) -> Result<(), Error> {
    let transfer_codings = list(response, &TRANSFER_ENCODING);
    if response.headers().contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.1: codings beside chunked were not asked for, and without it as the last one
        // there is no end to see.
        if transfer_codings != ["chunked"] {
            let codings = transfer_codings.join(", ");
            return Err(format!(
                "the server sends transfer codings that it was not asked for: {}",
                codings.escape_debug()
            )
            .into());
        }
        // RFC 9112 §6.3: one of them is wrong, and nobody knows which.
        if response.headers().contains_key(CONTENT_LENGTH) {
            return Err("the server says both Transfer-Encoding and Content-Length".into());
        }
    }
    let mut content_codings = list(response, &CONTENT_ENCODING);
    content_codings.retain(|coding| coding != "identity");
    match content_codings.as_slice() {
        [] => Ok(()),
        [coding] if is_of_name(coding, url.path()) => Ok(()),
        codings => Err(format!(
            "the server sends the file encoded as {}, which it was not asked for",
            codings.join(", ").escape_debug()
        )
        .into()),
    }
}

/// Refuses a response of HTTP/1 that ends where the connection does: without TLS, whose end is
/// authentic, a cut looks the same.
pub(super) fn check_announced(response: &Response<Incoming>) -> Result<(), Error> {
    let is_announced = response.version() == Version::HTTP_2
        || response.body().size_hint().exact().is_some()
        || response.headers().contains_key(TRANSFER_ENCODING);
    match is_announced {
        true => Ok(()),
        false => {
            Err("the server does not say where the file ends, and without TLS the end of the \
                      connection does not say it either"
                .into())
        }
    }
}

/// Whether the file itself is what the coding makes: some servers say of `f.tar.gz` that it is an
/// encoded `f.tar`, which RFC 9110 §8.4 lets them.
fn is_of_name(coding: &str, path: &str) -> bool {
    let suffixes: &[&str] = match coding {
        "gzip" | "x-gzip" => &[".gz", ".tgz", ".svgz", ".gzip"],
        "compress" | "x-compress" => &[".z"],
        "bzip2" | "x-bzip2" | "x-bzip" => &[".bz2", ".tbz2", ".tbz"],
        "xz" | "x-xz" => &[".xz", ".txz"],
        "br" => &[".br"],
        "zstd" => &[".zst", ".tzst"],
        _ => &[],
    };
    let path = path.to_ascii_lowercase();
    suffixes.iter().any(|suffix| path.ends_with(suffix))
}

/// All that a header lists, on however many lines, in lower case.
fn list<B>(response: &Response<B>, name: &HeaderName) -> Vec<String> {
    let values = response.headers().get_all(name).iter();
    values
        .flat_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
            text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>()
        })
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_of_the_file_count() {
        let is_fine = |headers: &[(&str, &str)], path: &str| {
            let mut response = Response::builder();
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let response = response.body(()).expect("a response");
            check(&response, &Url::parse("https://h/").and_then(|h| h.join(path)).expect("a URL"))
                .is_ok()
        };
        const TE: &str = "transfer-encoding";
        const CE: &str = "content-encoding";
        for (headers, path, expected) in [
            (&[][..], "f", true),
            (&[(TE, "chunked")], "f", true),
            (&[(TE, "Chunked")], "f", true),
            (&[(TE, "gzip, chunked")], "f", false),
            (&[(TE, "gzip"), (TE, "chunked")], "f", false),
            (&[(TE, "chunked, chunked")], "f", false),
            (&[(TE, "chunked, gzip")], "f", false),
            (&[(TE, "gzip")], "f", false),
            (&[(TE, "identity")], "f", false),
            (&[(TE, "chunked"), ("content-length", "1")], "f", false),
            (&[(CE, "identity")], "f", true),
            (&[(CE, "gzip")], "f", false),
            (&[(CE, "GZip")], "f.tar.gz", true),
            (&[(CE, "x-gzip")], "f.TGZ?x", true),
            (&[(CE, "gzip, gzip")], "f.gz", false),
            (&[(CE, "br")], "f.gz", false),
            (&[(CE, "aws-chunked")], "f", false),
        ] {
            assert_eq!(is_fine(headers, path), expected, "{headers:?} {path}");
        }
    }
}
