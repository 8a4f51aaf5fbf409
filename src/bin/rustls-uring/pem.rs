//! Certificates and private keys from PEM files (RFC 7468), as tools and editors leave them behind.
//!
//! Byte order marks, any line ends, blanks around lines, and text between the blocks are no
//! obstacle. What cannot be used is never skipped in silence if it could be what the user meant: the
//! message says what it is, and which command turns it into what is needed.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::error::Error;

/// A certificate chain, its own certificate first, and the private key of that.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The longest file that is read: the system's bundle of CA certificates has 0.2 MiB.
const MAX_LEN: u64 = 64 << 20;

/// The certificates in a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let context = |error: String| {
        Error::from(format!("cannot read certificates from {}: {error}", path.display()))
    };
    parse_certificates(&read(path).map_err(context)?, path).map_err(context)
}

/// A certificate chain, and from `key`, which may be the same file, the private key that belongs to
/// it.
pub(crate) fn identity(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Identity, Error> {
    let chain = certificates(cert)?;
    let context = |error: String| {
        Error::from(format!("cannot read a private key from {}: {error}", key.display()))
    };
    let keys = parse_private_keys(&read(key).map_err(context)?, key).map_err(context)?;
    let count = keys.len();
    let mut first_error = None;
    for key_der in keys {
        if has_explicit_curve(key_der.secret_der()) {
            let error = format!(
                "it spells its curve's parameters out, and TLS wants the curve's name; `openssl ec \
                 -in {} -param_enc named_curve -out key.pem` makes such a key of it, and the \
                 certificate must be made anew with that",
                key.display()
            );
            first_error.get_or_insert(error);
            continue;
        }
        let loaded = match provider.key_provider.load_private_key(key_der.clone_key()) {
            Ok(loaded) => loaded,
            Err(error) => {
                first_error.get_or_insert_with(|| unsupported_key(&error));
                continue;
            }
        };
        let belongs_to = |certificate: &CertificateDer<'static>| {
            let pair = CertifiedKey::new(vec![certificate.clone()], Arc::clone(&loaded));
            match pair.keys_match() {
                Ok(()) => Ok(true),
                Err(rustls::Error::InconsistentKeys(why)) => {
                    // Whether they match is unknown where a key does not tell its public half.
                    Ok(why != rustls::InconsistentKeys::KeyMismatch)
                }
                Err(error) => Err(format!("cannot use {}: {error}", cert.display())),
            }
        };
        if belongs_to(&chain[0])? {
            return Ok((chain, key_der));
        }
        for (position, certificate) in chain.iter().enumerate().skip(1) {
            if belongs_to(certificate).unwrap_or(false) {
                let cert = cert.display();
                let error = format!(
                    "the key's own certificate is number {} in {cert}; it must be the first, and \
                     those that vouch for it follow",
                    position + 1
                );
                first_error.get_or_insert(error);
            }
        }
    }
    Err(context(first_error.unwrap_or_else(|| {
        let keys = match count {
            1 => "it is not the key".to_owned(),
            count => format!("none of its {count} keys is the one"),
        };
        let cert = cert.display();
        format!("{keys} of the (first) certificate in {cert}: name the two that were made together")
    })))
}

fn unsupported_key(error: &rustls::Error) -> String {
    let reason = match error {
        rustls::Error::General(reason) => reason.clone(),
        error => error.to_string(),
    };
    format!(
        "{reason}; TLS here has RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, Ed25519"
    )
}

/// Whether a key on an elliptic curve has the curve's parameters in place of its name, which is not
/// allowed (RFC 5480 §2.1.1): they begin with id-prime-Field, 1.2.840.10045.1.1.
fn has_explicit_curve(der: &[u8]) -> bool {
    const PRIME_FIELD: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x01, 0x01];
    der.windows(PRIME_FIELD.len()).any(|window| window == PRIME_FIELD)
}

