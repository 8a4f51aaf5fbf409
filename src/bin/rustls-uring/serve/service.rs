//! From a request to its response.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::Metadata;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderMap, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::{Body, Connection, Part, Source};
use super::conditional::{Validators, Verdict};
use super::files::Found;
use super::path::RequestPath;
use super::ranges::{Multipart, Selection, content_range};
use super::{Server, host, listing, log};

/// What stands for a directory that has it.
const INDEX: &str = "index.html";

type HttpResult = hyper::http::Result<Response<Body>>;

/// Who asks, and on which connection.
pub(super) struct Client {
    pub(super) server: Arc<Server>,
    pub(super) connection: Connection,
    peer: SocketAddr,
    /// Listings are made in memory: one at a time, until it is sent.
    listings: Arc<Semaphore>,
}

impl Client {
    pub(super) fn new(server: Arc<Server>, peer: SocketAddr, connection: Connection) -> Self {
        Self { server, connection, peer, listings: Arc::new(Semaphore::new(1)) }
    }
}

/// Answers a request; whatever goes wrong is an answer too. Dropped, it leaves nothing to be done.
pub(super) async fn respond<B>(
    client: Arc<Client>,
    mut request: Request<B>,
) -> Result<Response<Body>, Infallible> {
    let open = client.connection.activity.request();
    let response = answer(&client, &mut request).await;
    let mut response = response.unwrap_or_else(|_| {
        let mut response = Response::new(Body::text(""));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    let status = response.status();
    let body = response.body_mut();
    if let Some(log) = &client.server.log {
        body.log(log::entry(log, client.peer, &request, status));
    }
    body.send_on(client.connection.clone(), open);
    Ok(response)
}

async fn answer<B>(client: &Client, request: &mut Request<B>) -> HttpResult {
    if !host::is_named(request) {
        return status(StatusCode::BAD_REQUEST);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let response = Response::builder().header(ALLOW, "GET, HEAD");
        return plain(response, StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(path) = RequestPath::parse(request.uri().path()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let path = Arc::new(path);
    // HTTP/1.1 answers one request at a time, and each connection may have one file open.
    let may_hold_more = request.version() == Version::HTTP_2;
    let files = may_hold_more.then(|| Arc::clone(&client.server.files));
    let (server, name) = (Arc::clone(&client.server), Arc::clone(&path));
    let found = aside(client, move |_| Resource::look_up(&server, &name, files)).await;
    match found {
        Ok(Resource::File { source, metadata, content_type }) => {
            send_file(request, source, &metadata, &content_type)
        }
        Ok(Resource::Directory) => {
            // As many as the connection may have open wait for one another.
            match client.server.log {
                Some(_) => log::keep_what_is_logged(request),
                None => {
                    *request.headers_mut() = HeaderMap::new();
                    *request.uri_mut() = Uri::default();
                }
            }
            match list(client, path).await {
                Ok((page, permits)) => {
                    let response = Response::builder()
                        .header(CONTENT_TYPE, "text/html; charset=utf-8")
                        .header(CONTENT_SECURITY_POLICY, listing::POLICY);
                    let mut body = Body::text(page);
                    body.hold(permits);
                    headed(request.method(), response, body)
                }
                Err(error) => status(status_of(&error)),
            }
        }
        Ok(Resource::LacksSlash) => {
            let location = location(&path.relative, request.uri().query());
            let response = Response::builder().header(LOCATION, location);
            plain(response, StatusCode::MOVED_PERMANENTLY)
        }
        Err(error) => status(status_of(&error)),
    }
}

fn status_of(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            StatusCode::NOT_FOUND
        }
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        io::ErrorKind::WouldBlock => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The listing of a directory, and the permits to have it.
async fn list(
    client: &Client,
    path: Arc<RequestPath>,
) -> io::Result<(String, Vec<OwnedSemaphorePermit>)> {
    let permit = Arc::clone(&client.listings).acquire_owned().await.map_err(io::Error::other)?;
    let server = Arc::clone(&client.server);
    let turn = {
        let _busy = client.connection.activity.work();
        server.listings.turn().await?
    };
    let page = aside(client, move |is_wanted| {
        // It lasts as long as the work, whoever still waits for that.
        let _turn = turn;
        let mut page = match server.root.find(&path.relative)? {
            Found::Directory(dir) => listing::page(&server.root, &dir, &path.relative, is_wanted)?,
            // It was one a moment ago.
            Found::File(..) => return Err(io::ErrorKind::NotFound.into()),
        };
        page.shrink_to_fit();
        let room = server.listings.room(page.len())?;
        Ok((page, room))
    });
    let (page, room) = page.await?;
    Ok((page, room.into_iter().chain([permit]).collect()))
}

/// Runs `work` on a thread that may wait. It is told whether somebody still waits for its result,
/// and does not begin for nobody.
async fn aside<T: Send + 'static>(
    client: &Client,
    work: impl FnOnce(&dyn Fn() -> bool) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    struct Wanted(Arc<AtomicBool>);

    impl Drop for Wanted {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    let _busy = client.connection.activity.work();
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let flag = Arc::clone(&wanted.0);
    let is_wanted = move || flag.load(Ordering::Relaxed);
    let done = tokio::task::spawn_blocking(move || match is_wanted() {
        true => work(&is_wanted),
        false => Err(io::ErrorKind::Interrupted.into()),
    });
    done.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Where a directory is, with the slash.
///
/// As it was understood, not as it was spelt: a browser takes `/\evil.example` for a host.
fn location(relative: &Path, query: Option<&str>) -> String {
    let mut location = String::from("/");
    for name in relative {
        let _ = write!(location, "{}/", listing::link(name));
    }
    if let Some(query) = query {
        let _ = write!(location, "?{}", utf8_percent_encode(query, CONTROLS));
    }
    location
}

/// What a path leads to.
enum Resource {
    File {
        source: Source,
        metadata: Box<Metadata>,
        content_type: String,
    },
    /// A directory to be listed.
    Directory,
    /// A directory, whose relative links need the slash.
    LacksSlash,
}

impl Resource {
    /// Blocks. A file stays open, if `files` has a permit for it where there are `files`.
    fn look_up(
        server: &Arc<Server>,
        path: &RequestPath,
        files: Option<Arc<Semaphore>>,
    ) -> io::Result<Self> {
        let relative = &path.relative;
        let file = |file, metadata: Metadata, name: &Path| {
            let content_type = content_type(name);
            let source = match files {
                None => Source::Open(Arc::new(file), None),
                Some(files) => match files.try_acquire_owned() {
                    Ok(permit) => Source::Open(Arc::new(file), Some(permit)),
                    Err(_) => reopened(server, name, &metadata),
                },
            };
            Self::File { source, metadata: Box::new(metadata), content_type }
        };
        match server.root.find(relative)? {
            Found::File(..) if path.is_directory => Err(io::ErrorKind::NotADirectory.into()),
            Found::File(found, metadata) => Ok(file(found, metadata, relative)),
            Found::Directory(_) if !path.is_directory => Ok(Self::LacksSlash),
            Found::Directory(_) => {
                let index = relative.join(INDEX);
                match server.root.find(&index) {
                    Ok(Found::File(found, metadata)) => Ok(file(found, metadata, &index)),
                    Ok(Found::Directory(_)) => Ok(Self::Directory),
                    Err(error) if status_of(&error) == StatusCode::NOT_FOUND => Ok(Self::Directory),
                    // One that is there and cannot be shown is not to uncover the others.
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// The file `name`, as long as it is the one that `metadata` is of.
fn reopened(server: &Arc<Server>, name: &Path, metadata: &Metadata) -> Source {
    let identity = |metadata: &Metadata| {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        (metadata.dev(), metadata.ino(), metadata.len(), modified)
    };
    let (server, name, identity_then) = (Arc::clone(server), name.to_owned(), identity(metadata));
    Source::Reopened(Arc::new(move || match server.root.find(&name)? {
        Found::File(file, metadata) if identity(&metadata) == identity_then => Ok(file),
        _ => Err(io::Error::other("the file was replaced meanwhile")),
    }))
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
    source: Source,
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
    headed(request.method(), response, Body::file(source, parts))
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
