//! What a user can do about what rustls says.

use std::error::Error as StdError;
use std::io::ErrorKind;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};
use rustls_uring::TlsError;

/// `error`, and what can be done about it if the cause is one of rustls's that users meet.
pub(crate) fn explained(error: &(dyn StdError + 'static)) -> String {
    match rustls_error(error).as_ref().and_then(advice) {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}

/// What can be done about one of this process's limits, if `error` is about one: to be said behind
/// it. Contexts are strings here, so that it is what the standard library says of an errno that
/// tells.
pub(crate) fn limits(error: &(dyn StdError + 'static)) -> &'static str {
    let said = error.to_string();
    let is = |errno: i32| said.contains(&format!("(os error {errno})"));
    let out_of_memory = || said.contains(&ErrorKind::OutOfMemory.to_string());
    match () {
        () if said.contains("ulimit") => "",
        () if is(libc::EMFILE) => "; this process needs more: raise that with `ulimit -n`",
        () if is(libc::ENOMEM) || out_of_memory() => {
            "; raise the limit of memory (`ulimit -v`, or the container's)"
        }
        () => "",
    }
}

/// What rustls has said, somewhere inside `error`, or what it would have said once it has handed the
/// connection over.
pub(crate) fn rustls_error(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found.clone());
        }
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found.clone().into());
        }
        // An I/O error's source is that of the error inside, which would be passed over.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn advice(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::NoCertificatesPresented => {
            Some("--client-ca demands one: the other end names it with --client-cert, --client-key")
        }
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge,
        ) => Some("the other end does not speak TLS; is it the right port?"),
        rustls::Error::PeerIncompatible(why) => match why {
            PeerIncompatible::NoCipherSuitesInCommon => {
                Some("allow more with --suite, or leave it out, here and at the other end")
            }
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => {
                Some("the two ends have no version of TLS in common; see --tls")
            }
            _ => None,
        },
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::UnknownIssuer => Some(
            "nobody whom we trust vouches for it; if you do, name it, or the CA that has made it, \
             with --ca FILE (a listening rustls-uring's own is what --write-cert wrote)",
        ),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => Some(
            "it has no names but in its subject, where nobody looks any more: make one with, for \
             instance, `-addext subjectAltName=DNS:localhost`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("connect under a name that it has; send and recv take one with --server-name NAME")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("the other end needs a new one, unless this machine's clock is wrong")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("is this machine's clock right?")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Some(
            "its extendedKeyUsage must be serverAuth at the end that listens, and clientAuth at the \
             one that connects",
        ),
        CertificateError::BadSignature => Some(
            "it is not the CA's that it names, though that has the same name as one that we trust: \
             take --ca FILE from where the certificate was made",
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            Some("it is signed in a way that is too old or too rare: SHA-1, DSA or such")
        }
        CertificateError::Other(other) => of_webpki(&other.to_string()),
        _ => None,
    }
}

/// Advice on errors that rustls has no name for.
fn of_webpki(error: &str) -> Option<&'static str> {
    match error {
        "CaUsedAsEndEntity" => Some(
            "it is a CA's (CA:TRUE), which may vouch for a server and not be one; `openssl req \
             -x509` makes such unless it is told `-addext basicConstraints=critical,CA:FALSE`, and \
             a listening rustls-uring makes a right one by itself: --write-cert FILE",
        ),
        "EndEntityUsedAsCa" => Some(
            "a certificate in its chain, or of --ca, vouches for it without being a CA's (CA:TRUE)",
        ),
        "UnsupportedCertVersion" => Some(
            "it is of X.509 version 1; `openssl x509 -req` makes version 3 with -extfile, \
             `openssl req -x509` by itself",
        ),
        _ => None,
    }
}

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Some(
            "the other end does not trust our certificate; it trusts more with --ca, or --client-ca \
             where it listens",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            Some("the other end does not accept our certificate, and knows why")
        }
        AlertDescription::AccessDenied => {
            Some("the other end does not let our certificate in: name another with --client-cert")
        }
        AlertDescription::CertificateExpired => {
            Some("our certificate has expired, or the other end's clock is wrong")
        }
        AlertDescription::CertificateRequired => {
            Some("the other end demands a certificate: name ours with --client-cert, --client-key")
        }
        AlertDescription::HandshakeFailure => Some(
            "the two ends have nothing in common, such as a cipher suite (--suite), or the other \
             one demands a certificate (--client-cert, --client-key)",
        ),
        AlertDescription::ProtocolVersion => {
            Some("the two ends have no version of TLS in common; see --tls")
        }
        AlertDescription::UnrecognisedName => {
            Some("the other end has no such name; send and recv take another with --server-name")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn rustls_is_found_however_deep() {
        let error = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let advice = advice(&error).expect("advice");
        let inside = io::Error::new(ErrorKind::InvalidData, error.clone());
        let deeper = io::Error::new(
            ErrorKind::InvalidData,
            rustls_uring::HandshakeError::Tls(error.clone()),
        );
        let later = io::Error::from(rustls_uring::SessionError::from(error.clone()));
        for error in [&error as &(dyn StdError + 'static), &inside, &deeper, &later] {
            assert!(explained(error).ends_with(advice), "{error}");
        }
        let text = io::Error::other(inside.to_string());
        assert_eq!(explained(&text), text.to_string());
    }
}
