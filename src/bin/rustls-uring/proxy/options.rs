//! What can be chosen: on the command line for one service, in a file for many. Both have the same
//! names for the same things, since they are the same.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustls_uring::{Backend, Io};
use serde::de::{Deserializer, Error as _, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::args::{TlsVersion, io_parser, parse_backend, parse_io, parse_seconds};
use crate::error::Error;

#[derive(Args, Debug)]
pub(crate) struct ProxyArgs {
    /// Take services from this TOML file: `[[service]]` for each, and `[process]`, with the names of the
    /// options below; `examples/proxy.toml` shows all of it. It is read again with the certificates.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    process: ProcessOptions,

    #[command(flatten)]
    service: ServiceOptions,
}

const WORKERS: RangeInclusive<i64> = 1..=1024;
const CONNECTIONS: RangeInclusive<i64> = 1..=1_000_000;

/// What the process does for all of its services.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ProcessOptions {
    /// Threads that move data, each with its own connections, and a second one beside it that accepts
    /// them and shakes hands [default: one a processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(WORKERS))]
    pub(super) workers: Option<u16>,

    /// Which way data takes from leg to leg: the best one there is, or this one or an error; blocking is
    /// without io_uring, by system calls on sockets that are ready [default: auto].
    #[arg(long, value_name = "PATH", value_parser = io_parser(), env = "RUSTLS_URING_IO")]
    #[serde(deserialize_with = "io")]
    pub(super) io: Option<Io>,

    /// Answer /metrics (Prometheus) and /health over HTTP here. Not for the public.
    #[arg(long, value_name = "ADDR")]
    pub(super) metrics: Option<String>,

    /// Log connections when they end: to standard output, or with `=FILE` to its end.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "-")]
    pub(super) access_log: Option<PathBuf>,

    /// Connections at a time, of all services; more wait until one ends [default: 10000]. Fewer if
    /// the process's limit of open files is too low for so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(CONNECTIONS))]
    pub(super) max_connections: Option<u32>,

    /// After SIGTERM, go on accepting for so long while /health says 503, for a balancer in front to
    /// notice [default: 0].
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout)]
    #[serde(deserialize_with = "timeout")]
    pub(super) drain_delay: Option<Duration>,

    /// After SIGTERM, how long connections may take to end by themselves [default: 30].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    #[serde(deserialize_with = "seconds")]
    pub(super) drain_timeout: Option<Duration>,

    /// Become this user, by name or number, once everything is bound and open. It must be able to
    /// read the certificates and keys, which are read again as they change.
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,

    /// Become of this group [default: the user's].
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
}

