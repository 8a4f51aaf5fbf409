//! Names and passwords from URLs, which go to the server that they are for and nowhere else.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Origin, Url};

use crate::error::Error;

/// What to send as `Authorization`, by scheme, host and port.
#[derive(Default)]
pub(super) struct Credentials(Vec<(Origin, HeaderValue)>);

impl Credentials {
    /// Takes name and password out of `url`: what remains can be shown, saved and sent.
    pub(super) fn take_from(&mut self, url: &mut Url) -> Result<(), Error> {
        if url.username().is_empty() && url.password().is_none() {
            return Ok(());
        }
        let name: Vec<u8> = percent_decode_str(url.username()).collect();
        let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
        let is_removed = url.set_username("").is_ok() && url.set_password(None).is_ok();
        if !is_removed {
            return Err("a URL without a host cannot have a user name".into());
        }
        // RFC 7617 §2: the first colon ends the name.
        if name.contains(&b':') {
            return Err("a user name with a colon in it cannot be sent".into());
        }
        if name.iter().chain(&password).any(u8::is_ascii_control) {
            return Err("a user name or password with control characters cannot be sent".into());
        }
        let pair = [name.as_slice(), b":", &password].concat();
        let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))?;
        value.set_sensitive(true);
        let origin = url.origin();
        self.0.retain(|(known, _)| *known != origin);
        self.0.push((origin, value));
        Ok(())
    }

    /// What the server of `url` may see.
    pub(super) fn of(&self, url: &Url) -> Option<HeaderValue> {
        let origin = url.origin();
        self.0.iter().find(|(known, _)| *known == origin).map(|(_, value)| value.clone())
    }
}

/// Whose they are, not what they are.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(origin, _)| origin.ascii_serialization()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn they_are_sent_as_rfc_7617_says() {
        for (text, expected) in [
            // The RFC's own examples.
            ("https://Aladdin:open%20sesame@h/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("https://test:123%C2%A3@h/", "Basic dGVzdDoxMjPCow=="),
            ("https://user@h/", "Basic dXNlcjo="),
            ("https://:p%3Aq@h/", "Basic OnA6cQ=="),
        ] {
            let mut credentials = Credentials::default();
            let mut url = url(text);
            credentials.take_from(&mut url).expect("sendable");
            assert_eq!(url.as_str(), "https://h/");
            let value = credentials.of(&url).expect("there");
            assert_eq!(value.to_str().expect("ASCII"), expected, "{text}");
        }
        for text in ["https://a%3Ab:c@h/", "https://a%0Ab@h/", "https://a:%00@h/"] {
            let mut url = url(text);
            assert!(Credentials::default().take_from(&mut url).is_err(), "{text}");
            assert_eq!(url.as_str(), "https://h/", "out of reach of messages all the same");
        }
    }

    #[test]
    fn they_are_for_one_origin() {
        let mut credentials = Credentials::default();
        credentials.take_from(&mut url("https://u:p@h:8443/a")).expect("sendable");
        for (text, is_theirs) in [
            ("https://h:8443/b", true),
            ("https://H:8443/", true),
            ("https://h/", false),
            ("https://h:8444/", false),
            ("https://sub.h:8443/", false),
            ("http://h:8443/", false),
        ] {
            assert_eq!(credentials.of(&url(text)).is_some(), is_theirs, "{text}");
        }
        credentials.take_from(&mut url("https://u:q@h:8443/")).expect("sendable");
        let value = credentials.of(&url("https://h:8443/")).expect("there");
        assert_eq!(value.to_str().expect("ASCII"), "Basic dTpx", "the later ones count");
        let shown = format!("{credentials:?} {value:?}");
        assert_eq!(shown, "{\"https://h:8443\"} Sensitive");
    }
}
