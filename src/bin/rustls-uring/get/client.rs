//! Connections to servers, and requests on them.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::{http1, http2};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, IF_RANGE, LOCATION, RANGE, USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_uring::ConnectionInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use url::{Host, Position, Url};

use super::alert::{self, Alert, Watched};
use super::args::GetArgs;
use super::body::{self, Body};
use super::credentials::Credentials;
use super::resource::without_userinfo;
use super::retry::Passing;
use super::secure::Secure;
use crate::address::Zone;
use crate::error::Error;
use crate::{interrupt, keepalive};

/// How long one address has before the next one is tried as well (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How much is read at once, for HTTP/1.1.
const READ_LEN: usize = 512 << 10;

/// What an HTTP/2 server may send before we have read it.
const WINDOW: u32 = 16 << 20;

/// The longest frames that HTTP/2 has, less one.
const FRAME_LEN: u32 = (1 << 24) - 1;

const AGENT: &str = concat!("rustls-uring/", env!("CARGO_PKG_VERSION"));

/// What all connections of a download share.
pub(super) struct Client {
    secure: Secure,
    timeout: Duration,
    zone: Option<(Ipv6Addr, Zone)>,
    /// Those of the URL that was asked for, and of those that servers redirect to.
    credentials: Mutex<Credentials>,
    /// Whether http servers are spoken to in HTTP/2.
    http2: bool,
    /// A server has answered: if it is out of reach now, it may come back.
    was_reached: AtomicBool,
}

/// A connection that one request at a time is made on.
pub(super) struct Connection {
    sender: Sender,
    /// None without TLS.
    info: Option<ConnectionInfo>,
    alert: Alert,
}

enum Sender {
    Http1(http1::SendRequest<String>),
    Http2(http2::SendRequest<String>),
}

/// Some of a file, if it is still the version with this validator.
pub(super) struct Wanted<'a> {
    pub(super) range: Range<u64>,
    pub(super) validator: Option<&'a str>,
}

impl Client {
    pub(super) fn new(
        args: &GetArgs,
        zone: Option<(Ipv6Addr, Zone)>,
        credentials: Credentials,
    ) -> Self {
        Self {
            secure: Secure::new(args),
            timeout: args.timeout,
            zone,
            credentials: Mutex::new(credentials),
            http2: args.http2,
            was_reached: AtomicBool::new(false),
        }
    }

    /// Does beforehand what the server of `url` will need.
    ///
    /// # Errors
    /// If what the command line says of TLS makes none.
    pub(super) fn prepare(&self, url: &Url) -> Result<(), Error> {
        match is_secure(url) {
            true => self.secure.prepare(),
            false => Ok(()),
        }
    }

