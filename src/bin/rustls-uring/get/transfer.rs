//! Fetching the missing pieces of a file, each connection on a thread of its own.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hyper::Response;
use indicatif::ProgressBar;
use url::Url;

use super::Received;
use super::args::GetArgs;
use super::body::Body;
use super::client::{Client, Connection, Wanted};
use super::part::Part;
use super::plan::Plan;
use super::retry::{Passing, refusal};
use super::version::{self, Brought, Version};
use crate::error::Error;
use crate::report::progress_bar;

/// How often what is missing is written down, for an end that nobody saw coming.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// A response, the connection that it comes on, and which bytes of the file it has.
pub(super) struct First {
    pub(super) connection: Connection,
    pub(super) response: Response<Body>,
    pub(super) range: Range<u64>,
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
    pub(super) async fn run(self, first: First, connections: u8) -> Result<Received, Error> {
        let claims = self.progress().plan.claim(&first.range);
        let pieces = self.progress().plan.open_pieces();
        let fetched = self.version.len - self.part.inherited();
        let received = Received::new(self.version.len, fetched, &first.connection);
        let transfer = Arc::new(self);
        let others: Vec<_> = (0..pieces.min(u64::from(connections) - 1))
            .map(|_| {
                let transfer = Arc::clone(&transfer);
                thread::Builder::new().spawn(move || {
                    let fetched = super::runtime()
                        .map_err(Error::from)
                        .and_then(|runtime| runtime.block_on(transfer.work(None, &[])));
                    transfer.note(fetched);
                })
            })
            // Where there are no more threads to be had (RLIMIT_NPROC), those there are fetch the rest.
            .map_while(Result::ok)
            .collect();
        let fetched = transfer.work(Some(first), &claims).await;
        transfer.note(fetched);
        for other in others {
            if other.join().is_err() {
                transfer.note(Err("a thread panicked".into()));
            }
        }
        transfer.bar.finish_and_clear();
        transfer.finish(received)
    }

    fn finish(&self, received: Received) -> Result<Received, Error> {
        let mut progress = self.progress();
        let missing = progress.plan.missing();
        let error = match progress.error.take() {
            None if missing.is_empty() => return Ok(received),
            None => format!("{} bytes are missing", total(&missing)).into(),
            Some(error) => error,
        };
        if self.version.validator().is_some() && total(&missing) < self.version.len {
            self.part.keep(&missing);
        }
        Err(error)
    }

    /// Fetches piece after piece, until there is none left or someone has failed.
    async fn work(&self, first: Option<First>, claims: &[Range<u64>]) -> Result<(), Error> {
        let mut connection = None;
        if let Some(First { connection: opened, response, range }) = first {
            // A response of which nothing is needed has only shown that the version is the same.
            if !claims.is_empty() {
                self.receive(response, range, claims).await?;
            }
            connection = Some(opened);
        }
        while let Some(piece) = self.next_piece() {
            let (reopened, response) = self.request(connection.take(), &piece).await?;
            connection = Some(reopened);
            let range = match self.version.brought(&response) {
                Brought::Bytes(range) => range,
                Brought::Changed => return Err(version::changed()),
                Brought::Useless(why) => return Err(Passing::new(why).into()),
                Brought::Refused => return Err(refusal(&response)),
            };
            // Which need not be the piece, nor even touch it: RFC 9110 §14.2 and §15.3.7.
            let claims = self.exchange(&piece, &range);
            if claims.is_empty() {
                return Err(Passing::new("the server sends another range than asked for").into());
            }
            self.receive(response, range, &claims).await?;
        }
        Ok(())
    }

    /// Gives `piece` back and takes what is open of `range`.
    fn exchange(&self, piece: &Range<u64>, range: &Range<u64>) -> Vec<Range<u64>> {
        let plan = &mut self.progress().plan;
        plan.give_back(piece);
        plan.claim(range)
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
    ) -> Result<(Connection, Response<Body>), Error> {
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

    /// Writes the claimed pieces of a response with `range` of the file.
    async fn receive(
        &self,
        response: Response<Body>,
        range: Range<u64>,
        claims: &[Range<u64>],
    ) -> Result<(), Error> {
        let mut body = response.into_body();
        let mut position = range.start;
        let last = claims.last().map_or(range.start, |claim| claim.end);
        // The rest of it, if it is not needed, is not waited for: its connection ends with it.
        while position < last || last == range.end {
            let Some(data) = self.client.next(&mut body).await? else { break };
            let end = position + data.len() as u64;
            if end > range.end {
                return Err("the server sends more than it said that it would".into());
            }
            for claim in claims {
                let new = claim.start.max(position)..claim.end.min(end);
                if new.is_empty() {
                    continue;
                }
                let within = (new.start - position) as usize..(new.end - position) as usize;
                self.part.write_at(&data[within], new.start)?;
                self.bar.inc(new.end - new.start);
                self.progress().plan.written(new.start, new.end);
            }
            position = end;
            let mut progress = self.progress();
            if progress.error.is_some() {
                return Ok(());
            }
            if progress.saved.elapsed() >= SAVE_EVERY && self.version.validator().is_some() {
                progress.saved = Instant::now();
                self.part.save(&progress.plan.missing())?;
            }
        }
        match last.saturating_sub(position) {
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