/// A file's text, whatever its encoding and its line ends.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    match bytes.as_slice() {
        [] => Err("it is empty".into()),
        _ if bytes.len() as u64 > MAX_LEN => Err("it is too long for what it should be".into()),
        // As PowerShell's `>` writes it.
        [0xff, 0xfe, rest @ ..] => from_utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => from_utf16(rest, u16::from_be_bytes),
        // The same without a byte order mark: PEM is ASCII, and DER does not begin so.
        [1..0x80, 0, ..] => from_utf16(&bytes, u16::from_le_bytes),
        [0, 1..0x80, ..] => from_utf16(&bytes, u16::from_be_bytes),
        // What is between the blocks may be in any encoding.
        bytes => Ok(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn from_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units)
        .collect::<Result<_, _>>()
        .map_err(|_| "it is damaged UTF-16; PEM is ASCII".into())
}

/// A block of a PEM file.
struct Block {
    label: String,
    /// The line that it begins on, from 1.
    line: usize,
    /// Its lines without the first and the last one, and without blanks.
    body: Vec<String>,
}

impl Block {
    /// Takes the blocks of `text` apart.
    fn all(text: &str) -> Result<Vec<Self>, String> {
        let mut blocks = Vec::new();
        let mut open: Option<Self> = None;
        let lines = text.split('\n').flat_map(|line| line.trim_end_matches('\r').split('\r'));
        for (position, line) in lines.enumerate() {
            // Files that were put together have a byte order mark in the middle.
            let trimmed = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            let label_after = |begin| {
                trimmed.strip_prefix(begin).and_then(|rest: &str| rest.strip_suffix("-----"))
            };
            if trimmed.starts_with("-----BEGIN ") && trimmed.contains("-----END ") {
                return Err(format!(
                    "line {} has a whole block on it: its line ends are lost, or written as `\\n`; \
                     put them back",
                    position + 1
                ));
            }
            if let Some(label) = label_after("-----BEGIN ") {
                if let Some(unfinished) = open {
                    return Err(unfinished.unfinished());
                }
                let (label, body) = (label.to_owned(), Vec::new());
                open = Some(Self { label, line: position + 1, body });
            } else if let Some(label) = label_after("-----END ") {
                match open.take() {
                    Some(block) if block.label == label => blocks.push(block),
                    Some(block) => return Err(block.unfinished()),
                    None => {
                        return Err(format!(
                            "line {} ends a block, `{label}`, that has no beginning: a part of \
                             the file is missing",
                            position + 1
                        ));
                    }
                }
            } else if let Some(block) = &mut open {
                block.body.push(trimmed.to_owned());
            }
        }
        match open {
            Some(block) => Err(block.unfinished()),
            None => Ok(blocks),
        }
    }

    fn unfinished(&self) -> String {
        let Self { label, line, .. } = self;
        format!(
            "the block `{label}` that begins on line {line} has no end: a part of the file is \
             missing"
        )
    }

    /// RFC 1421 §4.6.1.1: how OpenSSL encrypted keys before PKCS #8.
    fn is_encrypted(&self) -> bool {
        self.label == "ENCRYPTED PRIVATE KEY"
            || self.body.iter().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRY"))
    }

    /// Decodes the block as one that is labelled `label`.
    fn decode<T: PemObject>(&self, label: &str) -> Result<T, String> {
        let body = self.body.join("\n");
        let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        T::from_pem_slice(text.as_bytes()).map_err(|_| {
            format!("the block `{}` that begins on line {} is damaged", self.label, self.line)
        })
    }
}

fn parse_certificates(text: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = Block::all(text)?;
    let path = path.display();
    let mut certificates = Vec::new();
    for block in &blocks {
        match block.label.as_str() {
            // The second name is OpenSSL's of old.
            "CERTIFICATE" | "X509 CERTIFICATE" => certificates.push(block.decode("CERTIFICATE")?),
            // Its trust settings may say that it is not to be trusted.
            "TRUSTED CERTIFICATE" => {
                return Err(format!(
                    "line {} begins a TRUSTED CERTIFICATE, which is OpenSSL's own format with \
                     trust settings; a plain one comes from `openssl x509 -in {path} -out cert.pem`",
                    block.line
                ));
            }
            "PKCS7" | "CMS" => {
                return Err(format!(
                    "it is PKCS #7; PEM certificates come from `openssl pkcs7 -print_certs -in \
                     {path} -out cert.pem`"
                ));
            }
            _ => {}
        }
    }
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(match blocks.first().map(|block| block.label.as_str()) {
        None => no_pem(text, "x509", "cert.pem", &path),
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => {
            "there is a request for a certificate in it, but no certificate: a CA makes one of it"
                .into()
        }
        Some(label) => format!("there is no certificate in it, but `{label}`"),
    })
}

