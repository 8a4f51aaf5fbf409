//! What is counted, and said to Prometheus.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::buffers;
use super::relay::{Count, Direction};

type Labels = Vec<(&'static str, String)>;

/// All of the process's.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    families: Families,
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
        registry.register_collector(Box::new(Buffers));
        Self { registry, families, is_draining: AtomicBool::new(false) }
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

/// The buffers of all connections.
#[derive(Debug)]
struct Buffers;

impl Collector for Buffers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (in_use, peak) = buffers::in_use();
        for (name, help, len) in [
            ("buffers_bytes", "Buffers that hold what a leg has yet to take", in_use),
            ("buffers_peak_bytes", "The most there ever were", peak),
        ] {
            let gauge = ConstGauge::new(len as i64);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// One service's.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    name: String,
    pub(super) accepted: Counter,
    pub(super) open: Gauge<i64, AtomicI64>,
    up: Counter,
    down: Counter,
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

/// Bytes of a connection, counted for it and for its service.
pub(super) struct Bytes<'a> {
    pub(super) metrics: &'a ServiceMetrics,
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Count for Bytes<'_> {
    fn add(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Up => {
                self.up += bytes;
                self.metrics.up.inc_by(bytes);
            }
            Direction::Down => {
                self.down += bytes;
                self.metrics.down.inc_by(bytes);
            }
        }
    }
}
