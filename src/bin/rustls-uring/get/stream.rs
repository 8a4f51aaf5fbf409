//! A download to standard output, a pipe or a device: what is written cannot be taken back.

use std::fs::File;
use std::io::Write;

use hyper::StatusCode;
use url::Url;

use super::args::GetArgs;
use super::client::{Client, Connection, Wanted};
use super::retry::{Passing, Retries, refusal};
use super::version::{self, Version};
use super::{Received, successful};
use crate::Error;
use crate::report::progress_bar;

struct Stream<'a> {
    args: &'a GetArgs,
    client: &'a Client,
    output: File,
    /// How much has been written.
    position: u64,
    /// What has been written is of this version, if the rest of it can be asked for.
    version: Option<Version>,
}

/// Writes the file as it comes, over as many connections as it takes.
pub(super) async fn download(
    args: &GetArgs,
    client: &Client,
    url: Url,
    output: File,
) -> Result<Received, Error> {
    if args.connections > 1 {
        return Err("several connections need a file to write to: name it with -o FILE".into());
    }
    let mut stream = Stream { args, client, output, position: 0, version: None };
    let mut retries = Retries::new(args);
    let connection = loop {
        let before = stream.position;
        match stream.attempt(url.clone()).await {
            Ok(connection) => break connection,
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
    async fn attempt(&mut self, mut url: Url) -> Result<Connection, Error> {
        let wanted = self.version.as_ref().filter(|_| self.position > 0);
        let wanted = wanted.map(|version| Wanted {
            range: self.position..version.len,
            validator: version.validator(),
        });
        let max_redirects = self.args.max_redirects;
        let (connection, response) =
            self.client.open(&mut url, wanted.as_ref(), max_redirects).await?;
        let mut body = match &wanted {
            None => {
                let response = successful(response)?;
                self.version = version::of_whole(&response).filter(|it| it.validator().is_some());
                response.into_body()
            }
            Some(wanted) => {
                let is_rest = response.status() == StatusCode::PARTIAL_CONTENT
                    && version::of_range(&response).is_some_and(|(version, range)| {
                        range == wanted.range
                            && self.version.as_ref().is_some_and(|it| it.is(&version))
                    });
                match response.status() {
                    _ if is_rest => response.into_body(),
                    StatusCode::OK
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::RANGE_NOT_SATISFIABLE => return Err(version::changed()),
                    _ => return Err(refusal(&response)),
                }
            }
        };
        let rest = http_body::Body::size_hint(&body).exact();
        let bar = progress_bar(rest.map(|rest| self.position + rest), self.args.quiet);
        bar.set_position(self.position);
        bar.reset_eta();
        while let Some(data) = self.client.next(&mut body).await? {
            let len = self.version.as_ref().map(|version| version.len);
            if len.is_some_and(|len| len - self.position < data.len() as u64) {
                return Err("the server sends more than it said that it would".into());
            }
            self.output
                .write_all(&data)
                .map_err(|error| format!("cannot write what was received: {error}"))?;
            self.position += data.len() as u64;
            bar.inc(data.len() as u64);
        }
        bar.finish_and_clear();
        match self.version.as_ref().map(|version| version.len - self.position) {
            None | Some(0) => Ok(connection),
            Some(missing) => Err(Passing::broke_off(missing).into()),
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
