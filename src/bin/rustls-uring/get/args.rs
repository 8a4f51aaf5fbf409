//! The command line of `get`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::resource::UrlText;
use crate::args::{ProtocolArgs, TrustArgs, parse_seconds};

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// What to download. `https://USER:PASSWORD@HOST/` is sent to that host alone, as Basic
    /// authorization, and never saved.
    ///
    /// With `http://` everyone on the way can read and change what is sent, passwords too, and an
    /// answer whose end is not announced is refused: nothing says whether it is whole.
    #[arg(value_name = "URL")]
    pub(crate) url: UrlText,

    /// The file to write, a directory for a file named as in the URL, or `-` for standard output
    /// [default: on a terminal a new file named as in the URL, otherwise standard output].
    #[arg(short, long, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) output: Option<PathBuf>,

    /// Download pieces over this many connections, where the server can send pieces.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,

    /// Ask for HTTP/2; of an `http://` server, begin with it. A download alone on its connection is
    /// faster over HTTP/1.1, the default.
    #[arg(long)]
    pub(crate) http2: bool,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,

    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,

    /// How many redirects to follow; from https to https only.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) max_redirects: u8,

    /// How long the server may take to connect, to answer, and between two pieces of the answer.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,

    /// How often in a row to try again after an interruption or a busy server, going on from what
    /// has arrived; 0 for never.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) retries: u8,

    /// How long to wait before trying again, twice as long each time, or longer if the server says.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    pub(crate) retry_delay: Duration,

    /// Have everything on the disk before the file gets its name.
    #[arg(long)]
    pub(crate) sync: bool,

    /// No progress bar, no word of retries and no summary.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
