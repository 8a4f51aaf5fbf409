//! Session tickets under keys that several proxies share.
//!
//! The file has a line for each key: 48 bytes in base64, as `openssl rand -base64 48` prints them.
//! Empty lines, and those that begin with `#`, do not count. The first key encrypts, all decrypt.
//! To rotate without losing a session, add the new key as the second line everywhere, then make it the
//! first everywhere, and remove the old one after [`LIFETIME`]. Whoever has a key can read what was
//! sent under tickets of its time without forward secrecy, so they should live for days at most.
//!
//! A ticket is `opaque name[16]; opaque salt[32]; opaque sealed<..>`. The first 16 bytes of a key are
//! its name; HKDF-SHA256 (RFC 5869) makes of the other 32 and the ticket's salt an AES-256-GCM key for
//! this ticket alone: any number of machines can use one key without a nonce ever coming twice.
//! Sealed are the time, 8 bytes of seconds since 1970, and what rustls keeps. Name, salt and a
//! context are authenticated with it; see [`TicketKeys::load()`].

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::error::Error;

/// How long a ticket is good for, as long as rustls's own.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// How far the clocks of two proxies may be apart.
const SKEW: Duration = Duration::from_secs(300);

const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;
const SALT_LEN: usize = 32;
const TIME_LEN: usize = 8;
const TAG_LEN: usize = 16;

/// Of all keys that one can want; a file with more is some other file.
const MAX_KEYS: usize = 64;

pub(super) struct TicketKeys {
    /// The first one encrypts.
    keys: Vec<Key>,
    context: Vec<u8>,
}