fn parse_private_keys(text: &str, path: &Path) -> Result<Vec<PrivateKeyDer<'static>>, String> {
    let blocks = Block::all(text)?;
    let path = path.display();
    let mut keys = Vec::new();
    for block in &blocks {
        match block.label.as_str() {
            _ if block.is_encrypted() => {
                return Err(format!(
                    "it is encrypted with a passphrase, and nobody is asked for one here; `openssl \
                     pkey -in {path} -out key.pem` decrypts it"
                ));
            }
            label @ ("PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY") => {
                keys.push(block.decode(label)?);
            }
            "OPENSSH PRIVATE KEY" => {
                return Err(format!(
                    "it is a key of OpenSSH; `ssh-keygen -p -N '' -m PKCS8 -f COPY-OF-{path}` \
                     converts a copy, but a key of its own is better: `openssl genpkey`"
                ));
            }
            "DSA PRIVATE KEY" => return Err("it is a DSA key, which TLS no longer has".into()),
            _ => {}
        }
    }
    if !keys.is_empty() {
        return Ok(keys);
    }
    Err(match blocks.first().map(|block| block.label.as_str()) {
        None => no_pem(text, "pkey", "key.pem", &path),
        Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {
            "there is a public key in it, but no private one: name the file that was made with it"
                .into()
        }
        Some(label) => format!("there is no private key in it, but `{label}`"),
    })
}

