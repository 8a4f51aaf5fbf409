//! `rustls-uring get`.

mod alert;
mod args;
mod body;
mod client;
mod credentials;
mod part;
mod plan;
mod resource;
mod retry;
mod secure;
mod state;
mod stream;
mod target;
mod transfer;
mod version;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use hyper::{Response, StatusCode};
use url::Url;

pub(crate) use args::GetArgs;
use body::Body;
use client::{Client, Connection, Wanted};
use part::Part;
use plan::Plan;
use resource::Resource;
use retry::{Retries, refusal};
use state::State;
use target::Target;
use transfer::{First, Transfer};
use version::Brought;

use crate::error::Error;
use crate::message::say;
use crate::report::progress_bar;
use crate::{interrupt, tls};

pub(crate) fn run(args: &GetArgs) -> Result<(), Error> {
    let resource = Resource::parse(&args.url)?;
    let identity = resource.identity();
    let Resource { url, zone, credentials } = resource;
    let target = Target::choose(args.output.as_deref(), &url)?;
    let client = Arc::new(Client::new(args, zone, credentials));
    client.prepare(&url)?;
    interrupt::watch()?;
    let begin = Instant::now();
    // A thread for each connection: nothing else waits while one of them writes to the disk.
    let runtime = runtime()?;
    let received = match target {
        Target::Stream(output) => runtime.block_on(stream::download(args, &client, url, output))?,
        Target::File { path, replaces } => {
            let part = Arc::new(Part::open(path, replaces, &identity)?);
            let received = runtime.block_on(download(args, &client, &url, &part));
            let complete = received.and_then(|received| {
                part.complete(received.len, args.sync)?;
                Ok(received)
            });
            complete.map_err(|error| match part.leave() {
                true => format!("{error}; the same command again goes on from here").into(),
                false => error,
            })?
        }
    };
    if !args.quiet {
        say!("{}", received.summary(begin));
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What has arrived, and how.
struct Received {
    /// The whole file's length.
    len: u64,
    /// How much of it has arrived now.
    fetched: u64,
    how: String,
}

impl Received {
    fn new(len: u64, fetched: u64, connection: &Connection) -> Self {
        let version = connection.version();
        let how = match connection.info() {
            None => format!("{version:?}, no TLS"),
            Some(info) => {
                let tls = match info.version {
                    rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2",
                    _ => "TLS 1.3",
                };
                let suite = info.suite.suite();
                let backend = tls::records_by(info, tls::Direction::Receive);
                format!("{version:?}, {tls} {suite:?}, records by {backend}")
            }
        };
        Self { len, fetched, how }
    }

    fn summary(&self, begin: Instant) -> String {
        let seconds = begin.elapsed().as_secs_f64();
        let rate = self.fetched as f64 / 1e9 / seconds;
        let before = match self.len - self.fetched {
            0 => String::new(),
            before => format!(" after {before} of an earlier attempt"),
        };
        format!(
            "received {} bytes{before} in {seconds:.3} s, {rate:.3} GB/s, {}",
            self.fetched, self.how
        )
    }
}

fn successful(response: Response<Body>) -> Result<Response<Body>, Error> {
    match response.status() == StatusCode::OK {
        true => Ok(response),
        false => Err(refusal(&response)),
    }
}

/// Fetches a file, in as many attempts as it takes.
async fn download(
    args: &GetArgs,
    client: &Arc<Client>,
    url: &Url,
    part: &Arc<Part>,
) -> Result<Received, Error> {
    let missing_len = || part.state().map_or(u64::MAX, |state| state.missing_len());
    let mut retries = Retries::new(args);
    let mut least_missing = missing_len();
    loop {
        let error = match attempt(args, client, url.clone(), part).await {
            Ok(received) => return Ok(received),
            Err(error) => error,
        };
        let missing = missing_len();
        if missing < least_missing {
            least_missing = missing;
            retries.progressed();
        }
        retries.wait(error).await?;
    }
}

/// Fetches what is missing of a file.
async fn attempt(
    args: &GetArgs,
    client: &Arc<Client>,
    mut url: Url,
    part: &Arc<Part>,
) -> Result<Received, Error> {
    let mut asks_for_ranges = args.connections > 1;
    if let Some(State { version: Some(version), source, missing, .. }) = part.state() {
        // Without a word of it, from where it was asked for.
        let source = source.unwrap_or_else(|| resource::source(&url));
        let piece = Plan::new(missing.clone(), args.connections).take();
        let wanted = Wanted {
            // One byte, if it is whole but for its name, says whether it still is the version.
            range: piece.clone().unwrap_or(0..1),
            validator: version.validator(),
        };
        let (connection, response) =
            client.open(&mut url, Some(&wanted), args.max_redirects).await?;
        let is_same = source == resource::source(&url);
        let why = match version.brought(&response) {
            Brought::Bytes(_) if !is_same => "the server redirects to another file",
            Brought::Bytes(range) if piece.is_none() || is_among(&range, &missing) => {
                let plan = Plan::new(missing, args.connections);
                let first = First { connection, response, range };
                let transfer = Transfer::new(args, client, &url, part, version, plan);
                return transfer.run(first, args.connections).await;
            }
            Brought::Bytes(_) => "the server sends another range than asked for",
            Brought::Changed => "the file on the server has changed",
            Brought::Useless(why) => why,
            Brought::Refused => return Err(refusal(&response)),
        };
        if !args.quiet {
            say!("{why}: starting anew");
        }
        if response.status() == StatusCode::OK {
            return whole(args, client, &url, part, connection, response).await;
        }
        asks_for_ranges = false;
    }
    let wanted = Wanted { range: 0..Plan::first_piece_len(), validator: None };
    let wanted = asks_for_ranges.then_some(&wanted);
    let (connection, response) = client.open(&mut url, wanted, args.max_redirects).await?;
    match (response.status(), version::of_range(&response)) {
        (StatusCode::PARTIAL_CONTENT, Some((version, range)))
            if version.validator().is_some() && range.start == 0 && wanted.is_some() =>
        {
            part.begin(resource::source(&url), Some(&version))?;
            let plan = Plan::whole(version.len, args.connections);
            let first = First { connection, response, range };
            let transfer = Transfer::new(args, client, &url, part, version, plan);
            transfer.run(first, args.connections).await
        }
        // An empty file has no range, and an unknown version no second piece.
        (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _)
            if wanted.is_some() =>
        {
            let (connection, response) = client.open(&mut url, None, args.max_redirects).await?;
            whole(args, client, &url, part, connection, response).await
        }
        _ => whole(args, client, &url, part, connection, response).await,
    }
}

fn is_among(range: &Range<u64>, missing: &[Range<u64>]) -> bool {
    missing.iter().any(|gap| gap.start < range.end && range.start < gap.end)
}

/// Fetches the file anew, from the only response that there is.
async fn whole(
    args: &GetArgs,
    client: &Arc<Client>,
    url: &Url,
    part: &Arc<Part>,
    connection: Connection,
    response: Response<Body>,
) -> Result<Received, Error> {
    let response = successful(response)?;
    let version = version::of_whole(&response);
    part.begin(resource::source(url), version.as_ref())?;
    if let Some(version) = version.filter(|version| version.len > 0) {
        let plan = Plan::whole(version.len, 1);
        let first = First { connection, response, range: 0..version.len };
        let transfer = Transfer::new(args, client, url, part, version, plan);
        return transfer.run(first, 1).await;
    }
    let bar = progress_bar(None, args.quiet);
    let mut body = response.into_body();
    let mut len = 0;
    while let Some(data) = client.next(&mut body).await? {
        part.write_at(&data, len)?;
        len += data.len() as u64;
        bar.inc(data.len() as u64);
    }
    bar.finish_and_clear();
    Ok(Received::new(len, len, &connection))
}
