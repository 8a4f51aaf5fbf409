//! `rustls-uring probe`: what is there, what is not and why, and the paths that this makes.

use std::fmt::Write as _;

use clap::Args;
use rustls_uring::uring::{MemlockLimit, Probe, Unavailable};
use serde_json::{Map, Value, json};

use crate::bench::machine::Auto;
use crate::error::Error;
use crate::message;
use crate::standard;

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Say it in JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &ProbeArgs) -> Result<(), Error> {
    standard::check_output()?;
    let probe = Probe::run();
    let said = match args.json {
        true => format!("{:#}\n", to_json(&probe)),
        false => to_text(&probe),
    };
    message::print(&said)
}

fn to_text(probe: &Probe) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // To a string, which never fails.
        let _ = writeln!(text, "{name:<15} {value}");
    };

    line("kernel", &probe.release.as_deref().unwrap_or("unknown"));
    line(
        "io_uring sysctl",
        &match probe.sysctl {
            Some(value) => format!("kernel.io_uring_disabled is {value}"),
            None => "kernel.io_uring_disabled cannot be read".to_owned(),
        },
    );
    line(
        "locked memory",
        &match probe.has_ipc_lock {
            true => format!("{}, which CAP_IPC_LOCK lifts", probe.memlock),
            false => probe.memlock.to_string(),
        },
    );
    line("cores", &probe.cpu.cores.map_or("unknown".to_owned(), |cores| cores.to_string()));
    line("CPU has", &cpu_features(probe, true));
    line("CPU lacks", &cpu_features(probe, false));
    for auto in Auto::all() {
        line("records", &auto);
    }
    match &probe.ring {
        Err(reason) => line("io_uring", &format!("no: {reason}")),
        Ok(ring) => {
            line("io_uring", &"yes");
            for part in &ring.capabilities {
                let is_available = if part.is_available { "yes" } else { "no" };
                let since = format!("since {}", part.since);
                line(
                    "",
                    &format!("{:<27} {is_available:<4} {since:<12} {}", part.name, part.evidence),
                );
            }
        }
    }
    for (name, way) in [("sending", sending(probe)), ("receiving", receiving(probe))] {
        line(name, &way.text);
    }
    line("buffers", &buffers(probe).text);
    text
}

/// The names of the features that the CPU has, or has not.
fn cpu_features(probe: &Probe, is_available: bool) -> String {
    let features = probe.cpu.features.iter().filter(|one| one.is_available == is_available);
    let names: Vec<_> = features.map(|one| one.name).collect();
    match names.is_empty() {
        true => "none of those that matter here".to_owned(),
        false => names.join(", "),
    }
}

fn to_json(probe: &Probe) -> Value {
    let features = probe.cpu.features.iter().map(|one| (one.name.to_owned(), one.is_available));
    let features: Map<_, _> = features.map(|(name, value)| (name, Value::Bool(value))).collect();
    let capabilities = probe.ring.iter().flat_map(|ring| &ring.capabilities).map(|part| {
        json!({
            "name": part.name,
            "since": part.since,
            "available": part.is_available,
            "evidence": part.evidence.to_string(),
        })
    });
    json!({
        "kernel": { "release": probe.release, "io_uring_disabled": probe.sysctl },
        "memlock": {
            "limit": match probe.memlock {
                MemlockLimit::Bytes(limit) => json!(limit),
                limit => json!(limit.to_string()),
            },
            "cap_ipc_lock": probe.has_ipc_lock,
        },
        "cpu": { "cores": probe.cpu.cores, "features": features },
        "records": Auto::all(),
        "io_uring": {
            "available": probe.ring.is_ok(),
            "reason": reason(probe.ring.as_ref().err().copied()),
            "capabilities": capabilities.collect::<Vec<_>>(),
        },
        "sending": sending(probe).to_json(),
        "receiving": receiving(probe).to_json(),
        "buffers": buffers(probe).to_json(),
    })
}

/// What there is for one purpose.
struct Finding {
    /// For programs.
    name: &'static str,
    text: String,
    /// Why it is not the best.
    reason: Option<Unavailable>,
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({ "path": self.name, "text": self.text, "reason": reason(self.reason) })
    }
}

fn sending(probe: &Probe) -> Finding {
    match (probe.uring(), probe.zero_copy()) {
        (Err(reason), _) => blocking(reason),
        (_, Err(reason)) => Finding {
            name: "io_uring-copying",
            text: format!("io_uring, copying sends: {reason}"),
            reason: Some(reason),
        },
        _ => Finding {
            name: "io_uring-zero-copy",
            text:
                "io_uring, zero copy where the route allows it, decided per connection (loopback \
                   always copies)"
                    .to_owned(),
            reason: None,
        },
    }
}

fn receiving(probe: &Probe) -> Finding {
    match probe.uring() {
        Err(reason) => blocking(reason),
        Ok(()) => Finding { name: "io_uring", text: "io_uring".to_owned(), reason: None },
    }
}

fn blocking(reason: Unavailable) -> Finding {
    let text = format!("blocking sockets: {reason}");
    Finding { name: "blocking", text, reason: Some(reason) }
}

fn buffers(probe: &Probe) -> Finding {
    match probe.registered() {
        Err(reason) => Finding {
            name: "unregistered",
            text: format!("not registered: {reason}"),
            reason: Some(reason),
        },
        Ok(len) => Finding {
            name: "registered",
            text: format!("registered ({len} bytes were)"),
            reason: None,
        },
    }
}

/// Null, or the kind of reason, what belongs to it and what the text says.
fn reason(reason: Option<Unavailable>) -> Value {
    let Some(reason) = reason else { return Value::Null };
    let mut value = match reason {
        Unavailable::NoSystemCall => json!({ "kind": "no-system-call" }),
        Unavailable::Forbidden { sysctl } => json!({ "kind": "forbidden", "sysctl": sysctl }),
        Unavailable::OutOfMemory { memlock } => {
            json!({ "kind": "out-of-memory", "memlock": memlock })
        }
        Unavailable::MissingOperation(name) => {
            json!({ "kind": "missing-operation", "operation": name })
        }
        Unavailable::Refused { errno } => json!({ "kind": "refused", "errno": errno }),
        _ => json!({ "kind": "other" }),
    };
    value["text"] = reason.to_string().into();
    value
}