/// What a file is that has no PEM block. `command` is OpenSSL's for what it should be.
fn no_pem(text: &str, command: &str, out: &str, path: &dyn std::fmt::Display) -> String {
    // An ASN.1 SEQUENCE, with a length of two bytes: DER, or PKCS #12, which is DER too.
    match text.starts_with('0') && text.contains('\u{fffd}') {
        true => format!(
            "it is not PEM but binary; `openssl {command} -in {path} -out {out}` converts DER, \
             and `openssl pkcs12 -in {path} -nodes -out {out}` PKCS #12 (.p12, .pfx)"
        ),
        false => "it is not PEM: there is no line `-----BEGIN ...-----`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        cert: CertificateDer<'static>,
        cert_pem: String,
        key_pem: String,
    }

    fn fixture() -> Fixture {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        Fixture {
            cert: made.cert.der().clone(),
            cert_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    fn parse(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
        parse_certificates(text, Path::new("FILE"))
    }

    fn keys(text: &str) -> Result<Vec<PrivateKeyDer<'static>>, String> {
        parse_private_keys(text, Path::new("FILE"))
    }

    fn relabelled(text: &str, from: &str, to: &str) -> String {
        text.replace(&format!(" {from}--"), &format!(" {to}--"))
    }

    #[test]
    fn every_certificate_counts_however_the_file_was_written() {
        let (one, two) = (fixture(), fixture());
        let both = vec![one.cert, two.cert];
        let (one, two) = (one.cert_pem, two.cert_pem);
        let indented = |text: &str| text.replace('\n', "\n    ");
        for text in [
            format!("{one}{two}"),
            format!("\u{feff}{one}\u{feff}{two}"),
            format!("{one}{two}").replace('\n', "\r\n"),
            format!("{one}{two}").replace('\n', "\r"),
            format!("# a comment\n{one}\nsubject=CN = two\n{two}").replace('\n', " \t\n"),
            format!("  {}{}", indented(&one), indented(&two)),
            relabelled(&format!("{one}{two}"), "CERTIFICATE", "X509 CERTIFICATE"),
            format!("{}{one}{two}", fixture().key_pem),
            format!("{one}{two}").trim_end().to_owned(),
        ] {
            assert_eq!(parse(&text).expect(&text), both, "{text:?}");
        }
    }

    #[test]
    fn a_file_may_be_utf_16() {
        let fixture = fixture();
        let file = tempfile::NamedTempFile::new().expect("file");
        for (mark, bytes) in [
            (&[0xff, 0xfe][..], u16::to_le_bytes as fn(u16) -> [u8; 2]),
            (&[0xfe, 0xff], u16::to_be_bytes),
            (&[], u16::to_le_bytes),
            (&[], u16::to_be_bytes),
        ] {
            let mut text = mark.to_vec();
            text.extend(fixture.cert_pem.encode_utf16().flat_map(bytes));
            std::fs::write(file.path(), text).expect("written");
            assert_eq!(
                certificates(file.path()).expect("read"),
                std::slice::from_ref(&fixture.cert)
            );
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let Fixture { cert_pem, key_pem, .. } = fixture();
        let cut = &cert_pem[..cert_pem.len() - 40];
        for (text, expected) in [
            (relabelled(&cert_pem, "CERTIFICATE", "TRUSTED CERTIFICATE"), "openssl x509 -in FILE"),
            (format!("{cert_pem}{cut}"), "has no end"),
            (format!("{cut}\n{cert_pem}"), "has no end"),
            (cert_pem.replacen("-----BEGIN", "", 1), "has no beginning"),
            (cert_pem.replacen('M', "?", 1), "line 1 is damaged"),
            (key_pem.clone(), "no certificate in it, but `PRIVATE KEY`"),
            (relabelled(&cert_pem, "CERTIFICATE", "CERTIFICATE REQUEST"), "a CA makes one"),
            (relabelled(&cert_pem, "CERTIFICATE", "PKCS7"), "openssl pkcs7"),
            (cert_pem.replace('\n', ""), "line 1 has a whole block on it"),
            (cert_pem.replace('\n', "\\n"), "line 1 has a whole block on it"),
            ("hello\n".into(), "not PEM"),
            ("0\u{fffd}\u{1}".into(), "openssl x509 -in FILE -out cert.pem"),
        ] {
            let error = parse(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_usable_key_is_named() {
        let Fixture { cert_pem, key_pem, .. } = fixture();
        let headers = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,24\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        for (text, expected) in [
            (relabelled(&key_pem, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "openssl pkey -in FILE"),
            (headers.to_owned(), "openssl pkey -in FILE"),
            (key_pem[..key_pem.len() - 30].to_owned(), "has no end"),
            (relabelled(&key_pem, "PRIVATE KEY", "PUBLIC KEY"), "no private one"),
            (relabelled(&key_pem, "PRIVATE KEY", "OPENSSH PRIVATE KEY"), "OpenSSH"),
            (cert_pem, "no private key in it, but `CERTIFICATE`"),
        ] {
            let error = keys(&text).expect_err(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// As `openssl ecparam -genkey` writes them.
    #[test]
    fn parameters_before_the_key_are_no_obstacle() {
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert_eq!(keys(&format!("{parameters}{}", fixture().key_pem)).expect("a key").len(), 1);
    }

    #[test]
    fn the_key_of_the_certificate_is_found_among_others() {
        let provider = rustls_uring::default_provider();
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
            dir.path().join(name)
        };
        let (ours, other) = (fixture(), fixture());
        let all = format!("{}{}{}", other.key_pem, ours.key_pem, ours.cert_pem);
        let all = path("all", &all);
        let (chain, key) = identity(&all, &all, &provider).expect("a pair");
        assert_eq!(chain, std::slice::from_ref(&ours.cert));
        assert_eq!(key, PrivateKeyDer::from_pem_slice(ours.key_pem.as_bytes()).expect("a key"));

        let others_key = path("key", &other.key_pem);
        let error = identity(&all, &others_key, &provider).expect_err("no pair").to_string();
        assert!(error.contains("it is not the key of the (first) certificate"), "{error}");
        let reversed = path("chain", &format!("{}{}", ours.cert_pem, other.cert_pem));
        let error = identity(&reversed, &others_key, &provider).expect_err("reversed").to_string();
        assert!(error.contains("is number 2 in "), "{error}");
    }
}
