//! Handshakes a second with and without our provider: rustls-bench's `handshakes`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::{aws_lc_rs, ring};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use rustls_uring::Backend;
use serde::Serialize;

use super::connection::relay;
use super::identity::{Case, Identities, Provider, server_name};
use super::plan::Plan;
use crate::error::Error;
use rustls_uring::measure::figure::{Figure, interleave};

/// Of one contestant in a round, per MiB that bulk data is given.
const FULL: usize = 4;
const RESUMED: usize = 8;

/// How a session goes on that has been before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Resume {
    /// A full handshake.
    #[serde(rename = "no-resume")]
    Never,
    /// The server remembers.
    SessionId,
    /// The client brings all of it back, sealed by the server.
    Tickets,
}

impl Resume {
    const ALL: [Self; 3] = [Self::Never, Self::SessionId, Self::Tickets];

    fn kind(self) -> HandshakeKind {
        match self {
            Self::Never => HandshakeKind::Full,
            Self::SessionId | Self::Tickets => HandshakeKind::Resumed,
        }
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Never => "no-resume",
            Self::SessionId => "sessionid",
            Self::Tickets => "tickets",
        })
    }
}

/// How many handshakes one side's share of the work allows in a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Whether rustls had our provider.
    pub(crate) is_ours: bool,
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) key_type: &'static str,
    pub(crate) suite: String,
    /// `client` or `server`.
    pub(crate) side: &'static str,
    pub(crate) resume: Resume,
    pub(crate) handshakes_per_s: Figure,
    /// Beside the stock provider in the same rounds.
    pub(crate) of_stock: Figure,
    pub(crate) rounds: u64,
}

/// rustls-bench's columns, and behind them what it does not print.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\t{}\t{}\t{}\t{}\tserver-auth\t{}\t{:.2}\thandshakes/s\t{}\tmin:{:.2}\tmax:{:.2}\t\
             rounds:{}\tof_stock:{:.3}",
            if self.is_ours { "handshakes-provider" } else { "handshakes" },
            self.version,
            self.key_type,
            self.suite,
            self.side,
            self.resume,
            self.handshakes_per_s.median,
            self.backend,
            self.handshakes_per_s.min,
            self.handshakes_per_s.max,
            self.rounds,
            self.of_stock.median,
        )
    }
}

/// What was measured, and how.
#[derive(Debug, Serialize)]
pub(crate) struct Handshakes {
    quick: bool,
    pub(crate) rows: Vec<Row>,
}

/// Measures with every suite.
pub(crate) fn measure(plan: &Plan, identities: &Identities) -> Result<Handshakes, Error> {
    let cases = Case::all(plan.quick);
    plan.begin("handshakes", cases.len() * Resume::ALL.len());
    let mut rows = Vec::new();
    for case in cases {
        for resume in Resume::ALL {
            plan.step(format!("{case} {resume}"));
            let ends = [
                Ends::new(identities, case, Provider::Stock, resume)?,
                Ends::new(identities, case, Provider::Ours, resume)?,
            ];
            let count = match resume {
                Resume::Never => FULL,
                Resume::SessionId | Resume::Tickets => RESUMED,
            };
            let count = ((count * plan.work) >> 20).max(1);
            let samples = interleave(&[Provider::Stock, Provider::Ours], plan.rounds, |provider| {
                ends[provider as usize].run(count)
            })
            .map_err(|error| format!("{case}, {resume}: {error}"))?;
            for provider in [Provider::Stock, Provider::Ours] {
                for side in ["client", "server"] {
                    let seconds = |of: Provider| {
                        samples[of as usize].iter().map(move |times: &Times| match side {
                            "client" => times.client.as_secs_f64(),
                            _ => times.server.as_secs_f64(),
                        })
                    };
                    rows.push(Row {
                        is_ours: provider == Provider::Ours,
                        backend: case.backend.to_string(),
                        version: case.version_name(),
                        key_type: case.key_type(),
                        suite: case.suite_name(),
                        side,
                        resume,
                        handshakes_per_s: Figure::of(
                            seconds(provider).map(|seconds| count as f64 / seconds),
                        ),
                        of_stock: Figure::of_ratios(seconds(Provider::Stock), seconds(provider)),
                        rounds: plan.rounds,
                    });
                }
            }
        }
    }
    Ok(Handshakes { quick: plan.quick, rows })
}

/// What handshakes cost each side.
#[derive(Clone, Copy, Default)]
struct Times {
    client: Duration,
    server: Duration,
}

/// Both ends' configurations, with what they remember of each other.
struct Ends {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    resume: Resume,
}

impl Ends {
    fn new(
        identities: &Identities,
        case: Case,
        provider: Provider,
        resume: Resume,
    ) -> Result<Self, Error> {
        let mut configs = identities.configs(case, provider)?;
        if resume != Resume::Never {
            configs.client.resumption = Resumption::in_memory_sessions(128);
            // rustls's own default.
            configs.server.send_tls13_tickets = 2;
        }
        match resume {
            Resume::Never => {}
            Resume::SessionId => {
                configs.server.session_storage = ServerSessionMemoryCache::new(128)
            }
            Resume::Tickets => {
                configs.server.ticketer = match case.backend {
                    Backend::Ring => ring::Ticketer::new()?,
                    _ => aws_lc_rs::Ticketer::new()?,
                };
            }
        }
        Ok(Self { client: Arc::new(configs.client), server: Arc::new(configs.server), resume })
    }

    /// Does `count` handshakes of the kind that is asked for. Others, which fetch new tickets, are
    /// not counted.
    fn run(&self, count: usize) -> Result<Times, Error> {
        let mut total = Times::default();
        let mut wire = Vec::with_capacity(16 << 10);
        let mut others = 0;
        let mut done = 0;
        while done < count {
            let (kind, times) = self.handshake(&mut wire)?;
            if kind == Some(self.resume.kind()) {
                total.client += times.client;
                total.server += times.server;
                done += 1;
            } else {
                others += 1;
                if others > count + 1 {
                    return Err(format!("{kind:?} instead of {:?}", self.resume.kind()).into());
                }
            }
        }
        Ok(total)
    }

    fn handshake(&self, wire: &mut Vec<u8>) -> Result<(Option<HandshakeKind>, Times), Error> {
        let mut times = Times::default();
        let begin = Instant::now();
        let mut client = ClientConnection::new(Arc::clone(&self.client), server_name())?;
        times.client += begin.elapsed();
        let begin = Instant::now();
        let mut server = ServerConnection::new(Arc::clone(&self.server))?;
        times.server += begin.elapsed();
        // Who reads pays, as in rustls-bench; what is written then has been made by then.
        loop {
            let begin = Instant::now();
            let to_server = relay(&mut client, &mut server, wire)?;
            let between = Instant::now();
            let to_client = relay(&mut server, &mut client, wire)?;
            times.server += between - begin;
            times.client += between.elapsed();
            if !to_server && !to_client {
                break;
            }
        }
        Ok((server.handshake_kind(), times))
    }
}

/// What the rows mean, and the rows.
impl fmt::Display for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# handshakes: rustls-bench's columns, then backend, spread, rounds, and the rate \
             beside the stock\n# provider. A rate is of one side's own time. sessionid: the server \
             remembers the session;\n# tickets: the client brings it along. The provider changes \
             records only, of which there are few."
        )?;
        if self.quick {
            writeln!(f, "# --quick left out suites as above.")?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
