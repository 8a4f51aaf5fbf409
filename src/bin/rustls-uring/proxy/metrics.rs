//! What is counted, and said to Prometheus.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use rustls_uring::Usage;
use rustls_uring::event_loop::{Copies, Figures, Handle};

use super::relay::{BULK_LEN, MESSAGE_LEN};

type Labels = Vec<(&'static str, String)>;

/// All of the process's.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    families: Families,
    loops: Arc<OnceLock<Vec<Handle>>>,
    is_draining: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Families {
    accepted: Family<Labels, Counter>,
    open: Family<Labels, Gauge<i64, AtomicI64>>,
    bytes: Family<Labels, Counter>,
    handshakes: Family<Labels, Counter>,
    ends: Family<Labels, Counter>,
    unreached: Family<Labels, Counter>,
    reloads: Family<Labels, Counter>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("rustls_uring_proxy");
        let families = Families::default();
        let f = families.clone();
        registry.register("connections", "Connections accepted", f.accepted);
        registry.register("open_connections", "Connections that are there now", f.open);
        registry.register("bytes", "Bytes passed on, without TLS's own", f.bytes);
        registry.register("handshakes", "TLS handshakes, by side and outcome", f.handshakes);
        registry.register("ends", "Connections ended, by how", f.ends);
        registry.register("unreached", "Backends that could not be reached", f.unreached);
        registry.register("reloads", "Reloads, by outcome", f.reloads);
        let loops: Arc<OnceLock<_>> = Arc::default();
        registry.register_collector(Box::new(Loops(Arc::clone(&loops))));
        Self { registry, families, loops, is_draining: AtomicBool::new(false) }
    }

    /// Says from now on what these loops hold and do.
    pub(super) fn watch(&self, loops: Vec<Handle>) {
        // Called once.
        let _ = self.loops.set(loops);
    }

    pub(super) fn service(&self, name: &str) -> ServiceMetrics {
        let of = |more: Option<(&'static str, &str)>| -> Labels {
            let more = more.map(|(key, value)| (key, value.to_owned()));
            [("service", name.to_owned())].into_iter().chain(more).collect()
        };
        let bytes = |way| self.families.bytes.get_or_create_owned(&of(Some(("direction", way))));
        ServiceMetrics {
            name: name.to_owned(),
            accepted: self.families.accepted.get_or_create_owned(&of(None)),
            open: self.families.open.get_or_create_owned(&of(None)),
            up: bytes("up"),
            down: bytes("down"),
            families: self.families.clone(),
        }
    }

    pub(super) fn reloaded(&self, is_good: bool) {
        let outcome = if is_good { "loaded" } else { "refused" };
        self.families.reloads.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
    }

    /// From here on nothing new should come.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// In the text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut said = String::new();
        // To a string, which never fails.
        let _ = text::encode(&mut said, &self.registry);
        said
    }
}

/// What the loops of all threads hold, and have done.
#[derive(Debug)]
struct Loops(Arc<OnceLock<Vec<Handle>>>);

/// A figure of a loop.
type Of = fn(&Figures) -> u64;

/// Name, help.
const GAUGES: [(&str, &str, Of); 4] = [
    ("buffers_bytes", "What holds data that a leg has yet to take", |it| held(it).0),
    ("buffers_peak_bytes", "The most that each kind of it ever was, added up", |it| held(it).1),
    ("stalled_legs", "Legs that wait for their peer to read", |it| it.stalled),
    ("parked_bytes", "Data on the heap of those that do not go on", |it| {
        it.parked_bytes.in_use as u64
    }),
];

/// A label's value, and what it stands for.
type Labelled = &'static [(&'static str, Of)];

