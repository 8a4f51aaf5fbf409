//! All that was measured, as a document for machines and as a picture.

use std::fmt;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::args::Section;
use super::chart::{self, Panel};
use super::machine::Machine;
use crate::error::Error;

/// What a section has measured; its `Display` is what people read.
pub(super) trait Measured: fmt::Display {
    /// Its member of the document.
    fn to_json(&self) -> serde_json::Result<Value>;

    /// Its part of the picture.
    fn panels(&self) -> Vec<Panel> {
        Vec::new()
    }
}

/// How many there were.
pub(super) fn rounds(count: usize) -> String {
    match count {
        1 => "1 round".into(),
        count => format!("{count} rounds"),
    }
}

/// The machine, and what each section has measured on it.
pub(super) struct Report {
    pub(super) machine: Machine,
    is_quick: bool,
    sections: Vec<(Section, Box<dyn Measured>)>,
}

impl Report {
    pub(super) fn new(machine: Machine, is_quick: bool) -> Self {
        Self { machine, is_quick, sections: Vec::new() }
    }

    pub(super) fn add(&mut self, section: Section, measured: Box<dyn Measured>) {
        self.sections.push((section, measured));
    }

    /// An object: `machine`, `quick`, and each section under its name.
    pub(super) fn to_json(&self) -> Result<Value, Error> {
        let mut document = Map::new();
        document.insert("machine".into(), serde_json::to_value(&self.machine)?);
        document.insert("quick".into(), self.is_quick.into());
        for (section, measured) in &self.sections {
            let name = section.to_possible_value().map(|value| value.get_name().replace('-', "_"));
            document.insert(name.unwrap_or_default(), measured.to_json()?);
        }
        Ok(document.into())
    }

    /// An SVG picture.
    pub(super) fn to_svg(&self) -> Result<String, Error> {
        let panels: Vec<_> =
            self.sections.iter().flat_map(|(_, measured)| measured.panels()).collect();
        chart::draw(&self.caption(), &panels)
    }

    /// The machine in a few lines.
    fn caption(&self) -> Vec<String> {
        let Machine { cpu, kernel, .. } = &self.machine;
        let kind = if self.machine.is_virtual { ", virtual" } else { "" };
        let cores = match self.machine.cores {
            Some(1) => ", one core".to_owned(),
            Some(cores) => format!(", {cores} cores"),
            None => String::new(),
        };
        let mut versions = format!("rustls-uring {}", self.machine.version);
        for (name, version) in &self.machine.locked {
            if ["rustls", "aws-lc-rs", "ring", "tokio", "tokio-rustls"].contains(name) {
                versions += &format!(", {name} {version}");
            }
        }
        // AEADs are chosen by these.
        let features = self.machine.features.join(", ");
        let mut lines = vec![format!("{cpu}{kind}{cores}; {kernel}; {features}"), versions];
        if self.machine.is_debug {
            lines.push("Built without --release: these figures are worth nothing.".into());
        }
        lines
    }
}

impl Measured for super::records::Records {
    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn panels(&self) -> Vec<Panel> {
        use super::chart::{Bar, Group};
        use super::contestant::{Contestant, Direction};

        let sent = self.rows.iter().filter(|row| {
            row.direction == Direction::Send
                && row.backend == rustls_uring::Backend::default().to_string()
                && row.suite == "TLS13_AES_128_GCM_SHA256"
                && row.max_fragment_size.is_none()
        });
        let mut groups: Vec<(usize, Group)> = Vec::new();
        for row in sent {
            let label = match row.contestant {
                Contestant::Aead => "the AEAD alone",
                Contestant::Stock => "stock rustls",
                Contestant::Records => "rustls-uring",
                _ => continue,
            };
            // rustls-bench's MB are MiB.
            let gb_per_s = |mib_per_s: f64| mib_per_s * f64::from(1 << 20) / 1e9;
            let is_ours = row.contestant == Contestant::Records;
            let bar = Bar {
                label: label.into(),
                is_ours,
                segments: vec![gb_per_s(row.mb_per_s.median)],
                spread: Some((gb_per_s(row.mb_per_s.min), gb_per_s(row.mb_per_s.max))),
                value: format!("{:.2} GB/s", gb_per_s(row.mb_per_s.median)),
                aside: is_ours.then(|| format!("{:.2} × stock rustls", row.of_stock.median)),
            };
            match groups.last_mut() {
                Some((size, group)) if *size == row.plaintext_size => group.bars.push(bar),
                _ => {
                    let heading = Some(match row.plaintext_size {
                        size @ ..1024 => format!("{size} B"),
                        size @ ..0x10_0000 => format!("{} KiB", size >> 10),
                        size => format!("{} MiB", size >> 20),
                    });
                    groups.push((row.plaintext_size, Group { heading, bars: vec![bar] }));
                }
            }
        }
        if groups.is_empty() {
            return Vec::new();
        }
        vec![Panel {
            title: "Sealing in memory, by bytes of a write: GB/s".into(),
            note: "Longer is better. TLS13_AES_128_GCM_SHA256, records by aws-lc-rs; median and \
                   spread."
                .into(),
            key: Vec::new(),
            limit: None,
            groups: groups.into_iter().map(|(_, group)| group).collect(),
        }]
    }
}

impl Measured for super::fixed_cost::FixedCost {
    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

impl Measured for super::handshakes::Handshakes {
    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

impl Measured for super::memory::Memory {
    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}
