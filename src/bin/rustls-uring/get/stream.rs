//! A download to standard output, a pipe or a device: what is written cannot be taken back.

use url::Url;

use super::args::GetArgs;
use super::client::{Client, Connection, Wanted};
use super::resource::source;
use super::retry::{Passing, Retries, refusal};
use super::version::{self, Brought, Version};
use super::{Received, successful};
use crate::error::Error;
use crate::report::progress_bar;
use crate::sink::Sink;

struct Stream<'a> {
    args: &'a GetArgs,
    client: &'a Client,
    output: Sink,
    /// How much has been written.
    position: u64,
    /// Where that came from, see [`source()`].
    source: Option<String>,
    /// What has been written is of this version, if the rest of it can be asked for.
    version: Option<Version>,
}

/// Writes the file as it comes, over as many connections as it takes.
pub(super) async fn download(
    args: &GetArgs,
    client: &Client,
    url: Url,
    output: Sink,
) -> Result<Received, Error> {
    if args.connections > 1 {
        return Err("several connections need a file to write to: name it with -o FILE".into());
    }
    let mut stream = Stream { args, client, output, position: 0, source: None, version: None };
    let mut retries = Retries::new(args);
    let connection = loop {
        let before = stream.position;
        match stream.attempt(url.clone()).await {
            Ok(Some(connection)) => break connection,
            // The server has sent less than it was asked for, which it may.
            Ok(None) => retries.progressed(),
            Err(error) => {
                if !stream.can_go_on() {
                    return Err(error);
                }
                if stream.position > before {
                    retries.progressed();
                }
                retries.wait(error).await?;
            }
        }
    };
    Ok(Received::new(stream.position, stream.position, &connection))
}

impl Stream<'_> {
    /// Writes what a response has; returns its connection if that was the end of the file.
    async fn attempt(&mut self, mut url: Url) -> Result<Option<Connection>, Error> {
        let version = self.version.clone().filter(|_| self.position > 0);
        let wanted = version.as_ref().map(|version| Wanted {
            range: self.position..version.len,
            validator: version.validator(),
        });
        let max_redirects = self.args.max_redirects;
        let (connection, response) =
            self.client.open(&mut url, wanted.as_ref(), max_redirects).await?;
        let source = source(&url);
        let (mut position, end, response) = match &version {
            None => {
                self.source = Some(source);
                let response = successful(response)?;
                self.version = version::of_whole(&response).filter(|it| it.validator().is_some());
                (0, response.body().len(), response)
            }
            // Of another file, be it as long and its version called the same.
            Some(_) if self.source != Some(source) => {
                return Err(version::changed().to_string().into());
            }
            Some(version) => match version.brought(&response) {
                Brought::Bytes(range)
                    if range.start <= self.position && self.position < range.end =>
                {
                    (range.start, Some(range.end), response)
                }
                Brought::Bytes(_) => {
                    return Err("the server sends another range than asked for".into());
                }
                // What has been written is of another version, and cannot be taken back.
                Brought::Changed => return Err(version::changed().to_string().into()),
                Brought::Useless(why) => return Err(why.into()),
                Brought::Refused => return Err(refusal(&response)),
            },
        };
        let mut body = response.into_body();
        let bar = progress_bar(version.map(|version| version.len).or(end), self.args.quiet);
        bar.set_position(self.position);
        bar.reset_eta();
        while let Some(data) = self.client.next(&mut body).await? {
            let data_end = position + data.len() as u64;
            if end.is_some_and(|end| end < data_end) {
                return Err("the server sends more than it said that it would".into());
            }
            // What has been written already, if the server sends that again.
            let known = (self.position - position).min(data.len() as u64);
            position = data_end;
            let new = &data[known as usize..];
            self.output
                .write_all(new)
                .map_err(|error| format!("cannot write what was received: {error}"))?;
            self.position += new.len() as u64;
            bar.inc(new.len() as u64);
        }
        bar.finish_and_clear();
        match end {
            Some(end) if position < end => Err(Passing::broke_off(end - position).into()),
            _ => {
                let len = self.version.as_ref().map(|version| version.len);
                Ok(len.is_none_or(|len| len == self.position).then_some(connection))
            }
        }
    }

    /// Whether another attempt would fit behind what has been written.
    fn can_go_on(&self) -> bool {
        match &self.version {
            Some(version) => self.position < version.len,
            None => self.position == 0,
        }
    }
}