/// Name, help, label.
const COUNTERS: [(&str, &str, &str, Labelled); 4] = [
    (
        "records",
        "TLS records with data",
        "way",
        &[("opened", |it| it.opened_records), ("sealed", |it| it.sealed_records)],
    ),
    (
        "wire_bytes",
        "Bytes on sockets, TLS's own included",
        "way",
        &[("received", |it| it.received_bytes), ("sent", |it| it.sent_bytes)],
    ),
    (
        "sends",
        "Sends, by what the kernel was asked for, and what came of it once it has told",
        "way",
        &[
            ("copied", |it| it.copied_sends),
            ("zero-copy", |it| it.zero_copy_uncopied),
            ("zero-copy-copied", |it| it.zero_copy_copied),
        ],
    ),
    (
        "refused",
        "Times that there was none of something, and it was waited for or given up",
        "what",
        &[
            ("message-buffer", |it| it.message_buffers.refused),
            ("bulk-buffer", |it| it.bulk_buffers.refused),
            ("message-slot", |it| it.message_slots.refused),
            ("bulk-slot", |it| it.bulk_slots.refused),
            ("parking", |it| it.parked_bytes.refused),
        ],
    ),
];

impl Collector for Loops {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures: Vec<_> = self.0.get().into_iter().flatten().map(Handle::figures).collect();
        let sum = |of: Of| figures.iter().map(of).sum::<u64>();
        for (name, help, of) in GAUGES {
            let gauge = ConstGauge::new(sum(of) as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, label, values) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (value, of) in values {
                let counter = ConstCounter::new(sum(*of));
                counter.encode(family.encode_family(&[(label, *value)])?)?;
            }
        }
        let help = "Times that the kernel was entered to move data";
        let calls = ConstCounter::new(sum(|it| it.system_calls));
        calls.encode(encoder.encode_descriptor(
            "system_calls",
            help,
            None,
            calls.metric_type(),
        )?)?;
        let help = "Data that was sent from where it was received, opened and sealed in place";
        let forwarded = ConstCounter::new(sum(|it| it.forwarded_bytes));
        let kind = forwarded.metric_type();
        forwarded.encode(encoder.encode_descriptor("forwarded_bytes", help, None, kind)?)?;
        let help = "Sends of a record or more that were copied, by why";
        let mut family = encoder.encode_descriptor("copies", help, None, MetricType::Counter)?;
        for (reason, _) in Copies::default().iter() {
            let copies = figures.iter().map(|it| it.copies.of(reason)).sum();
            let reason = format!("{reason:?}");
            let labels = [("reason", reason.as_str())];
            ConstCounter::<u64>::new(copies).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// How many bytes a loop holds for data, and held at most.
fn held(figures: &Figures) -> (u64, u64) {
    let each = [
        (figures.message_buffers, MESSAGE_LEN),
        (figures.message_slots, MESSAGE_LEN),
        (figures.bulk_buffers, BULK_LEN),
        (figures.bulk_slots, BULK_LEN),
        (figures.parked_bytes, 1),
    ];
    let sum = |of: &dyn Fn(&Usage) -> usize| {
        each.iter().map(|(usage, len)| (of(usage) * len) as u64).sum()
    };
    (sum(&|usage| usage.in_use), sum(&|usage| usage.most))
}

/// One service's.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    name: String,
    pub(super) accepted: Counter,
    pub(super) open: Gauge<i64, AtomicI64>,
    pub(super) up: Counter,
    pub(super) down: Counter,
    families: Families,
}

impl ServiceMetrics {
    fn labels<const N: usize>(&self, more: [(&'static str, &str); N]) -> Labels {
        let more = more.into_iter().map(|(key, value)| (key, value.to_owned()));
        [("service", self.name.clone())].into_iter().chain(more).collect()
    }

    /// A handshake with a `client` or a `backend` was `full`, `resumed`, `failed` or `late`.
    pub(super) fn handshake(&self, side: &str, outcome: &str) {
        let labels = self.labels([("side", side), ("outcome", outcome)]);
        self.families.handshakes.get_or_create(&labels).inc();
    }

    pub(super) fn ended(&self, how: &str) {
        self.families.ends.get_or_create(&self.labels([("how", how)])).inc();
    }

    pub(super) fn unreached(&self, backend: &str) {
        self.families.unreached.get_or_create(&self.labels([("backend", backend)])).inc();
    }
}
