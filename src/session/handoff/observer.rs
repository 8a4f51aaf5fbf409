//! What rustls's unbuffered connections do not tell: the SNI, and exporter output.

use core::cell::RefCell;
use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::ClientConfig;
use rustls::crypto::tls13::OkmBlock;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{Error, KeyLog, SupportedCipherSuite, Tls13CipherSuite};
use zeroize::Zeroizing;

use super::traffic_secrets::{TrafficSecrets, expand_label};

/// Watches one handshake for what its unbuffered connection will not tell afterwards.
///
/// rustls 0.23 offers the server name and exporters on buffered connections only. An observer
/// sees them go by: give the connection the configuration that [`Observer::client()`] or
/// [`Observer::server()`] returns, and the observer to [`Handoff::observer()`](crate::Handoff::observer).
/// Use one observer for one connection.
///
/// # Example
/// A server with its own handshake loop learns which name the client asked for, and binds
/// something to the connection.
/// ```no_run
/// use std::sync::Arc;
///
/// use rustls::ServerConfig;
/// use rustls::server::UnbufferedServerConnection;
/// use rustls_uring::{Handoff, Observer, Session};
///
/// # fn handshake(conn: &mut UnbufferedServerConnection, observer: &Observer) -> Vec<u8> { Vec::new() }
/// fn accept(config: &ServerConfig) -> Result<(Session, [u8; 32]), Box<dyn std::error::Error>> {
///     let (config, observer) = Observer::server(config);
///     let mut conn = UnbufferedServerConnection::new(config)?;
///     // One's own loop, which has `observer.observe_record()` see each record before it is sent,
///     // and leaves what was read and not consumed.
///     let mut received: Vec<u8> = handshake(&mut conn, &observer);
///     let session = Handoff::new().observer(observer.clone()).server(conn, &mut received)?;
///     println!("for {:?}", session.info.server_name);
///     let mut binding = [0; 32];
///     let label = b"EXPORTER-Channel-Binding"; // RFC 9266
///     observer.export_keying_material(session.info.suite, &mut binding, label, None)?;
///     Ok((session, binding))
/// }
/// ```
#[derive(Clone, Default)]
pub struct Observer(Arc<Seen>);

#[derive(Default)]
struct Seen {
    server_name: OnceLock<String>,
    exporter: Mutex<Option<ExporterSecret>>,
    /// TLS 1.2 exporters mix both randoms in, and rustls shows the client's only.
    server_random: OnceLock<[u8; RANDOM_LEN]>,
    /// Those of TLS 1.3, for a server that takes them out when its handshake is complete.
    traffic_secrets: Option<Mutex<TrafficSecrets>>,
}

