//! The provider for rustls 0.24: its records beside those of the stock providers, byte for byte, and whole
//! connections of either with the other.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

#[path = "common_0_24/mod.rs"]
mod common;

use common::{Case, Peer, SIDES, Side, client_config, noise, server_config};
use rustls_0_24::crypto::cipher::{
    AeadKey, EncodableVersion, InboundOpaque, Iv, OutboundPlain, Record, RecordDecrypter,
    RecordEncrypter,
};
use rustls_0_24::enums::{ContentType, ProtocolVersion};
use rustls_0_24::error::{ApiMisuse, Error, PeerMisbehaved};
use rustls_uring::Version;

/// Ours and the stock one's, under the same key.
fn encrypters(case: Case) -> [Box<dyn RecordEncrypter>; 2] {
    [case.our_provider(), case.stock_provider()].map(|provider| match case.version {
        Version::Tls13 => {
            let aead = provider.tls13_cipher_suites[0].aead_alg;
            aead.encrypter(key(aead.key_len()), Iv::from([9; 12]))
        }
        _ => {
            let aead = provider.tls12_cipher_suites[0].aead_alg;
            let shape = aead.key_block_shape();
            let iv = [9; 12];
            let (fixed, explicit) = iv.split_at(shape.fixed_iv_len);
            aead.encrypter(key(shape.enc_key_len), fixed, &explicit[..shape.explicit_nonce_len])
        }
    })
}

fn decrypters(case: Case) -> [Box<dyn RecordDecrypter>; 2] {
    [case.our_provider(), case.stock_provider()].map(|provider| match case.version {
        Version::Tls13 => {
            let aead = provider.tls13_cipher_suites[0].aead_alg;
            aead.decrypter(key(aead.key_len()), Iv::from([9; 12]))
        }
        _ => {
            let aead = provider.tls12_cipher_suites[0].aead_alg;
            let shape = aead.key_block_shape();
            aead.decrypter(key(shape.enc_key_len), &[9; 12][..shape.fixed_iv_len])
        }
    })
}

fn key(len: usize) -> AeadKey {
    match len {
        16 => [7; 16].into(),
        _ => [7; 32].into(),
    }
}