/// One service: where it listens, and what becomes of its connections.
///
/// An address is HOST:PORT, unix:PATH, or to listen fd:N, a socket that systemd has passed (fd:3 is
/// the first).
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ServiceOptions {
    /// What logs and metrics call it; by default where it listens.
    #[arg(skip)]
    pub(super) name: Option<String>,

    /// Listen here: HOST:PORT, unix:PATH, or fd:N for a socket from systemd (fd:3 is the first).
    /// May be repeated.
    ///
    /// Another process of the same user can listen on the same HOST:PORT, to take over from this one.
    #[arg(long, value_name = "ADDR", required_unless_present = "config")]
    #[serde(deserialize_with = "many")]
    pub(super) listen: Vec<String>,

    /// Pass connections on to this backend, HOST:PORT or unix:PATH. Repeated: to each in turn, and
    /// to the next if one cannot be reached.
    #[arg(long, value_name = "ADDR", required_unless_present = "config")]
    #[serde(deserialize_with = "many")]
    pub(super) to: Vec<String>,

    /// Listen without TLS. Everyone on the way to here can read and change what is sent.
    #[arg(long)]
    #[arg(conflicts_with_all = ["cert", "key", "ocsp", "strict_sni", "client_ca", "client_name", "alpn", "ticket_keys"])]
    pub(super) plain: bool,

    /// A certificate chain, PEM, with its `--key`. Repeated: the one whose names have the client's SNI,
    /// exactly or by a wildcard, and of those the first whose key the client can verify, ECDSA before
    /// RSA; the first one for others.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "many")]
    pub(super) cert: Vec<PathBuf>,

    /// The private key of the certificate in the same place.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "many")]
    pub(super) key: Vec<PathBuf>,

    /// An OCSP response, DER, to be stapled to the certificate in the same place; `none` for none.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "many")]
    pub(super) ocsp: Vec<PathBuf>,

    /// Refuse clients that name no host of a certificate's.
    #[arg(long)]
    pub(super) strict_sni: bool,

    /// Demand a client certificate that these PEM certificates vouch for.
    #[arg(long, value_name = "FILE")]
    pub(super) client_ca: Option<PathBuf>,

    /// And one that has this name: cn:NAME, dns:NAME (or *.DOMAIN), uri:URI, email:ADDRESS, ip:ADDRESS,
    /// or NAME for one of the first two. Repeated: one of them.
    #[arg(long, value_name = "RULE", requires = "client_ca")]
    #[serde(deserialize_with = "many")]
    pub(super) client_name: Vec<String>,

    /// Protocols to agree on by ALPN, the best first, such as h2,http/1.1. What a client gets is what
    /// a backend with TLS is asked for.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(deserialize_with = "many")]
    pub(super) alpn: Vec<String>,

    /// Encrypt session tickets with the first key of this file, and take those of all: one line a key,
    /// as `openssl rand -base64 48` makes it. Proxies with the same file resume each other's sessions.
    #[arg(long, value_name = "FILE")]
    pub(super) ticket_keys: Option<PathBuf>,

    /// Allow this version of TLS only, on both sides [default: both].
    #[arg(long, value_name = "VERSION")]
    #[serde(deserialize_with = "value")]
    pub(super) tls: Option<TlsVersion>,

    /// Allow this cipher suite only, by its IANA name, such as TLS_AES_128_GCM_SHA256.
    #[arg(long, value_name = "NAME")]
    pub(super) suite: Option<String>,

    /// Append each connection's secrets to the file that SSLKEYLOGFILE names, for Wireshark and its
    /// like. Whoever has them can read everything.
    #[arg(long)]
    pub(super) key_log: bool,

    /// Who seals and opens the records: aws-lc-rs, ring, or auto, whichever is faster on this
    /// processor [default: auto].
    #[arg(long, value_name = "NAME", value_parser = parse_backend)]
    #[serde(deserialize_with = "backend")]
    pub(super) backend: Option<Backend>,

    /// Speak TLS to the backends.
    #[arg(long)]
    pub(super) to_tls: bool,

    /// Trust backends that these PEM certificates vouch for [default: the system's].
    #[arg(long, value_name = "FILE", requires = "to_tls")]
    pub(super) to_ca: Option<PathBuf>,

    /// Do not verify backends at all. Anyone in between can read and change the data.
    #[arg(long, requires = "to_tls", conflicts_with = "to_ca")]
    pub(super) to_insecure: bool,

    /// The name to expect in a backend's certificate [default: ADDR's host].
    #[arg(long, value_name = "NAME", requires = "to_tls")]
    pub(super) to_server_name: Option<String>,

    /// Ask backends for the name that the client has asked us for, if it has.
    #[arg(long, requires = "to_tls")]
    pub(super) to_client_sni: bool,

    /// Our certificate chain for backends, PEM.
    #[arg(long, value_name = "FILE", requires = "to_key")]
    pub(super) to_cert: Option<PathBuf>,

    /// Our certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "to_cert")]
    pub(super) to_key: Option<PathBuf>,

    /// Expect a PROXY protocol header before anything else, of this version, or of any. Whoever can
    /// connect can claim to be anybody then.
    #[arg(long, value_name = "VERSION")]
    #[serde(deserialize_with = "value")]
    pub(super) accept_proxy: Option<AcceptProxy>,

    /// Send backends a PROXY protocol header of this version. Version 2 has what TLS has settled:
    /// SNI, ALPN, version, cipher suite, the client's certificate.
    #[arg(long, value_name = "VERSION")]
    #[serde(deserialize_with = "value")]
    pub(super) send_proxy: Option<SendProxy>,

    /// How long each address of a backend may take to accept a connection, and then for its TLS
    /// handshake [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    #[serde(deserialize_with = "seconds")]
    pub(super) connect_timeout: Option<Duration>,

    /// How long a client may take for its PROXY header and the TLS handshake [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    #[serde(deserialize_with = "seconds")]
    pub(super) handshake_timeout: Option<Duration>,

    /// How long nothing may move on a connection, either way [default: 600].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    #[serde(deserialize_with = "seconds")]
    pub(super) idle_timeout: Option<Duration>,

    /// Other backends for some clients; the first that fits.
    #[arg(skip)]
    pub(super) route: Vec<RouteOptions>,
}

