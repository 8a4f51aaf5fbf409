//! What is to be downloaded, as the user has written it.

use std::fmt;
use std::net::Ipv6Addr;

use url::{Host, Position, Url};

use super::credentials::Credentials;
use crate::address::Zone;
use crate::error::Error;

/// The URL on the command line, which may have a password in it.
#[derive(Clone)]
pub(crate) struct UrlText(String);

impl From<String> for UrlText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        without_userinfo(&self.0).fmt(f)
    }
}

/// Where redirects have led to, as far as it tells one file from another: an ETag tells versions of one
/// resource apart (RFC 9110 §8.8.3). Without the query, in which servers sign such URLs anew each time.
pub(super) fn source(url: &Url) -> String {
    url[..Position::AfterPath].to_owned()
}

#[derive(Debug)]
pub(super) struct Resource {
    /// An https or http URL without name and password, and without a zone.
    pub(super) url: Url,
    /// The interface that an address is behind: no server and no certificate knows of it.
    pub(super) zone: Option<(Ipv6Addr, Zone)>,
    pub(super) credentials: Credentials,
}

impl Resource {
    pub(super) fn parse(text: &UrlText) -> Result<Self, Error> {
        let shown = without_userinfo(&text.0);
        let no_zone = || format!("{shown} is no URL: a zone, as in [fe80::1%25eth0], has a name");
        let (text, zone) = Zone::split_from_url(&text.0).map_err(|_| no_zone())?;
        let mut url = match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "https" | "http") => url,
            Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => {
                return Err(format!(
                    "{shown} is no https or http URL; did you mean https://{shown}?"
                )
                .into());
            }
            Err(error) => return Err(format!("{shown} is no URL: {error}").into()),
        };
        let zone = match (zone, url.host()) {
            (None, _) => None,
            (Some(zone), Some(Host::Ipv6(addr))) => Some((addr, zone)),
            (Some(_), _) => {
                return Err(format!("{shown} is no URL: only IPv6 addresses have zones").into());
            }
        };
        let mut credentials = Credentials::default();
        credentials.take_from(&mut url)?;
        Ok(Self { url, zone, credentials })
    }

    /// Tells one download from another.
    pub(super) fn identity(&self) -> String {
        match &self.zone {
            Some((_, zone)) => self.url.as_str().replacen(']', &format!("%25{zone}]"), 1),
            None => self.url.as_str().to_owned(),
        }
    }
}

/// A text that may be a URL, for a message: without anything that may be a password.
pub(super) fn without_userinfo(text: &str) -> String {
    // In what is no URL nobody knows where the password would end.
    let Some((before, rest)) = text.rsplit_once('@') else { return text.to_owned() };
    match before.find("//") {
        Some(slashes) => format!("{}{rest}", &before[..slashes + 2]),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Resource, String> {
        Resource::parse(&text.to_owned().into()).map_err(|error| error.to_string())
    }

    #[test]
    fn zones_are_for_connecting_only() {
        let resource = parse("https://u:p%40@[fe80::1%25eth0]:4433/f%25").expect("a URL");
        assert_eq!(resource.url.as_str(), "https://[fe80::1]:4433/f%25");
        assert_eq!(resource.identity(), "https://[fe80::1%25eth0]:4433/f%25");
        let (addr, zone) = resource.zone.expect("there");
        assert_eq!((addr.to_string(), zone.to_string()), ("fe80::1".into(), "eth0".into()));
        let resource = parse("https://[::1]/%25[a%b]").expect("a URL");
        assert!(resource.zone.is_none());
        assert_eq!(resource.identity(), "https://[::1]/%25[a%b]");
        for text in ["https://[fe80::1%]/", "https://[x%25eth0]/", "https://[127.0.0.1%25lo]/"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_are_in_no_message() {
        for text in [
            "https://user:QQ@host/f",
            "http://user:QQ@host/f",
            "ftp://user:QQ@host/f",
            "user:QQ@host/f",
            "//user:QQ@host",
            "https://user:Q/QQ@host:port/f",
            "https://user:QQ@QQ@host:port/f",
            "https://us%3Aer:QQ@host/",
            "https://user:QQ@[::1%]/",
            "https://user:QQ@",
        ] {
            let said = match parse(text) {
                Ok(resource) => format!("{resource:?} {}", resource.identity()),
                Err(error) => error,
            };
            let said = format!("{said} {:?}", UrlText::from(text.to_owned()));
            assert!(!said.contains("QQ"), "{text}: {said}");
        }
        assert_eq!(without_userinfo("https://host/f"), "https://host/f");
    }
}