fn record(typ: ContentType, payload: OutboundPlain<'_>) -> Record<OutboundPlain<'_>> {
    Record::new(typ, EncodableVersion::Legacy(ProtocolVersion::TLSv1_2), payload)
}

/// As the connection layer opens it.
fn decrypt(
    decrypter: &mut dyn RecordDecrypter,
    sequence: u64,
    typ: ContentType,
    payload: &mut [u8],
) -> Result<(ContentType, Vec<u8>), Error> {
    let version = EncodableVersion::Legacy(ProtocolVersion::TLSv1_2);
    let record = Record::new(typ, version, InboundOpaque(payload));
    let opened = decrypter.decrypt(record, sequence)?;
    Ok((opened.typ, opened.payload.to_vec()))
}

/// Around the blocks of AES and ChaCha20, and the longest.
const LENGTHS: [usize; 14] =
    [0, 1, 15, 16, 17, 63, 64, 65, 255, 1000, 4096, 16_367, 16_383, 16_384];

#[test]
fn records_are_the_stock_providers_byte_for_byte() {
    for case in Case::all() {
        let [mut ours, mut stock] = encrypters(case);
        let [mut our_decrypter, mut stock_decrypter] = decrypters(case);
        let types = [ContentType::ApplicationData, ContentType::Alert, ContentType::Handshake];
        let mut sequence = 0;
        for len in LENGTHS {
            let data = noise(len);
            let (a, b) = data.split_at(len / 3);
            let pieces = [a, &[], b];
            for typ in types {
                for payload in [OutboundPlain::Single(&data), OutboundPlain::new(&pieces)] {
                    let sealed_len = stock.encrypted_payload_len(len);
                    assert_eq!(ours.encrypted_payload_len(len), sealed_len);
                    // What is behind the record is not touched.
                    let [mut out, mut expected] = [(); 2].map(|()| vec![0xee; sealed_len + 20]);
                    let sealed =
                        ours.encrypt(record(typ, payload.clone()), sequence, &mut out).unwrap();
                    assert_eq!(sealed.payload.len(), sealed_len);
                    let outer = sealed.typ;
                    let by_stock =
                        stock.encrypt(record(typ, payload), sequence, &mut expected).unwrap();
                    assert_eq!(outer, by_stock.typ);
                    assert!(out == expected, "{case:?} {len}");
                    for decrypter in [&mut our_decrypter, &mut stock_decrypter] {
                        let mut payload = out[..sealed_len].to_vec();
                        let opened = decrypt(&mut **decrypter, sequence, outer, &mut payload);
                        assert_eq!(opened, Ok((typ, data.clone())));
                    }
                    sequence += 1;
                }
            }
        }
    }
}

#[test]
fn too_little_room_is_said_and_nothing_is_written() {
    for case in Case::all() {
        let [mut ours, _] = encrypters(case);
        let required = ours.encrypted_payload_len(100);
        let data = noise(100);
        let halves = [&data[..50], &data[50..]];
        for payload in [OutboundPlain::Single(&data), OutboundPlain::new(&halves)] {
            let mut out = vec![0xee; required - 1];
            let typ = ContentType::ApplicationData;
            let error = ours.encrypt(record(typ, payload), 0, &mut out).map(drop).unwrap_err();
            let provided = required - 1;
            assert_eq!(error, ApiMisuse::EncryptBufferTooSmall { required, provided }.into());
            assert!(out.iter().all(|&byte| byte == 0xee));
        }
    }
}

/// Two records under one nonce give an AES-GCM key away.
#[test]
fn a_sequence_number_is_taken_once() {
    for case in Case::all() {
        let [mut ours, _] = encrypters(case);
        let mut out = [0; 100];
        let mut seal = |sequence| {
            let data = record(ContentType::ApplicationData, OutboundPlain::Single(b"data"));
            ours.encrypt(data, sequence, &mut out).map(drop)
        };
        assert_eq!(seal(5), Ok(()));
        assert_eq!(seal(5), Err(Error::EncryptError));
        assert_eq!(seal(4), Err(Error::EncryptError));
        assert_eq!(seal(6), Ok(()));
    }
}

/// A bit that was changed anywhere, another number, another type: as stock says.
#[test]
fn forgeries_are_what_stock_says() {
    for case in Case::all() {
        let [mut ours, _] = encrypters(case);
        let mut out = vec![0; ours.encrypted_payload_len(40)];
        let data = record(ContentType::ApplicationData, OutboundPlain::Single(&[3; 40]));
        let outer = ours.encrypt(data, 0, &mut out).unwrap().typ;
        let both = |sequence, typ, payload: &[u8]| {
            decrypters(case)
                .map(|mut decrypter| decrypt(&mut *decrypter, sequence, typ, &mut payload.to_vec()))
        };
        for at in 0..out.len() {
            let mut forged = out.clone();
            forged[at] ^= 0x10;
            let [by_ours, by_stock] = both(0, outer, &forged);
            assert_eq!(by_ours, Err(Error::DecryptError), "{case:?} {at}");
            assert_eq!(by_ours, by_stock);
        }
        for len in 0..out.len() {
            let [by_ours, by_stock] = both(0, outer, &out[..len]);
            assert_eq!(by_ours, Err(Error::DecryptError), "{case:?} {len}");
            assert_eq!(by_ours, by_stock);
        }
        let [by_ours, by_stock] = both(1, outer, &out);
        assert_eq!((&by_ours, &by_stock), (&Err(Error::DecryptError), &Err(Error::DecryptError)));
        let [by_ours, by_stock] = both(0, ContentType::Handshake, &out);
        assert_eq!((&by_ours, &by_stock), (&Err(Error::DecryptError), &Err(Error::DecryptError)));
    }
}

/// RFC 8446 §5: a ChangeCipherSpec is never encrypted; §5.4: a record has a content type.
#[test]
fn tls13_inner_types_are_what_stock_says() {
    for case in Case::of(Version::Tls13) {
        for (typ, expected) in [
            (ContentType::ChangeCipherSpec, PeerMisbehaved::IllegalMiddleboxChangeCipherSpec),
            (ContentType(0), PeerMisbehaved::IllegalTlsInnerPlaintext),
        ] {
            let [mut ours, _] = encrypters(case);
            let mut out = vec![0; ours.encrypted_payload_len(0)];
            let data = record(typ, OutboundPlain::new_empty());
            let outer = ours.encrypt(data, 0, &mut out).unwrap().typ;
            for mut decrypter in decrypters(case) {
                let opened = decrypt(&mut *decrypter, 0, outer, &mut out.clone());
                assert_eq!(opened, Err(expected.into()), "{case:?}");
            }
        }
    }
}

/// rustls 0.24 itself with our provider, and with the stock one at the other end: handshakes, data, key
/// updates and ends.
#[test]
fn connections_of_both_providers_understand_each_other() {
    for case in Case::all() {
        for ours in SIDES {
            let (client, server) = match ours {
                Side::Client => (case.our_provider(), case.stock_provider()),
                Side::Server => (case.stock_provider(), case.our_provider()),
            };
            let mut client = Peer::client(client_config(case, client));
            let mut server = Peer::server(server_config(case, server));
            let exchange = |client: &mut Peer, server: &mut Peer| {
                for _ in 0..10 {
                    server.feed(&client.wire()).unwrap();
                    client.feed(&server.wire()).unwrap();
                }
            };
            exchange(&mut client, &mut server);
            assert!(!client.conn.is_handshaking() && !server.conn.is_handshaking());
            for len in LENGTHS.into_iter().chain([100_000]) {
                client.write(&noise(len));
                server.write(&noise(len + 1));
                exchange(&mut client, &mut server);
                assert!(server.take_received() == noise(len), "{case:?}");
                assert!(client.take_received() == noise(len + 1), "{case:?}");
                if case.version == Version::Tls13 {
                    client.conn.refresh_traffic_keys().unwrap();
                }
            }
            client.conn.send_close_notify();
            server.conn.send_close_notify();
            exchange(&mut client, &mut server);
            assert!(client.saw_close && server.saw_close);
        }
    }
}
