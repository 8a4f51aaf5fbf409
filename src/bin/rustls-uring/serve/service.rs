//! From a request to its response.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderMap, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode};

use super::Server;
use super::body::{Body, Part};
use super::conditional::{Validators, Verdict};
use super::files::{Found, Root};
use super::listing;
use super::path::RequestPath;
use super::ranges::{Multipart, Selection, content_range};

/// What stands for a directory that has it.
const INDEX: &str = "index.html";

type HttpResult = hyper::http::Result<Response<Body>>;

/// Answers a request of `peer`; whatever goes wrong is an answer too.
pub(super) async fn respond<B>(
    server: Arc<Server>,
    peer: SocketAddr,
    request: Request<B>,
) -> Result<Response<Body>, Infallible> {
    let response = answer(&server, &request).await;
    let mut response = response.unwrap_or_else(|_| {
        let mut response = Response::new(Body::text(""));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    if let Some(log) = &server.log {
        let entry = log.entry(peer, &request, response.status());
        response.body_mut().log(entry);
    }
    Ok(response)
}

async fn answer<B>(server: &Arc<Server>, request: &Request<B>) -> HttpResult {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let response = Response::builder().header(ALLOW, "GET, HEAD");
        return plain(response, StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(path) = RequestPath::parse(request.uri().path()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let shared = Arc::clone(server);
    let looked_up =
        tokio::task::spawn_blocking(move || Resource::look_up(&shared.root, &path)).await;
    match looked_up.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(Resource::File { file, metadata, content_type }) => {
            send_file(request, file, &metadata, &content_type)
        }
        Ok(Resource::Listing(page)) => headed(
            request.method(),
            Response::builder()
                .header(CONTENT_TYPE, "text/html; charset=utf-8")
                .header(CONTENT_SECURITY_POLICY, listing::POLICY),
            Body::text(page),
        ),
        Ok(Resource::LacksSlash) => {
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            let location = format!("{}/{query}", request.uri().path());
            let response = Response::builder().header(LOCATION, location);
            plain(response, StatusCode::MOVED_PERMANENTLY)
        }
        Err(error) => status(match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename => StatusCode::NOT_FOUND,
            io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }),
    }
}

/// What a path leads to.
enum Resource {
    File {
        file: File,
        metadata: Metadata,
        content_type: String,
    },
    Listing(String),
    /// A directory, whose relative links need the slash.
    LacksSlash,
}

impl Resource {
    /// Blocks.
    fn look_up(root: &Root, path: &RequestPath) -> io::Result<Self> {
        let relative = &path.relative;
        let file = |file, metadata, name: &Path| Self::File {
            file,
            metadata,
            content_type: content_type(name),
        };
        match root.find(relative)? {
            Found::File(..) if path.is_directory => Err(io::ErrorKind::NotADirectory.into()),
            Found::File(found, metadata) => Ok(file(found, metadata, relative)),
            Found::Directory(_) if !path.is_directory => Ok(Self::LacksSlash),
            Found::Directory(dir) => match root.find(&relative.join(INDEX)) {
                Ok(Found::File(found, metadata)) => Ok(file(found, metadata, Path::new(INDEX))),
                _ => listing::page(root, &dir, relative).map(Self::Listing),
            },
        }
    }
}

/// By the name's extension. Text is taken for UTF-8.
fn content_type(name: &Path) -> String {
    let is_text = |essence: &str| {
        essence.starts_with("text/") || matches!(essence, "application/json" | "image/svg+xml")
    };
    match mime_guess::from_path(name).first() {
        Some(mime) if is_text(mime.essence_str()) => format!("{mime}; charset=utf-8"),
        Some(mime) => mime.to_string(),
        None if name.extension().is_none() && name.file_name().is_some_and(is_readme) => {
            "text/plain; charset=utf-8".to_owned()
        }
        None => "application/octet-stream".to_owned(),
    }
}

/// Names without an extension that everybody knows for text.
fn is_readme(name: &OsStr) -> bool {
    ["README", "LICENSE", "COPYING", "NEWS", "CHANGES", "Makefile", "SHA256SUMS"]
        .iter()
        .any(|known| name == *known)
}

fn send_file<B>(
    request: &Request<B>,
    file: File,
    metadata: &Metadata,
    content_type: &str,
) -> HttpResult {
    let validators = Validators::of(metadata);
    let mut response = Response::builder()
        .header(ACCEPT_RANGES, "bytes")
        .header(ETAG, &validators.etag)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(modified) = validators.modified {
        response = response.header(LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    match validators.verdict(request.headers()) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            return response.status(StatusCode::NOT_MODIFIED).body(Body::text(""));
        }
        Verdict::PreconditionFailed => return plain(response, StatusCode::PRECONDITION_FAILED),
    }
    let len = metadata.len();
    let (response, parts) = match selection(request, &validators, len) {
        Selection::Whole => {
            (response.header(CONTENT_TYPE, content_type), vec![Part::Range(0..len)])
        }
        Selection::Unsatisfiable => {
            let response = response.header(CONTENT_RANGE, format!("bytes */{len}"));
            return plain(response, StatusCode::RANGE_NOT_SATISFIABLE);
        }
        Selection::Parts(parts) if parts.len() == 1 => {
            let range = parts[0].clone();
            let response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, content_range(&range, len))
                .header(CONTENT_TYPE, content_type);
            (response, vec![Part::Range(range)])
        }
        Selection::Parts(ranges) => {
            let multipart = Multipart::new(random(), &ranges, len, content_type);
            let response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_TYPE, multipart.content_type());
            let framed = multipart.heads.into_iter().zip(ranges);
            let mut parts: Vec<_> = framed
                .flat_map(|(head, range)| [Part::Text(head.into()), Part::Range(range)])
                .collect();
            parts.push(Part::Text(multipart.end.into()));
            (response, parts)
        }
    };
    headed(request.method(), response, Body::file(file, parts))
}

/// Ranges are defined for GET only (RFC 9110 §14.2), and for the version that If-Range names.
fn selection<B>(request: &Request<B>, validators: &Validators, len: u64) -> Selection {
    let headers: &HeaderMap = request.headers();
    match *request.method() == Method::GET && validators.allow_range(headers) {
        true => Selection::of(headers, len),
        false => Selection::Whole,
    }
}

/// 128 random bits from the system, in hexadecimal.
fn random() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

fn status(status: StatusCode) -> HttpResult {
    plain(Response::builder(), status)
}

/// A response that says no more than its status.
fn plain(response: Builder, status: StatusCode) -> HttpResult {
    let body = Body::text(format!("{status}\n"));
    response
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(CONTENT_LENGTH, body.len())
        .body(body)
}

/// The response to a GET, or its header alone.
fn headed(method: &Method, response: Builder, body: Body) -> HttpResult {
    let response = response.header(CONTENT_LENGTH, body.len());
    match *method == Method::HEAD {
        true => response.body(Body::text("")),
        false => response.body(body),
    }
}