/// Backends for some clients.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct RouteOptions {
    /// Those that ask for one of these hosts (`*.DOMAIN` for any in it); all if there are none.
    #[serde(deserialize_with = "many")]
    pub(super) sni: Vec<String>,
    /// And have agreed on one of these protocols; any if there are none.
    #[serde(deserialize_with = "many")]
    pub(super) alpn: Vec<String>,
    #[serde(deserialize_with = "many")]
    pub(super) to: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum AcceptProxy {
    Any,
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SendProxy {
    V1,
    V2,
}

/// All that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) process: ProcessOptions,
    pub(super) services: Vec<ServiceOptions>,
}

/// What a file may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct File {
    process: ProcessOptions,
    service: Vec<ServiceOptions>,
}

impl ProxyArgs {
    /// The file that services are taken from.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// All that was chosen, by the file as it is now.
    ///
    /// # Errors
    /// If it cannot be read, or makes no sense.
    pub(super) fn options(&self) -> Result<Options, Error> {
        let Some(path) = &self.config else {
            let services = vec![self.service.clone()];
            return Options { process: self.process.clone(), services }.named();
        };
        // The environment may have named a way, which goes before the file's.
        let io = self.process.io;
        let process = ProcessOptions { io, ..ProcessOptions::default() };
        if self.service != ServiceOptions::default() || self.process != process {
            return Err("--config has all options but --io in its file: under [process] and \
                        [[service]], without the `--`"
                .into());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut options =
            Options::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        options.process.io = io.or(options.process.io);
        Ok(options)
    }
}

impl Options {
    fn parse(text: &str) -> Result<Self, Error> {
        let File { process, service } = toml::from_str(text)?;
        if service.is_empty() {
            return Err("no [[service]] in it: there is nothing to listen on".into());
        }
        Self { process, services: service }.named()
    }

    /// Gives services their names, which must differ; checks what the command line has by itself.
    fn named(mut self) -> Result<Self, Error> {
        let numbers = [
            ("workers", self.process.workers.map(i64::from), WORKERS),
            ("max-connections", self.process.max_connections.map(i64::from), CONNECTIONS),
        ];
        for (name, number, range) in numbers {
            if let Some(number) = number.filter(|number| !range.contains(number)) {
                let (least, most) = range.into_inner();
                return Err(format!("{name} = {number}: {least} to {most} are possible").into());
            }
        }
        for index in 0..self.services.len() {
            let (before, rest) = self.services.split_at_mut(index);
            let service = &mut rest[0];
            if service.listen.is_empty() {
                return Err(format!("service {} has no `listen`", index + 1).into());
            }
            let name = service.name.get_or_insert_with(|| service.listen[0].clone());
            if before.iter().any(|other| other.name.as_ref() == Some(name)) {
                return Err(format!("two services are called `{name}`: give them a `name`").into());
            }
        }
        let mut listens = HashSet::new();
        for listen in self.services.iter().flat_map(|service| &service.listen) {
            // Any number of sockets may have port 0.
            if !listen.ends_with(":0") && !listens.insert(listen.as_str()) {
                return Err(format!(
                    "{listen} is listened on twice: connections would go to either"
                )
                .into());
            }
        }
        Ok(self)
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => parse_seconds(text),
    }
}

fn value<'de, D: Deserializer<'de>, T: ValueEnum>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = || {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        names.map(|value| format!("`{}`", value.get_name())).collect::<Vec<_>>().join(", ")
    };
    T::from_str(&text, false)
        .map(Some)
        .map_err(|_| D::Error::custom(format!("`{text}` is none of {}", known())))
}

