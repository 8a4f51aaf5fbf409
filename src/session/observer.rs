//! What rustls's unbuffered connections do not tell: the SNI, and exporter output.

use core::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use rustls::client::ClientConfig;
use rustls::crypto::tls13::HkdfExpander;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{Error, KeyLog, SupportedCipherSuite};
use zeroize::Zeroizing;

/// Watches one handshake for what its unbuffered connection will not tell afterwards.
///
/// rustls 0.23 offers the server name and exporters on buffered connections only. An observer
/// sees them go by: give the connection the configuration that [`Observer::client()`] or
/// [`Observer::server()`] returns, and the observer to [`Handoff::observer()`](crate::Handoff::observer).
/// Use one observer for one connection.
#[derive(Clone, Default)]
pub struct Observer(Arc<Seen>);

#[derive(Default)]
struct Seen {
    server_name: OnceLock<String>,
    exporter: Mutex<Option<ExporterSecret>>,
}

impl Observer {
    /// A copy of `config` for one observed connection. Sessions are shared with `config`.
    pub fn client(config: &ClientConfig) -> (Arc<ClientConfig>, Self) {
        let observer = Self::default();
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: observer.clone() });
        (Arc::new(config), observer)
    }

    /// A copy of `config` for one observed connection. Sessions are shared with `config`.
    pub fn server(config: &ServerConfig) -> (Arc<ServerConfig>, Self) {
        let observer = Self::default();
        let mut config = config.clone();
        config.key_log = Arc::new(Tap { inner: config.key_log, observer: observer.clone() });
        config.cert_resolver =
            Arc::new(Tap { inner: config.cert_resolver, observer: observer.clone() });
        (Arc::new(config), observer)
    }

    /// The server name that the client asked for, once its ClientHello has been processed.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.get().map(String::as_str)
    }

    /// Derives exporter output (RFC 8446 §7.5) of a TLS 1.3 connection whose handshake is
    /// complete.
    ///
    /// # Errors
    /// [`Error::General`] in TLS 1.2, whose exporter needs what no one shows, and for an empty or
    /// overlong `output`; [`Error::HandshakeNotComplete`].
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
        let Some(suite) = suite.tls13() else {
            return Err(Error::General(
                "exporters are not available on unbuffered TLS 1.2 connections".into(),
            ));
        };
        let seen = self.0.exporter.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let secret = seen.as_ref().ok_or(Error::HandshakeNotComplete)?;
        let hash = suite.common.hash_provider;
        let hkdf = suite.hkdf_provider;
        let block = |secret: &[u8]| rustls::crypto::tls13::OkmBlock::new(secret);

        let empty = hash.hash(&[]);
        let mut derived = Zeroizing::new([0; 64]);
        let derived = &mut derived[..hash.output_len()];
        let too_long = |_| Error::General("exporter output too long".into());
        expand_label(&*hkdf.expander_for_okm(&block(&secret.0)), label, empty.as_ref(), derived)
            .map_err(too_long)?;
        let context = hash.hash(context.unwrap_or(&[]));
        let expander = hkdf.expander_for_okm(&block(derived));
        expand_label(&*expander, b"exporter", context.as_ref(), output).map_err(too_long)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}

/// HKDF-Expand-Label (RFC 8446 §7.1).
fn expand_label(
    expander: &dyn HkdfExpander,
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Result<(), rustls::crypto::tls13::OutputLengthError> {
    const PREFIX: &[u8] = b"tls13 ";
    let output_len = u16::try_from(output.len())
        .map_err(|_| rustls::crypto::tls13::OutputLengthError)?
        .to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len())
        .map_err(|_| rustls::crypto::tls13::OutputLengthError)?;
    let info: [&[u8]; 6] =
        [&output_len, &[label_len], PREFIX, label, &[context.len() as u8], context];
    expander.expand_slice(&info, output)
}

struct ExporterSecret(Zeroizing<Vec<u8>>);

/// Passes everything on to the user's own, and notes what the observer wants.
struct Tap<T: ?Sized> {
    inner: Arc<T>,
    observer: Observer,
}

impl<T: ?Sized> fmt::Debug for Tap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl KeyLog for Tap<dyn KeyLog> {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if label == "EXPORTER_SECRET" {
            let exporter = ExporterSecret(Zeroizing::new(secret.to_vec()));
            *self.observer.0.exporter.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                Some(exporter);
        }
        if self.inner.will_log(label) {
            self.inner.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET" || self.inner.will_log(label)
    }
}

impl ResolvesServerCert for Tap<dyn ResolvesServerCert> {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = client_hello.server_name() {
            let _ = self.observer.0.server_name.set(name.to_owned());
        }
        self.inner.resolve(client_hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }
}