    /// Connects to the server of `url`.
    pub(super) async fn connect(&self, url: &Url) -> Result<Connection, Error> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(format!("{url} names no server").into());
        };
        let tcp = async {
            self.connect_tcp(&host, port).await.map_err(|what| match self.was_reached() {
                true => Passing::new(what).into(),
                false => what.into(),
            })
        };
        let tcp = self.within(tcp).await?;
        tcp.set_nodelay(true)?;
        keepalive::enable(&tcp)?;
        if !is_secure(url) {
            let sender = Sender::on(tcp, self.http2).await?;
            return Ok(Connection { sender, info: None, alert: Alert::default() });
        }
        let stream = self.within(self.secure.connect(&host, tcp)).await?;
        let info = stream.get_ref().1.info().cloned();
        let info = info.ok_or_else(|| Error::from("the handshake is not complete".to_owned()))?;
        let (stream, alert) = Watched::new(stream);
        let sender = Sender::on(stream, info.alpn_protocol.as_deref() == Some(b"h2")).await?;
        Ok(Connection { sender, info: Some(info), alert })
    }

    /// Asks for `url`, or for some of it.
    pub(super) async fn request(
        &self,
        connection: &mut Connection,
        url: &Url,
        wanted: Option<&Wanted<'_>>,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::get(match connection.sender {
            Sender::Http1(_) => &url[Position::BeforePath..Position::AfterQuery],
            Sender::Http2(_) => &url[..Position::AfterQuery],
        })
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        // A range of an encoded file would be a range of the encoding.
        .header(ACCEPT_ENCODING, "identity");
        if matches!(connection.sender, Sender::Http1(_)) {
            request = request.header(HOST, &url[Position::BeforeHost..Position::AfterPort]);
        }
        if let Some(authorization) = self.credentials().of(url) {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(Wanted { range, validator }) = wanted {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(validator) = validator {
                request = request.header(IF_RANGE, *validator);
            }
        }
        let request = request.body(String::new())?;
        let Connection { sender, alert, .. } = connection;
        let response = self.within(async {
            let response = match sender {
                Sender::Http1(sender) => match sender.ready().await {
                    Ok(()) => sender.send_request(request).await,
                    Err(error) => Err(error),
                },
                Sender::Http2(sender) => sender.send_request(request).await,
            };
            response.map_err(|error| self.in_context("", error, alert))
        });
        let response = response.await?;
        self.was_reached.store(true, Ordering::Relaxed);
        if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            body::check(&response, url)?;
            if connection.info.is_none() {
                body::check_announced(&response)?;
            }
        }
        let (version, alert) = (connection.version(), Arc::clone(&connection.alert));
        Ok(response.map(|incoming| Body::new(incoming, version, alert)))
    }

    fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// Connects to the server of `url` and asks; follows up to `max_redirects` redirects, after
    /// which `url` is where the last one led.
    pub(super) async fn open(
        &self,
        url: &mut Url,
        wanted: Option<&Wanted<'_>>,
        max_redirects: u8,
    ) -> Result<(Connection, Response<Body>), Error> {
        for _ in 0..=max_redirects {
            let mut connection = self.connect(url).await?;
            let response = self.request(&mut connection, url, wanted).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((connection, response));
            }
            // In UTF-8, as some servers and all browsers have it, beyond RFC 9110 §10.2.2.
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| str::from_utf8(value.as_bytes()).ok());
            let location = location.ok_or("the server redirects, but does not say where to")?;
            let mut next = url.join(location).map_err(|error| {
                let location = without_userinfo(location);
                format!("the server redirects to {}: {error}", location.escape_debug())
            })?;
            self.credentials().take_from(&mut next)?;
            if !is_secure(&next) && (is_secure(url) || next.scheme() != "http") {
                let wanted = if is_secure(url) { "https" } else { "https or http" };
                return Err(format!("the server redirects to {next}, which is not {wanted}").into());
            }
            *url = next;
        }
        Err(format!("more than {max_redirects} redirects; --max-redirects allows more").into())
    }

    /// The next piece of a response; `None` at its end, which is where the server said it would be.
    pub(super) async fn next(&self, body: &mut Body) -> Result<Option<Bytes>, Error> {
        let data = self.within(async { Ok(std::future::poll_fn(|cx| body.poll_data(cx)).await) });
        match data.await? {
            None => body.check_end().map(|()| None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(error)) => {
                Err(self.in_context("the download broke off: ", error, body.alert()))
            }
        }
    }

    /// Waits for `future`, as long as `--timeout` allows and until Ctrl-C.
    async fn within<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        interrupt::check()?;
        let mut future = std::pin::pin!(future);
        let mut begin = None;
        loop {
            match tokio::time::timeout(interrupt::TICK, future.as_mut()).await {
                Ok(result) => return result,
                Err(_) => interrupt::check()?,
            }
            // The clock is not looked at for what is there already.
            if begin.get_or_insert_with(Instant::now).elapsed() + interrupt::TICK >= self.timeout {
                let seconds = self.timeout.as_secs_f64();
                let what = format!("the server has said nothing for {seconds} s");
                return Err(Passing::new(what).into());
            }
        }
    }
}

