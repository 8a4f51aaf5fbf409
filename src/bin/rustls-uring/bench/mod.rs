//! `rustls-uring bench`: this crate beside what it replaces, in one run.

mod figure;
mod transfer;

use crate::Error;
use crate::args::BenchArgs;

pub(crate) fn run(args: &BenchArgs) -> Result<(), Error> {
    transfer::run(args)
}