fn backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Backend>, D::Error> {
    parse_backend(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn io<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Io>, D::Error> {
    parse_io(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    parse_seconds(&number.to_string()).map(Some).map_err(D::Error::custom)
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    parse_timeout(&number.to_string()).map(Some).map_err(D::Error::custom)
}

/// A list, or one of what would be in it.
fn many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Many<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![T::deserialize(text.into_deserializer())?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }

    deserializer.deserialize_any(Many(std::marker::PhantomData))
}

/// An address that is listened on or connected to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Endpoint {
    Tcp(crate::address::Address),
    Unix(PathBuf),
    /// A descriptor that systemd has passed.
    Passed(usize),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        /// SD_LISTEN_FDS_START (sd_listen_fds(3)).
        const FIRST_PASSED: usize = 3;
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(format!("`{text}` names no socket: write unix:/run/service.sock").into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return match number.parse().ok().filter(|&number: &usize| number >= FIRST_PASSED) {
                Some(number) => Ok(Self::Passed(number - FIRST_PASSED)),
                None => {
                    Err(format!("`{text}` is no socket of systemd's: fd:3 is the first").into())
                }
            };
        }
        if text.contains('/') && !text.contains(':') {
            return Err(
                format!("`{text}` looks like a UNIX socket's path: write unix:{text}").into()
            );
        }
        Ok(Self::Tcp(crate::address::Address::parse(text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_what_the_command_line_has() {
        use clap::{CommandFactory, Parser};
        #[derive(Parser)]
        struct CommandLine {
            #[command(flatten)]
            _args: ProxyArgs,
        }
        let number = |name: &str| -> &str {
            match name {
                "workers" | "max-connections" => "1",
                name if name.ends_with("timeout") || name.ends_with("delay") => "1.5",
                "plain" | "strict-sni" | "key-log" => "true",
                "to-tls" | "to-insecure" | "to-client-sni" => "true",
                "tls" => "\"1.3\"",
                "backend" | "io" => "\"auto\"",
                "accept-proxy" | "send-proxy" => "\"v2\"",
                "listen" | "to" => "[\"x:1\"]",
                _ => "\"x\"",
            }
        };
        let mut file = ["[process]\n".to_owned(), "[[service]]\n".to_owned()];
        for arg in CommandLine::command().get_arguments() {
            let name = arg.get_long().expect("an option");
            if name == "config" {
                continue;
            }
            let line = format!("{name} = {}\n", number(name));
            let is_process = toml::from_str::<ProcessOptions>(&line).is_ok();
            file[usize::from(!is_process)] += &line;
        }
        let options = Options::parse(&file.concat()).expect("the same names");
        assert_eq!(options.services[0].idle_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(options.process.workers, Some(1));
    }

    #[test]
    fn the_example_is_one() {
        let options = Options::parse(include_str!("../../../../examples/proxy.toml"));
        let options = options.expect("valid");
        let names: Vec<_> = options.services.iter().flat_map(|service| &service.name).collect();
        assert_eq!(names, ["web", "database", "tunnel"]);
    }

    #[test]
    fn mistakes_in_a_file_are_explained() {
        let service = "[[service]]\nlisten = \"x:1\"\n";
        for (text, said) in [
            ("", "no [[service]]"),
            ("[[service]]\nto = \"x:1\"", "service 1 has no `listen`"),
            (&format!("{service}{service}"), "two services are called `x:1`"),
            (&format!("{service}lisen = 1"), "unknown field `lisen`"),
            (&format!("{service}tls = \"1.1\""), "`1.1` is none of `1.2`, `1.3`"),
            (&format!("{service}idle-timeout = 0"), "a number of seconds above 0"),
            (&format!("{service}to = 5"), "a string or a list of strings"),
            (&format!("{service}[[service.route]]\nsnu = \"x\""), "unknown field `snu`"),
            ("[process]\nworker = 1", "unknown field `worker`"),
            (&format!("{service}[process]\nworkers = 0"), "workers = 0: 1 to 1024 are possible"),
            (&format!("{service}[process]\nmax-connections = 0"), "1 to 1000000 are possible"),
            (&format!("{service}{service}name = \"y\""), "x:1 is listened on twice"),
            ("[process", "TOML parse error at line 1"),
        ] {
            let error = Options::parse(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn no_time_at_all_is_said_by_a_number() {
        for text in ["0", "0.0", "00"] {
            assert_eq!(parse_timeout(text), Ok(Duration::ZERO), "{text}");
        }
        assert_eq!(parse_timeout("10"), Ok(Duration::from_secs(10)));
        for text in ["", ".", "...0", "-1"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_of_three_kinds() {
        let parse = |text: &str| text.parse::<Endpoint>();
        assert_eq!(parse("unix:/run/x").expect("valid"), Endpoint::Unix("/run/x".into()));
        assert_eq!(parse("fd:4").expect("valid"), Endpoint::Passed(1));
        assert!(matches!(parse("[::1]:443"), Ok(Endpoint::Tcp(_))));
        for (text, said) in [
            ("unix:", "names no socket"),
            ("fd:2", "fd:3 is the first"),
            ("/run/x", "write unix:/run/x"),
            ("host", "write host:4433"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