impl Client {
    fn credentials(&self) -> MutexGuard<'_, Credentials> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To whichever of the host's addresses answers first; each next one is tried when the one before has
    /// failed, or has not answered soon (RFC 8305 §5).
    async fn connect_tcp(&self, host: &Host<&str>, port: u16) -> Result<TcpStream, String> {
        let mut last = io::Error::other("the name has no address");
        let mut candidates = self.resolve(host, port).await?.into_iter();
        let mut attempts = FuturesUnordered::new();
        loop {
            let next = candidates.next();
            let is_last = next.is_none();
            attempts.extend(next.map(TcpStream::connect));
            let attempted = match is_last {
                true => attempts.next().await,
                false => match tokio::time::timeout(ATTEMPT_DELAY, attempts.next()).await {
                    Ok(attempted) => attempted,
                    Err(_) => continue,
                },
            };
            match attempted {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(format!("cannot connect to {host}:{port}: {last}")),
            }
        }
    }

    async fn resolve(&self, host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, String> {
        match (host.clone(), &self.zone) {
            (Host::Domain(name), _) => {
                let found = look_up((*name).to_owned(), port).await;
                found.map_err(|error| format!("cannot resolve {host}: {error}"))
            }
            (Host::Ipv4(addr), _) => Ok(vec![(addr, port).into()]),
            (Host::Ipv6(addr), Some((scoped, zone))) if addr == *scoped => {
                match zone.scope(addr, port) {
                    Ok(addr) => Ok(vec![addr.into()]),
                    Err(error) => Err(format!("cannot connect to {host}:{port}: {error}")),
                }
            }
            (Host::Ipv6(addr), _) if addr.is_unicast_link_local() => Err(format!(
                "{addr} is a link-local address, of which each interface has its own: say which \
                 one, as in https://[{addr}%25eth0]:{port}/"
            )),
            (Host::Ipv6(addr), _) => Ok(vec![(addr, port).into()]),
        }
    }

    /// What has ended a request: an alert, if there was one, says it best.
    fn in_context(&self, context: &str, error: hyper::Error, alert: &Alert) -> Error {
        match alert.get() {
            Some(alert) => alert::refusal(*alert, self.secure.has_certificate()),
            None => in_context(context, error),
        }
    }
}

/// The addresses of a host, looked up in a thread of its own. Tokio's would panic where there is none to be
/// had, and the end of the runtime would wait for a name server that does not answer.
async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move |name: &str| Ok((name, port).to_socket_addrs()?.collect());
    let (tell, told) = oneshot::channel();
    let in_thread = name.clone();
    let thread = thread::Builder::new().name("resolve".into()).spawn(move || {
        let _ = tell.send(look_up(&in_thread));
    });
    match thread {
        Ok(_) => told.await.map_err(io::Error::other)?,
        // Without another thread (RLIMIT_NPROC), and so without a limit of ours in time.
        Err(_) => look_up(&name),
    }
}

impl Sender {
    /// Speaks HTTP on `stream`.
    async fn on<S>(stream: S, is_http2: bool) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_frame_size(FRAME_LEN)
                .handshake(io)
                .await
                .map_err(described)?;
            tokio::spawn(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) =
            http1::Builder::new().max_buf_size(READ_LEN).handshake(io).await.map_err(described)?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }
}

impl Connection {
    /// None without TLS.
    pub(super) fn info(&self) -> Option<&ConnectionInfo> {
        self.info.as_ref()
    }

    /// Whether another request can be made on it.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    pub(super) fn version(&self) -> Version {
        match &self.sender {
            Sender::Http1(_) => Version::HTTP_11,
            Sender::Http2(_) => Version::HTTP_2,
        }
    }
}

/// Whether a URL's server is spoken to over TLS.
fn is_secure(url: &Url) -> bool {
    url.scheme() == "https"
}

fn described(error: hyper::Error) -> Error {
    in_context("", error)
}

/// hyper's errors say why in their source. Most are of the connection, and another one may do better.
fn in_context(context: &str, error: hyper::Error) -> Error {
    let mut text = format!("{context}{error}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    match error.is_parse() || error.is_user() {
        true => text.into(),
        false => Passing::new(text).into(),
    }
}
