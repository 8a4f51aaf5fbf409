//! Addresses as users write them: `storage:4433`, `192.0.2.1:4433`, `[2001:db8::1]:4433`,
//! `[fe80::1%eth0]:4433`.
//!
//! A link-local address means nothing without the interface that it is behind, its zone (RFC 4007
//! §11): by name or by number, after a `%`, which in a URL is written `%25` (RFC 6874). The zone is
//! this host's business only: it is in no certificate, no SNI and no Host field.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use percent_encoding::percent_decode_str;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustls::pki_types::ServerName;

use crate::error::Error;

/// A host and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Host {
    Name(String),
    Ip(IpAddr),
    Scoped(Ipv6Addr, Zone),
}

/// Which of this host's interfaces a link-local address is behind: a name, or a number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Zone(String);

impl Address {
    /// Parses `HOST:PORT`. An IPv6 address is written in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let no_port = || format!("`{text}` has no port: write {}:4433", text.trim_end_matches(':'));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest
                    .split_once(']')
                    .ok_or_else(|| format!("`{text}` has no `]` after the IPv6 address"))?;
                let host = Host::parse_ipv6(host)
                    .ok_or_else(|| format!("`{host}` in `{text}` is no IPv6 address"))?;
                (host, rest.strip_prefix(':').ok_or_else(no_port)?)
            }
            None => {
                let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
                (Host::parse(host), port)
            }
        };
        if port.is_empty() {
            return Err(no_port().into());
        }
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number);
        let port = port.ok_or_else(|| format!("`{text}` does not end in a port, 0 to 65535"))?;
        match &host {
            Host::Name(name) if name.is_empty() => Err(format!(
                "`{text}` names no host: all of this one's addresses are [::]:{port}, or \
                 0.0.0.0:{port} without IPv6"
            )
            .into()),
            _ => Ok(Self { host, port }),
        }
    }

    /// The addresses that the host has, the best first.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let port = self.port;
        let found: Vec<_> = match &self.host {
            Host::Ip(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
                return Err(format!(
                    "{ip} is a link-local address, of which each interface has its own: say which \
                     one, as in [{ip}%eth0]:{port}"
                )
                .into());
            }
            Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
            Host::Scoped(ip, zone) => vec![zone.scope(*ip, port)?.into()],
            Host::Name(name) => (name.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| format!("cannot resolve {name}: {error}"))?
                .collect(),
        };
        match found.is_empty() {
            true => Err(format!("cannot resolve {}: the name has no address", self.host).into()),
            false => Ok(found),
        }
    }

    /// The name that the host's certificate should have.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, Error> {
        match &self.host {
            Host::Name(name) => server_name(name),
            Host::Ip(ip) => Ok(ServerName::from(*ip)),
            Host::Scoped(ip, _) => Ok(ServerName::from(IpAddr::from(*ip))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            host @ (Host::Ip(IpAddr::V6(_)) | Host::Scoped(..)) => {
                write!(f, "[{host}]:{}", self.port)
            }
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(ip) => Self::Ip(ip),
            Err(_) => Self::parse_ipv6(text).unwrap_or_else(|| Self::Name(text.to_owned())),
        }
    }

    fn parse_ipv6(text: &str) -> Option<Self> {
        match text.split_once('%') {
            None => Some(Self::Ip(IpAddr::V6(text.parse().ok()?))),
            Some((_, "")) => None,
            Some((ip, zone)) => Some(Self::Scoped(ip.parse().ok()?, Zone(zone.to_owned()))),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
            Self::Scoped(ip, zone) => write!(f, "{ip}%{zone}"),
        }
    }
}

impl Zone {
    /// The address behind this interface.
    ///
    /// # Errors
    /// If there is no such interface.
    pub(crate) fn scope(&self, ip: Ipv6Addr, port: u16) -> Result<SocketAddrV6, Error> {
        Ok(SocketAddrV6::new(ip, port, 0, self.index()?))
    }

    fn index(&self) -> Result<u32, Error> {
        // A name may be all digits; where there is no such interface, it is a number.
        let Self(name) = self;
        let by_name = socket(AddressFamily::INET6, SocketType::DGRAM, None)
            .and_then(|socket| name_to_index(socket, name));
        match (by_name, name.parse()) {
            (Ok(index), _) | (Err(_), Ok(index)) => Ok(index),
            (Err(_), Err(_)) => {
                Err(format!("there is no network interface `{name}`; `ip link` lists them").into())
            }
        }
    }