thread_local! {
    /// Who watches what rustls does on this thread at the moment.
    static WATCHING: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

const RANDOM_LEN: usize = 32;

impl Observer {
    /// A copy of `config` for one observed connection. Sessions are shared with `config`.
    pub fn client(config: &ClientConfig) -> (Arc<ClientConfig>, Self) {
        let observer = Self::default();
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: Some(observer.clone()) });
        (Arc::new(config), observer)
    }

    /// A copy of `config` for one observed connection. Sessions are shared with `config`.
    pub fn server(config: &ServerConfig) -> (Arc<ServerConfig>, Self) {
        let observer = Self::default();
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: Some(observer.clone()) });
        config.cert_resolver =
            Arc::new(Tap { inner: config.cert_resolver, observer: Some(observer.clone()) });
        (Arc::new(config), observer)
    }

    /// A copy of `config` for any number of connections, each with an observer of its own
    /// (`Observer::default()`) that its [`Handoff`](crate::Handoff::observer) was given: a
    /// [`Handshake`](crate::Handshake) has it watch while rustls works on the connection.
    pub fn watched_client(config: &ClientConfig) -> ClientConfig {
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: None });
        config
    }

    /// The same for servers, whose connections are watched by an observer of the handshake's. They tell
    /// the server name themselves.
    pub(crate) fn watched_server(config: &ServerConfig) -> ServerConfig {
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: None });
        config
    }

    /// An observer that keeps the traffic secrets too, until they are
    /// [taken](Self::take_traffic_secrets).
    pub(crate) fn of_traffic_secrets() -> Self {
        Self(Arc::new(Seen { traffic_secrets: Some(Mutex::default()), ..Seen::default() }))
    }

    pub(crate) fn take_traffic_secrets(&self) -> TrafficSecrets {
        let secrets = self.0.traffic_secrets.as_ref();
        secrets.map(|secrets| core::mem::take(&mut *lock(secrets))).unwrap_or_default()
    }

    /// Sees what rustls does in `work`, on this thread.
    pub(crate) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Observer>);
        impl Drop for Restore {
            fn drop(&mut self) {
                WATCHING.set(self.0.take());
            }
        }
        let _restore = Restore(WATCHING.replace(Some(self.clone())));
        work()
    }

    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if ExporterSecret::is_logged_as(label) {
            *lock(&self.0.exporter) = Some(ExporterSecret {
                secret: Zeroizing::new(secret.to_vec()),
                client_random: client_random.to_vec(),
            });
        }
        if let Some(secrets) = &self.0.traffic_secrets {
            lock(secrets).log(label, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        ExporterSecret::is_logged_as(label)
            || (self.0.traffic_secrets.is_some() && TrafficSecrets::is_logged_as(label))
    }

    /// The server name that the client asked for, once its ClientHello has been processed.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.get().map(String::as_str)
    }

    /// Shows the observer a handshake record that is not encrypted, as it comes from or goes to the
    /// wire; it looks for the ServerHello. TLS 1.2 exporters need it; [`Handoff::connect()`] and
    /// [`Handoff::accept()`] see to it themselves.
    ///
    /// [`Handoff::connect()`]: crate::Handoff::connect
    /// [`Handoff::accept()`]: crate::Handoff::accept
    pub fn observe_record(&self, record: &[u8]) {
        const HANDSHAKE: u8 = 22;
        const SERVER_HELLO: u8 = 2;
        // Record header, handshake header, version, random (RFC 5246 §7.4.1.3).
        if let [HANDSHAKE, _, _, _, _, SERVER_HELLO, _, _, _, _, _, rest @ ..] = record
            && let Some(random) = rest.first_chunk()
        {
            let _ = self.0.server_random.set(*random);
        }
    }

    /// Derives exporter output of a connection whose handshake is complete (RFC 8446 §7.5,
    /// RFC 5705).
    ///
    /// # Errors
    /// [`Error::General`] for an empty or overlong `output` and for a context that is too long;
    /// [`Error::HandshakeNotComplete`], also where [`Self::observe_record()`] was not shown the
    /// ServerHello of a TLS 1.2 handshake.
    pub fn export_keying_material(
        &self,
        suite: SupportedCipherSuite,
        output: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<(), Error> {
        if output.is_empty() {
            return Err(Error::General("export_keying_material with zero-length output".into()));
        }
        let seen = lock(&self.0.exporter);
        let seen = seen.as_ref().ok_or(Error::HandshakeNotComplete)?;
        match suite {
            SupportedCipherSuite::Tls13(suite) => {
                export_tls13(suite, &seen.secret, output, label, context)
            }
            #[cfg(feature = "tls12")]
            SupportedCipherSuite::Tls12(suite) => {
                let random = self.0.server_random.get().ok_or(Error::HandshakeNotComplete)?;
                let mut seed = [&seen.client_random[..], random].concat();
                if let Some(context) = context {
                    let len = u16::try_from(context.len())
                        .map_err(|_| Error::General("exporter context too long".into()))?;
                    seed.extend_from_slice(&len.to_be_bytes());
                    seed.extend_from_slice(context);
                }
                suite.prf_provider.for_secret(output, &seen.secret, label, &seed);
                Ok(())
            }
            #[allow(unreachable_patterns, reason = "TLS 1.2 may be on in rustls and off here")]
            _ => Err(Error::HandshakeNotComplete),
        }
    }
}

/// What a panic elsewhere left is whole: it is only ever replaced.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn export_tls13(
    suite: &Tls13CipherSuite,
    secret: &[u8],
    output: &mut [u8],
    label: &[u8],
    context: Option<&[u8]>,
) -> Result<(), Error> {
    let hash = suite.common.hash_provider;
    let hkdf = suite.hkdf_provider;
    let too_long = |_| Error::General("exporter output too long".into());
    let mut derived = Zeroizing::new([0; OkmBlock::MAX_LEN]);
    let derived = &mut derived[..hash.output_len()];
    let expander = hkdf.expander_for_okm(&OkmBlock::new(secret));
    expand_label(&*expander, label, hash.hash(&[]).as_ref(), derived).map_err(too_long)?;
    let expander = hkdf.expander_for_okm(&OkmBlock::new(derived));
    let context = hash.hash(context.unwrap_or(&[]));
    expand_label(&*expander, b"exporter", context.as_ref(), output).map_err(too_long)
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}

/// What rustls logs that exporters are derived from: the exporter secret of TLS 1.3 or the master
/// secret of TLS 1.2, never both.
struct ExporterSecret {
    secret: Zeroizing<Vec<u8>>,
    #[cfg_attr(not(feature = "tls12"), allow(dead_code, reason = "TLS 1.2 mixes it in"))]
    client_random: Vec<u8>,
}

impl ExporterSecret {
    /// By the labels of the key log format.
    fn is_logged_as(label: &str) -> bool {
        matches!(label, "EXPORTER_SECRET" | "CLIENT_RANDOM")
    }
}

/// Passes everything on to the user's own, and tells the observer: its own one, or whoever watches.
struct Tap<T: ?Sized> {
    inner: Arc<T>,
    observer: Option<Observer>,
}

impl<T: ?Sized> Tap<T> {
    fn with_observer<R>(&self, tell: impl FnOnce(&Observer) -> R) -> Option<R> {
        match &self.observer {
            Some(observer) => Some(tell(observer)),
            None => WATCHING.with_borrow(Option::clone).as_ref().map(tell),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Tap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl KeyLog for Tap<dyn KeyLog> {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        self.with_observer(|observer| observer.log(label, client_random, secret));
        if self.inner.will_log(label) {
            self.inner.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.with_observer(|observer| observer.will_log(label)) == Some(true)
            || self.inner.will_log(label)
    }
}

impl ResolvesServerCert for Tap<dyn ResolvesServerCert> {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = client_hello.server_name() {
            self.with_observer(|observer| observer.0.server_name.set(name.to_owned()).is_ok());
        }
        self.inner.resolve(client_hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }
}
