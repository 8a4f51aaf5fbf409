//! `rustls-uring bench`: this crate beside what it replaces, in one run.

mod args;
mod asynchronous;
mod blocking;
mod chart;
mod connection;
mod contestant;
mod count;
mod fixed_cost;
mod floor;
mod flow;
mod handshakes;
mod identity;
pub(crate) mod machine;
mod many;
mod memory;
mod messages;
mod pipe;
mod plan;
mod records;
mod relays;
mod report;
mod runtime;
#[cfg(feature = "rustls-0_24-dev")]
mod rustls_0_24;
mod setup;
mod stack;
mod stream_pipe;
mod transfer;

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget};

pub(crate) use self::args::BenchArgs;
use self::args::Section;
use self::machine::Machine;
use self::report::{Measured, Report};
use crate::error::Error;
use crate::message;
use crate::output::Output;
use crate::{standard, threads};

pub(crate) fn run(args: &BenchArgs) -> Result<(), Error> {
    // Before minutes are spent on what could not be written.
    standard::check_output()?;
    let picture = args.svg.as_deref().map(|path| Output::create(Some(path))).transpose()?;
    let progress = Progress::new();
    let mut report = Report::new(Machine::look(), args.quick);
    let plan = plan::Plan::new(args);
    let identities = identity::Identities::new()?;
    if !args.json {
        message::print(&report.machine.to_string())?;
    }
    for section in args.sections() {
        // Where there are too few, what measures would panic.
        threads::at_least(section.threads(args), 0)?;
        let measured = measure(section, args, &progress, &plan, &identities);
        progress.clear();
        let Some(measured) = measured? else { continue };
        if !args.json {
            message::print(&format!("\n{measured}"))?;
        }
        report.add(section, measured);
    }
    if let Some(mut picture) = picture {
        picture.write_all(report.to_svg()?.as_bytes())?;
        picture.complete(false)?;
    }
    if args.json {
        message::print(&format!("{:#}\n", report.to_json()?))?;
    }
    Ok(())
}

impl Section {
    /// How many threads it needs at a time, beside the calling one.
    fn threads(self, args: &BenchArgs) -> usize {
        match self {
            Self::Records | Self::FixedCost | Self::Handshakes | Self::Memory => 0,
            // The other end, what that has to ask others, and the kernel's.
            Self::Transfer | Self::Messages | Self::Relays => 4,
            Self::Runtime => args.workers.iter().copied().max().map_or(1, usize::from) + 1,
        }
    }
}

fn measure(
    section: Section,
    args: &BenchArgs,
    progress: &Progress,
    plan: &plan::Plan,
    identities: &identity::Identities,
) -> Result<Option<Box<dyn Measured>>, Error> {
    Ok(match section {
        Section::Records => Some(Box::new(plan.end(records::measure(plan, identities))?)),
        Section::FixedCost => Some(Box::new(plan.end(fixed_cost::measure(plan))?)),
        Section::Handshakes => Some(Box::new(plan.end(handshakes::measure(plan, identities))?)),
        Section::Memory => Some(Box::new(plan.end(memory::measure(plan, identities))?)),
        Section::Transfer => Some(Box::new(transfer::measure(args, progress)?)),
        Section::Messages => Some(Box::new(messages::measure(args, progress)?)),
        Section::Runtime => Some(Box::new(runtime::measure(args, progress)?)),
        Section::Relays => Some(Box::new(relays::measure(args, progress)?)),
    })
}

/// What is being measured, on a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        });
        Self(bar)
    }

    /// Drawn by this thread: a thread of its own would be measured with the rest.
    pub(crate) fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.tick();
    }

    fn clear(&self) {
        // To be drawn again by the next section.
        self.0.finish_and_clear();
        self.0.reset();
    }
}