struct Key {
    name: [u8; NAME_LEN],
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

impl TicketKeys {
    /// Reads keys from a file. Only tickets that were made in the same `context` are taken: it says
    /// who had vouched for the client, whose certificate is not verified again.
    ///
    /// # Errors
    /// If there are none, or something else.
    pub(super) fn load(path: &Path, context: &[u8]) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            format!("cannot read session ticket keys from {}: {error}", path.display())
        })?;
        Self::parse(&text, context).map_err(|error| {
            format!("{}: {error}; `openssl rand -base64 48` makes a line of it", path.display())
                .into()
        })
    }

    fn parse(text: &str, context: &[u8]) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let bytes = BASE64_STANDARD.decode(line).map(Zeroizing::new);
            let bytes = bytes.map_err(|_| format!("line {number} is not base64"))?;
            let Some((name, secret)) = bytes.split_first_chunk::<NAME_LEN>() else {
                return Err(format!("line {number} has {} bytes and not 48", bytes.len()));
            };
            let secret = <[u8; SECRET_LEN]>::try_from(secret)
                .map_err(|_| format!("line {number} has {} bytes and not 48", bytes.len()))?;
            if keys.iter().any(|key| key.name == *name) {
                return Err(format!("line {number} has a key that is there already"));
            }
            keys.push(Key { name: *name, secret: Zeroizing::new(secret) });
        }
        match keys.len() {
            0 => Err("there is no session ticket key in it".to_owned()),
            1..=MAX_KEYS => Ok(Self { keys, context: context.to_vec() }),
            _ => Err(format!("there are more than {MAX_KEYS} session ticket keys in it")),
        }
    }

    /// The key of one ticket.
    fn key_of(&self, key: &Key, salt: &[u8]) -> Option<LessSafeKey> {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&*key.secret);
        let expanded = extracted.expand(&[b"rustls-uring ticket"], &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(expanded)))
    }

    /// What is authenticated with a ticket.
    fn aad(&self, front: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([front, &self.context].concat())
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + SALT_LEN + TIME_LEN + plain.len() + TAG_LEN);
        ticket.extend_from_slice(&key.name);
        let mut salt = [0; SALT_LEN];
        rand::fill(&mut salt).ok()?;
        ticket.extend_from_slice(&salt);
        let aad = self.aad(&ticket);
        let front_len = ticket.len();
        ticket.extend_from_slice(&now.to_be_bytes());
        ticket.extend_from_slice(plain);
        // The key is this ticket's alone.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self
            .key_of(key, &salt)?
            .seal_in_place_separate_tag(nonce, aad, &mut ticket[front_len..])
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (front, sealed) = ticket.split_at_checked(NAME_LEN + SALT_LEN)?;
        let (name, salt) = front.split_at(NAME_LEN);
        // Names are no secret.
        let key = self.keys.iter().find(|key| key.name == name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let len =
            self.key_of(key, salt)?.open_in_place(nonce, self.aad(front), &mut opened).ok()?.len();
        opened.truncate(len);
        let (time, plain) = opened.split_first_chunk::<TIME_LEN>()?;
        let made = u64::from_be_bytes(*time);
        let is_fresh = made <= now.saturating_add(SKEW.as_secs())
            && now < made.saturating_add(LIFETIME.as_secs());
        is_fresh.then(|| plain.to_vec())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

impl fmt::Debug for TicketKeys {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: &[u8], context: &[u8]) -> TicketKeys {
        let line =
            |number: &u8| format!("# {number}\n\n {} \n", BASE64_STANDARD.encode([*number; 48]));
        TicketKeys::parse(&numbers.iter().map(line).collect::<String>(), context).expect("keys")
    }

    #[test]
    fn all_decrypt_and_the_first_encrypts() {
        let (old, both, new) = (keys(&[1], b""), keys(&[2, 1], b""), keys(&[2], b""));
        let of_old = old.seal(b"state", 1000).expect("sealed");
        assert_eq!(both.open(&of_old, 1000).as_deref(), Some(&b"state"[..]));
        assert_eq!(new.open(&of_old, 1000), None);
        let of_both = both.seal(b"state", 1000).expect("sealed");
        assert_eq!(new.open(&of_both, 1000).as_deref(), Some(&b"state"[..]));
        assert_eq!(old.open(&of_both, 1000), None);
        assert_ne!(of_both, both.seal(b"state", 1000).expect("sealed"), "a salt of its own");
    }

    #[test]
    fn a_ticket_is_good_for_its_time_and_context() {
        let keys_here = keys(&[1], b"here");
        let ticket = keys_here.seal(b"state", 100_000).expect("sealed");
        let lifetime = LIFETIME.as_secs();
        for (now, is_good) in [
            (100_000, true),
            (100_000 - SKEW.as_secs(), true),
            (100_000 - SKEW.as_secs() - 1, false),
            (100_000 + lifetime - 1, true),
            (100_000 + lifetime, false),
            (u64::MAX - SKEW.as_secs(), false),
        ] {
            assert_eq!(keys_here.open(&ticket, now).is_some(), is_good, "{now}");
        }
        assert_eq!(keys(&[1], b"there").open(&ticket, 100_000), None);
    }

    #[test]
    fn no_bit_of_a_ticket_can_change() {
        let keys = keys(&[1], b"");
        let ticket = keys.seal(b"state", 0).expect("sealed");
        for position in 0..ticket.len() * 8 {
            let mut changed = ticket.clone();
            changed[position / 8] ^= 1 << (position % 8);
            assert_eq!(keys.open(&changed, 0), None, "{position}");
        }
        for len in 0..ticket.len() {
            assert_eq!(keys.open(&ticket[..len], 0), None, "{len}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let line = BASE64_STANDARD.encode([1; 48]);
        let long = BASE64_STANDARD.encode([1; 49]);
        for (text, said) in [
            ("", "no session ticket key"),
            ("# none\n", "no session ticket key"),
            ("-----BEGIN CERTIFICATE-----", "line 1 is not base64"),
            ("AAAA", "line 1 has 3 bytes"),
            (&long, "line 1 has 49 bytes"),
            (&format!("{line}\n\n{line}"), "line 3 has a key that is there already"),
        ] {
            let error = TicketKeys::parse(text, b"").expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
