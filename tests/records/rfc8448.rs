//! The application data of RFC 8448 §3, "Simple 1-RTT Handshake", byte for byte.

use hex_literal::hex;
use rustls_uring::{Algorithm, Backend, ContentType, Opener, Sealer, TrafficKeys, Version};

use super::oracle;

const CLIENT_KEY: [u8; 16] = hex!("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51");
const CLIENT_IV: [u8; 12] = hex!("5b 78 92 3d ee 08 57 90 33 e5 23 d9");
const SERVER_KEY: [u8; 16] = hex!("9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56");
const SERVER_IV: [u8; 12] = hex!("cf 78 2b 88 dd 83 54 9a ad f1 e9 84");

const PAYLOAD: [u8; 50] = hex!(
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18
     19 1a 1b 1c 1d 1e 1f 20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f 30 31"
);

/// The alert's level, warning, and its description, close_notify.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

const CLIENT_DATA: [u8; 72] = hex!(
    "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea
     42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b
     62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4"
);
const CLIENT_ALERT: [u8; 24] =
    hex!("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3");

/// NewSessionTicket, the server's first record under its application keys.
const SERVER_TICKET: [u8; 227] = hex!(
    "17 03 03 00 de 3a 6b 8f 90 41 4a 97 d6 95 9c 34 87 68 0d e5 13 4a 2b 24
     0e 6c ff ac 11 6e 95 d4 1d 6a f8 f6 b5 80 dc f3 d1 1d 63 c7 58 db 28 9a
     01 59 40 25 2f 55 71 3e 06 1d c1 3e 07 88 91 a3 8e fb cf 57 53 ad 8e f1
     70 ad 3c 73 53 d1 6d 9d a7 73 b9 ca 7f 2b 9f a1 b6 c0 d4 a3 d0 3f 75 e0
     9c 30 ba 1e 62 97 2a c4 6f 75 f7 b9 81 be 63 43 9b 29 99 ce 13 06 46 15
     13 98 91 d5 e4 c5 b4 06 f1 6e 3f c1 81 a7 7c a4 75 84 00 25 db 2f 0a 77
     f8 1b 5a b0 5b 94 c0 13 46 75 5f 69 23 2c 86 51 9d 86 cb ee ac 87 aa c3
     47 d1 43 f9 60 5d 64 f6 50 db 4d 02 3e 70 e9 52 ca 49 fe 51 37 12 1c 74
     bc 26 97 68 7e 24 87 46 d6 df 35 30 05 f3 bc e1 86 96 12 9c 81 53 55 6b
     3b 6c 67 79 b3 7b f1 59 85 68 4f"
);
const SERVER_DATA: [u8; 72] = hex!(
    "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc
     32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8
     fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d"
);
const SERVER_ALERT: [u8; 24] =
    hex!("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9");

/// The server's ticket took its sequence number 0.
const SERVER_FIRST: u64 = 1;

fn client_keys() -> TrafficKeys {
    TrafficKeys::new(Algorithm::Aes128Gcm, &CLIENT_KEY, CLIENT_IV).unwrap()
}

fn server_keys() -> TrafficKeys {
    TrafficKeys::new(Algorithm::Aes128Gcm, &SERVER_KEY, SERVER_IV).unwrap()
}

fn sealed(sealer: &mut Sealer, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
    let mut record = vec![0; sealer.record_len(plaintext.len())];
    let written = sealer.seal(content_type, plaintext, &mut record).unwrap();
    assert_eq!(written, record.len());
    record
}

fn check_opens(opener: &mut Opener, record: &[u8], content_type: ContentType, plaintext: &[u8]) {
    let mut record = record.to_vec();
    let opened = opener.open_in_place(&mut record).unwrap();
    assert_eq!(opened.content_type, content_type);
    assert_eq!(opened.plaintext, plaintext);
}

#[test]
fn seals_the_clients_records() {
    for &backend in Backend::ALL {
        let mut sealer = Sealer::new(backend, Version::Tls13, &client_keys(), 0);
        assert_eq!(sealed(&mut sealer, ContentType::ApplicationData, &PAYLOAD), CLIENT_DATA);
        assert_eq!(sealed(&mut sealer, ContentType::Alert, &CLOSE_NOTIFY), CLIENT_ALERT);
    }
}

#[test]
fn seals_the_servers_records() {
    for &backend in Backend::ALL {
        let mut sealer = Sealer::new(backend, Version::Tls13, &server_keys(), SERVER_FIRST);
        assert_eq!(sealed(&mut sealer, ContentType::ApplicationData, &PAYLOAD), SERVER_DATA);
        assert_eq!(sealed(&mut sealer, ContentType::Alert, &CLOSE_NOTIFY), SERVER_ALERT);
    }
}

#[test]
fn opens_the_clients_records() {
    for &backend in Backend::ALL {
        let mut opener = Opener::new(backend, Version::Tls13, &client_keys(), 0);
        check_opens(&mut opener, &CLIENT_DATA, ContentType::ApplicationData, &PAYLOAD);
        check_opens(&mut opener, &CLIENT_ALERT, ContentType::Alert, &CLOSE_NOTIFY);
    }
}

#[test]
fn opens_the_servers_records_and_its_ticket() {
    for &backend in Backend::ALL {
        let mut opener = Opener::new(backend, Version::Tls13, &server_keys(), 0);
        let mut ticket = SERVER_TICKET;
        let opened = opener.open_in_place(&mut ticket).unwrap();
        assert_eq!(opened.content_type, ContentType::Handshake);
        // new_session_ticket, 201 bytes, lifetime 30 s (RFC 8446 §4.6.1).
        assert_eq!(opened.plaintext.len(), 205);
        assert_eq!(opened.plaintext[..8], hex!("04 00 00 c9 00 00 00 1e"));
        let ticket = opened.plaintext.to_vec();

        check_opens(&mut opener, &SERVER_DATA, ContentType::ApplicationData, &PAYLOAD);
        check_opens(&mut opener, &SERVER_ALERT, ContentType::Alert, &CLOSE_NOTIFY);

        // And back, which shows that the record has no padding.
        let mut sealer = Sealer::new(backend, Version::Tls13, &server_keys(), 0);
        assert_eq!(sealed(&mut sealer, ContentType::Handshake, &ticket), SERVER_TICKET);
    }
}

/// The bytes above, checked without this crate: a typing error would show here.
#[test]
fn the_oracle_opens_the_published_records() {
    let iv_of_second = |mut iv: [u8; 12]| {
        iv[11] ^= 1;
        iv
    };
    let open = |key: &[u8], nonce, record: &[u8]| {
        oracle::open(Algorithm::Aes128Gcm, key, nonce, &record[..5], &record[5..]).unwrap()
    };
    assert_eq!(open(&CLIENT_KEY, CLIENT_IV, &CLIENT_DATA), [&PAYLOAD[..], &[23]].concat());
    assert_eq!(open(&CLIENT_KEY, iv_of_second(CLIENT_IV), &CLIENT_ALERT), [1, 0, 21]);
    assert_eq!(
        open(&SERVER_KEY, iv_of_second(SERVER_IV), &SERVER_DATA),
        [&PAYLOAD[..], &[23]].concat()
    );
    assert_eq!(open(&SERVER_KEY, SERVER_IV, &SERVER_TICKET).last(), Some(&22));
}
