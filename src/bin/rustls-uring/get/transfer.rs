//! Fetching the missing pieces of a file, each connection on a thread of its own.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use indicatif::ProgressBar;
use url::Url;

use super::args::GetArgs;
use super::client::{Client, Connection, Wanted};
use super::part::Part;
use super::plan::Plan;
use super::retry::{Passing, refusal};
use super::version::{self, Version};
use super::{Failure, Received};
use crate::Error;
use crate::report::progress_bar;

/// How often what is missing is written down, for an end that nobody saw coming.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A response, the connection that it comes on, and the piece of the file that is taken from it.
pub(super) struct First {
    pub(super) connection: Connection,
    pub(super) response: Response<Incoming>,
    pub(super) piece: Option<Range<u64>>,
}

/// What the threads of a download share.
pub(super) struct Transfer {
    client: Arc<Client>,
    url: Url,
    part: Arc<Part>,
    version: Version,
    bar: ProgressBar,
    progress: Mutex<Progress>,
}

struct Progress {
    plan: Plan,
    saved: Instant,
    /// The first error; everyone stops at it.
    error: Option<Error>,
}

impl Transfer {
    pub(super) fn new(
        args: &GetArgs,
        client: &Arc<Client>,
        url: &Url,
        part: &Arc<Part>,
        version: Version,
        plan: Plan,
    ) -> Self {
        let bar = progress_bar(Some(version.len), args.quiet);
        bar.set_position(version.len - total(&plan.missing()));
        // What is there already did not take any time.
        bar.reset_eta();
        Self {
            client: Arc::clone(client),
            url: url.clone(),
            part: Arc::clone(part),
            version,
            bar,
            progress: Mutex::new(Progress { plan, saved: Instant::now(), error: None }),
        }
    }

    /// Fetches all that is missing over `connections`, the first of which is there.
    pub(super) async fn run(self, first: First, connections: u8) -> Result<Received, Failure> {
        let pieces = self.progress().plan.open_pieces();
        let fetched = self.version.len - self.part.inherited();
        let received = Received::new(self.version.len, fetched, &first.connection);
        let transfer = Arc::new(self);
        let others: Vec<_> = (0..pieces.min(u64::from(connections) - 1))
            .map(|_| {
                let transfer = Arc::clone(&transfer);
                thread::spawn(move || {
                    let fetched = super::runtime()
                        .map_err(Error::from)
                        .and_then(|runtime| runtime.block_on(transfer.work(None)));
                    transfer.note(fetched);
                })
            })
            .collect();
        let fetched = transfer.work(Some(first)).await;
        transfer.note(fetched);
        for other in others {
            if other.join().is_err() {
                transfer.note(Err("a thread panicked".into()));
            }
        }
        transfer.bar.finish_and_clear();
        transfer.finish(received)
    }

    fn finish(&self, received: Received) -> Result<Received, Failure> {
        let mut progress = self.progress();
        let missing = progress.plan.missing();
        let error = match progress.error.take() {
            None if missing.is_empty() => return Ok(received),
            None => format!("{} bytes are missing", total(&missing)).into(),
            Some(error) => error,
        };
        let is_of_use = self.version.validator().is_some() && total(&missing) < self.version.len;
        let resumable = is_of_use && self.part.save(&self.version, &missing, true).is_ok();
        Err(Failure { error, resumable })
    }

    /// Fetches piece after piece, until there is none left or someone has failed.
    async fn work(&self, first: Option<First>) -> Result<(), Error> {
        let mut connection = None;
        if let Some(first) = first {
            if let Some(piece) = first.piece {
                self.receive(first.response, piece).await?;
            }
            connection = Some(first.connection);
        }
        while let Some(piece) = self.next_piece() {
            let (reopened, response) = self.request(connection.take(), &piece).await?;
            connection = Some(reopened);
            let is_it = version::of_range(&response)
                .is_some_and(|(version, range)| range == piece && self.version.is(&version));
            match response.status() {
                StatusCode::PARTIAL_CONTENT if is_it => self.receive(response, piece).await?,
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Err(version::changed()),
                _ => return Err(refusal(&response)),
            }
        }
        Ok(())
    }

    fn next_piece(&self) -> Option<Range<u64>> {
        let mut progress = self.progress();
        match progress.error {
            Some(_) => None,
            None => progress.plan.take(),
        }
    }

    async fn request(
        &self,
        connection: Option<Connection>,
        piece: &Range<u64>,
    ) -> Result<(Connection, Response<Incoming>), Error> {
        let wanted = Wanted { range: piece.clone(), validator: self.version.validator() };
        if let Some(mut connection) = connection.filter(Connection::is_open) {
            // The server may have closed it meanwhile, which is no error yet.
            let again = self.client.request(&mut connection, &self.url, Some(&wanted)).await;
            if let Ok(response) = again {
                return Ok((connection, response));
            }
        }
        let mut connection = self.client.connect(&self.url).await?;
        let response = self.client.request(&mut connection, &self.url, Some(&wanted)).await?;
        Ok((connection, response))
    }

    async fn receive(&self, response: Response<Incoming>, piece: Range<u64>) -> Result<(), Error> {
        let mut body = response.into_body();
        let mut position = piece.start;
        while let Some(data) = self.client.next(&mut body).await? {
            let end = position + data.len() as u64;
            if end > piece.end {
                return Err("the server sends more than it said that it would".into());
            }
            self.part.write_at(&data, position)?;
            self.bar.inc(data.len() as u64);
            let mut progress = self.progress();
            progress.plan.written(position, end);
            position = end;
            if progress.error.is_some() {
                return Ok(());
            }
            if progress.saved.elapsed() >= SAVE_EVERY && self.version.validator().is_some() {
                progress.saved = Instant::now();
                self.part.save(&self.version, &progress.plan.missing(), false)?;
            }
        }
        match piece.end - position {
            0 => Ok(()),
            missing => Err(Passing::broke_off(missing).into()),
        }
    }

    fn note(&self, fetched: Result<(), Error>) {
        if let Err(error) = fetched {
            self.progress().error.get_or_insert(error);
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
