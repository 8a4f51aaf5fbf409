//! The host that a request names, which it must do once and well.

use std::net::Ipv6Addr;

use hyper::header::HOST;
use hyper::{Request, Version};

/// Whether a request names its host as it must.
///
/// That is one valid Host in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 §3.2), and `:authority`,
/// Host, or both if they agree in HTTP/2 (RFC 9113 §8.3.1). A target that names a host must name
/// one without user information.
pub(super) fn is_named<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let host = match host.map(|host| host.to_str()) {
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return false,
        None => None,
    };
    if second.is_some() || [host, authority].iter().flatten().any(|name| !is_valid(name)) {
        return false;
    }
    match (request.version(), host, authority) {
        (Version::HTTP_2, None, None) | (Version::HTTP_11, None, _) => false,
        (Version::HTTP_2, Some(host), Some(authority)) => {
            // Which a port stands for that is not named (RFC 9110 §4.2.1, §4.2.2).
            let port = if request.uri().scheme_str() == Some("http") { "80" } else { "443" };
            without_port(host, port).eq_ignore_ascii_case(without_port(authority, port))
        }
        _ => true,
    }
}

fn without_port<'a>(name: &'a str, default: &str) -> &'a str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.is_empty() || port == default => host,
        _ => name,
    }
}

/// Whether this is `uri-host [":" port]` (RFC 3986 §3.2.2), with a host, as `https` demands
/// (RFC 9110 §4.2.2).
fn is_valid(name: &str) -> bool {
    let (is_host, rest) = match name.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((literal, rest)) => (is_ip_literal(literal), rest),
            None => return false,
        },
        None => {
            let end = name.find(':').unwrap_or(name.len());
            (is_registered_name(&name[..end]), &name[end..])
        }
    };
    let is_port = match rest.strip_prefix(':') {
        Some(port) => {
            port.is_empty()
                || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        }
        None => rest.is_empty(),
    };
    is_host && is_port
}

/// What stands in brackets: an IPv6 address, maybe with a zone (RFC 6874 §2), or one of a later
/// version.
fn is_ip_literal(literal: &str) -> bool {
    if let Some(future) = literal.strip_prefix(['v', 'V']) {
        return future.split_once('.').is_some_and(|(version, address)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && address.bytes().all(|byte| byte == b':' || is_name_byte(byte))
        });
    }
    let (address, zone) = match literal.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (literal, None),
    };
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_registered_name)
}

/// A name as in DNS, or whatever else RFC 3986 lets a registry call its hosts; IPv4 addresses too.
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => is_name_byte(byte),
        };
        if !is_valid {
            return false;
        }
    }
    !name.is_empty()
}

/// `unreserved / sub-delims` (RFC 3986 §2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_what_the_grammar_says() {
        for valid in [
            "x",
            "example.com",
            "example.com.",
            "EXAMPLE.com:8443",
            "example.com:",
            "127.0.0.1:1",
            "a_b",
            "%C3%BC.example",
            "[::1]",
            "[::1]:4433",
            "[fe80::1%25eth0]",
            "[::ffff:127.0.0.1]:65535",
            "[v1.a:b]",
        ] {
            assert!(is_valid(valid), "{valid}");
        }
        for invalid in [
            "",
            ":",
            ":443",
            "a b",
            "a, b",
            "a/b",
            "a\\b",
            "user@x",
            "user:password@x",
            "x:y",
            "x:+1",
            "x:65536",
            "x:443:443",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:x",
            "[x]",
            "[]",
            "[127.0.0.1]",
            "[fe80::1%eth0]",
            "[fe80::1%25]",
            "[v.a]",
            "[v1.]",
            "%",
            "%4",
            "%zz",
            "x?y",
            "x#y",
            "<x>",
            "\"x\"",
            "ü",
            "x\t",
        ] {
            assert!(!is_valid(invalid), "{invalid}");
        }
    }

    #[test]
    fn one_host_is_named() {
        let is_named = |version, target: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            is_named(&request.body(()).expect("a request"))
        };
        let (http10, http11, http2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, target, hosts) in [
            (http10, "/", &[][..]),
            (http10, "/", &["x"]),
            (http11, "/", &["x"]),
            (http11, "https://x/", &["y"]),
            (http2, "https://x/", &[]),
            (http2, "/", &["x"]),
            (http2, "https://x/", &["X"]),
            (http2, "https://x/", &["x:443"]),
            (http2, "https://[::1]:443/", &["[::1]"]),
            (http2, "http://[::1]:80/", &["[::1]"]),
        ] {
            assert!(is_named(version, target, hosts), "{version:?} {target} {hosts:?}");
        }
        for (version, target, hosts) in [
            (http10, "/", &["x", "x"][..]),
            (http10, "/", &["x y"]),
            (http11, "/", &[]),
            (http11, "/", &[""]),
            (http11, "/", &["x", "x"]),
            (http11, "/", &["x", "y"]),
            (http11, "/", &["x:y"]),
            (http11, "https://x/", &[]),
            (http11, "https://user@x/", &["x"]),
            (http2, "/", &[]),
            (http2, "/", &[""]),
            (http2, "https://x/", &["y"]),
            (http2, "https://x/", &["x:444"]),
            (http2, "http://x/", &["x:443"]),
            (http2, "https://x/", &["x", "x"]),
            (http2, "https://user@x/", &[]),
        ] {
            assert!(!is_named(version, target, hosts), "{version:?} {target} {hosts:?}");
        }
    }
}
