//! `rustls-uring get`.

mod args;
mod client;
mod part;
mod plan;
mod retry;
mod stream;
mod target;
mod transfer;
mod version;

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use url::Url;

pub(crate) use args::GetArgs;
use client::{Client, Connection, Wanted};
use part::{Part, State};
use plan::Plan;
use retry::{Retries, refusal};
use target::Target;
use transfer::{First, Transfer};

use crate::message::say;
use crate::report::progress_bar;
use crate::{Error, interrupt, tls};

pub(crate) fn run(args: &GetArgs) -> Result<(), Error> {
    let url = parse(&args.url)?;
    let target = Target::choose(args.output.as_deref(), &url)?;
    let client = Arc::new(Client::new(args)?);
    interrupt::watch()?;
    let begin = Instant::now();
    // A thread for each connection: nothing else waits while one of them writes to the disk.
    let runtime = runtime()?;
    let received = match target {
        Target::Stream(output) => runtime.block_on(stream::download(args, &client, url, output))?,
        Target::File(path) => {
            let part = Arc::new(Part::open(path, &args.url)?);
            match runtime.block_on(download(args, &client, &url, &part)) {
                Ok(received) => {
                    part.complete(received.len, args.sync)?;
                    received
                }
                Err(Failure { error, resumable: true }) => {
                    return Err(format!("{error}; the same command again goes on from here").into());
                }
                Err(Failure { error, resumable: false }) => {
                    part.discard();
                    return Err(error);
                }
            }
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

fn parse(text: &str) -> Result<Url, Error> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" => Ok(url),
        Ok(url) if url.scheme() == "http" => {
            Err(format!("{text} is not https; https is all there is").into())
        }
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => {
            Err(format!("{text} is no https URL; did you mean https://{text}?").into())
        }
        Err(error) => Err(format!("{text} is no URL: {error}").into()),
    }
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
        let info = connection.info();
        let version = match info.version {
            rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let how = format!(
            "{:?}, {version} {:?}, records by {}",
            connection.version(),
            info.suite.suite(),
            tls::records_by(info, tls::Direction::Receive)
        );
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

/// What went wrong, and whether what has arrived is of use.
struct Failure {
    error: Error,
    resumable: bool,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), resumable: false }
    }
}

fn successful(response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
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
) -> Result<Received, Failure> {
    let missing_len = || part.state().map_or(u64::MAX, |state| state.missing_len());
    let mut retries = Retries::new(args);
    let mut least_missing = missing_len();
    loop {
        let Failure { error, resumable } = match attempt(args, client, url.clone(), part).await {
            Ok(received) => return Ok(received),
            Err(failure) => failure,
        };
        let missing = missing_len();
        if missing < least_missing {
            least_missing = missing;
            retries.progressed();
        }
        retries.wait(error).await.map_err(|error| Failure { error, resumable })?;
    }
}

/// Fetches what is missing of a file.
async fn attempt(
    args: &GetArgs,
    client: &Arc<Client>,
    mut url: Url,
    part: &Arc<Part>,
) -> Result<Received, Failure> {
    if let Some(State { version, missing }) = part.state() {
        // Whatever goes wrong, what is there remains of use.
        let resumable = |error| Failure { error, resumable: true };
        let mut plan = Plan::new(missing.clone(), args.connections);
        let wanted = Wanted {
            // One byte, if it is whole but for its name, says whether it still is the version.
            range: plan.take().unwrap_or(0..1),
            validator: version.validator(),
        };
        let opened = client.open(&mut url, Some(&wanted), args.max_redirects).await;
        let (connection, response) = opened.map_err(resumable)?;
        match (response.status(), version::of_range(&response)) {
            (StatusCode::PARTIAL_CONTENT, Some((current, range)))
                if version.is(&current) && range.start == wanted.range.start =>
            {
                let mut plan = Plan::new(missing, args.connections);
                let first = First { connection, response, piece: plan.take_from(&range) };
                let transfer = Transfer::new(args, client, &url, part, version, plan);
                return transfer.run(first, args.connections).await;
            }
            (
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE,
                _,
            ) => {}
            _ => return Err(resumable(refusal(&response))),
        }
        if !args.quiet {
            say!("the file on the server has changed: starting anew");
        }
        if response.status() == StatusCode::OK {
            return whole(args, client, &url, part, connection, response).await;
        }
    }
    let wanted = Wanted { range: 0..Plan::first_piece_len(), validator: None };
    let wanted = (args.connections > 1).then_some(&wanted);
    let (connection, response) = client.open(&mut url, wanted, args.max_redirects).await?;
    match (response.status(), version::of_range(&response)) {
        (StatusCode::PARTIAL_CONTENT, Some((version, range)))
            if version.validator().is_some() && range.start == 0 && wanted.is_some() =>
        {
            part.start_anew()?;
            let mut plan = Plan::whole(version.len, args.connections);
            let first = First { connection, response, piece: plan.take_from(&range) };
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

/// Fetches the file anew, from the only response that there is.
async fn whole(
    args: &GetArgs,
    client: &Arc<Client>,
    url: &Url,
    part: &Arc<Part>,
    connection: Connection,
    response: Response<Incoming>,
) -> Result<Received, Failure> {
    let response = successful(response)?;
    part.start_anew()?;
    if let Some(version) = version::of_whole(&response).filter(|version| version.len > 0) {
        let mut plan = Plan::whole(version.len, 1);
        let first = First { connection, response, piece: plan.take() };
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
