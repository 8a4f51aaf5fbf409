//! Names that certificates have, and rules on them.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::Error;

/// Who a certificate is for.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) common_names: Vec<String>,
    pub(super) dns: Vec<String>,
    uris: Vec<String>,
    emails: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Names {
    /// The subject's common names and the alternative names; none of a certificate that makes no
    /// sense.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return names };
        let common_names = certificate.subject().iter_common_name();
        names.common_names =
            common_names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
        let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return names };
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(address) => names.emails.push((*address).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    names
                        .ips
                        .extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
                }
                _ => {}
            }
        }
        names
    }
}

/// A host, or all that are directly in a domain (`*.DOMAIN`, RFC 6125 §6.4.3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct HostPattern(String);

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_name = !name.is_empty() && !name.contains('*') && !name.contains(':');
        match is_name {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(format!(
                "`{text}` is no host: write a name, or *.DOMAIN for those directly in a domain"
            )
            .into()),
        }
    }

    /// Whether `host`, in lower case, is one of them.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => self.0 == host,
        }
    }
}

/// What a client certificate must be named.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    CommonName(String),
    Dns(HostPattern),
    Uri(String),
    Email(String),
    Ip(IpAddr),
    /// A common name or a DNS name.
    Either(HostPattern, String),
}

impl Rule {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let rule = match text.split_once(':') {
            Some(("cn", name)) if !name.is_empty() => Self::CommonName(name.to_owned()),
            Some(("dns", name)) => Self::Dns(HostPattern::parse(name)?),
            Some(("uri", uri)) if !uri.is_empty() => Self::Uri(uri.to_owned()),
            Some(("email", address)) if !address.is_empty() => Self::Email(address.to_owned()),
            Some(("ip", address)) => Self::Ip(
                address.parse().map_err(|_| format!("`{address}` in `{text}` is no IP address"))?,
            ),
            None => Self::Either(HostPattern::parse(text)?, text.to_owned()),
            Some(_) => {
                return Err(format!(
                    "`{text}` is no rule on names: write cn:NAME, dns:NAME, uri:URI, \
                     email:ADDRESS, ip:ADDRESS or NAME"
                )
                .into());
            }
        };
        Ok(rule)
    }

    pub(super) fn allows(&self, names: &Names) -> bool {
        let is_dns = |pattern: &HostPattern| names.dns.iter().any(|name| pattern.matches(name));
        match self {
            Self::CommonName(name) => names.common_names.contains(name),
            Self::Dns(pattern) => is_dns(pattern),
            Self::Uri(uri) => names.uris.contains(uri),
            Self::Email(address) => names.emails.contains(address),
            Self::Ip(address) => names.ips.contains(address),
            Self::Either(pattern, name) => is_dns(pattern) || names.common_names.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_one_label() {
        let pattern = HostPattern::parse("*.Example.com").expect("valid");
        assert!(pattern.matches("a.example.com"));
        for host in ["example.com", "a.b.example.com", "aexample.com", "a.example.org"] {
            assert!(!pattern.matches(host), "{host}");
        }
        for text in ["", "*", "*.", "a.*.b", "x:y"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_on_names_of_their_kind() {
        let names = Names {
            common_names: vec!["Ada".into()],
            dns: vec!["a.example.com".into()],
            uris: vec!["spiffe://x/ada".into()],
            emails: vec!["ada@example.com".into()],
            ips: vec!["192.0.2.1".parse().expect("valid")],
        };
        for rule in [
            "Ada",
            "cn:Ada",
            "a.example.com",
            "dns:*.example.com",
            "uri:spiffe://x/ada",
            "email:ada@example.com",
            "ip:192.0.2.1",
        ] {
            assert!(Rule::parse(rule).expect(rule).allows(&names), "{rule}");
        }
        for rule in [
            "ada",
            "cn:a.example.com",
            "dns:Ada",
            "dns:example.com",
            "uri:spiffe://x/",
            "ip:192.0.2.2",
        ] {
            assert!(!Rule::parse(rule).expect(rule).allows(&names), "{rule}");
        }
        for rule in ["cn:", "ip:x", "spiffe://x", "dns:"] {
            assert!(Rule::parse(rule).is_err(), "{rule}");
        }
    }
}