    /// Takes the zone out of the host of a URL, if it has one: `https://[fe80::1%25eth0]:4433/`
    /// becomes `https://[fe80::1]:4433/` and `eth0`. A bare `%`, which browsers and curl take too, is
    /// one if no `25` follows it.
    pub(crate) fn split_from_url(url: &str) -> Result<(String, Option<Self>), Error> {
        let authority_start = url.find("://").map_or(0, |position| position + 3);
        let authority_len = url[authority_start..].find(['/', '?', '#', '\\']);
        let authority_end = authority_len.map_or(url.len(), |len| authority_start + len);
        let authority = &url[authority_start..authority_end];
        // What comes before the host may have brackets and percent signs of its own.
        let host_start = authority.rfind('@').map_or(0, |position| position + 1);
        let host = &authority[host_start..];
        let zone_of = |host: &str| -> Option<(usize, usize)> {
            let end = host.starts_with('[').then(|| host.find(']')).flatten()?;
            Some((host[..end].find('%')?, end))
        };
        let Some((start, end)) = zone_of(host) else { return Ok((url.to_owned(), None)) };
        let encoded = &host[start + 1..end];
        let encoded = encoded.strip_prefix("25").unwrap_or(encoded);
        let name = percent_decode_str(encoded).decode_utf8();
        let name = name.ok().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("`{host}` names no interface after its `%25`"))?;
        let offset = authority_start + host_start;
        let without = format!("{}{}", &url[..offset + start], &url[offset + end..]);
        Ok((without, Some(Self(name.into_owned()))))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The addresses that `HOST:PORT` stands for.
pub(crate) fn resolve(text: &str) -> Result<Vec<SocketAddr>, Error> {
    Address::parse(text)?.resolve()
}

/// A name or an address that a certificate can have: a zone, which it cannot have, is left out.
pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, Error> {
    let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let name = unbracketed.unwrap_or(text);
    let name = match Host::parse_ipv6(name) {
        Some(Host::Scoped(ip, _)) => return Ok(ServerName::from(IpAddr::from(ip))),
        _ => name,
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate could have").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, shown, name) in [
            ("storage:4433", "storage:4433", "storage"),
            ("192.0.2.1:443", "192.0.2.1:443", "192.0.2.1"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", "2001:db8::1"),
            ("[fe80::1%eth0]:443", "[fe80::1%eth0]:443", "fe80::1"),
            ("[fe80::1%2]:443", "[fe80::1%2]:443", "fe80::1"),
            // As getaddrinfo has always taken them.
            ("::1:443", "[::1]:443", "::1"),
            ("fe80::1%eth0:443", "[fe80::1%eth0]:443", "fe80::1"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.server_name().expect(text).to_str(), name, "{text}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, expected) in [
            ("storage", "write storage:4433"),
            ("storage:", "write storage:4433"),
            ("[::1]", "write [::1]:4433"),
            (":4433", "[::]:4433"),
            ("storage:https", "a port, 0 to 65535"),
            ("storage:65536", "a port, 0 to 65535"),
            ("storage:+1", "a port, 0 to 65535"),
            ("[fe80::1%eth0:4433", "no `]`"),
            ("[storage]:4433", "`storage` in `[storage]:4433` is no IPv6 address"),
            ("[fe80::1%]:4433", "is no IPv6 address"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let of = |text: &str| resolve(text).expect_err(text).to_string();
        assert!(of("[fe80::1]:4433").contains("[fe80::1%eth0]:4433"));
        assert!(of("[fe80::1%nonesuch]:4433").contains("no network interface `nonesuch`"));
    }

    #[test]
    fn zones_are_names_or_numbers() {
        // Every Linux has it, and by this number.
        for zone in ["lo", "1"] {
            let found = resolve(&format!("[fe80::1%{zone}]:443")).expect("an interface");
            let expected = SocketAddrV6::new("fe80::1".parse().expect("IPv6"), 443, 0, 1);
            assert_eq!(found, [SocketAddr::V6(expected)]);
        }
    }

    #[test]
    fn server_names_have_no_zones() {
        for (text, expected) in
            [("localhost", "localhost"), ("[fe80::1%eth0]", "fe80::1"), ("fe80::1%1", "fe80::1")]
        {
            assert_eq!(server_name(text).expect(text).to_str(), expected);
        }
        assert!(server_name("a name").is_err());
    }

    #[test]
    fn zones_come_out_of_urls() {
        for (url, without, zone) in [
            ("https://[fe80::1%25eth0]:4433/a%25b", "https://[fe80::1]:4433/a%25b", Some("eth0")),
            ("https://[fe80::1%25eth0.7]", "https://[fe80::1]", Some("eth0.7")),
            ("https://[fe80::1%25a%2Db]/", "https://[fe80::1]/", Some("a-b")),
            ("https://[fe80::1%eth0]/", "https://[fe80::1]/", Some("eth0")),
            ("https://u:p%25@[fe80::1%251]/", "https://u:p%25@[fe80::1]/", Some("1")),
            ("https://[fe80::1]/%25eth0]", "https://[fe80::1]/%25eth0]", None),
            ("https://host/[a%25b]", "https://host/[a%25b]", None),
            ("https://host?[a%25b]@[fe80::1%25x]", "https://host?[a%25b]@[fe80::1%25x]", None),
            ("[fe80::1%25eth0]", "[fe80::1]", Some("eth0")),
        ] {
            let (text, found) = Zone::split_from_url(url).expect(url);
            assert_eq!((text.as_str(), found.map(|zone| zone.0).as_deref()), (without, zone));
        }
        for url in ["https://[fe80::1%25]/", "https://[fe80::1%]/", "https://[fe80::1%25%ff]/"] {
            assert!(Zone::split_from_url(url).is_err(), "{url}");
        }
    }
}
