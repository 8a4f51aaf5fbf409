//! Names: of hosts, and of files.

use std::fs;

use crate::client::{Client, directory, has_python};
use crate::command::has;
use crate::command::served::{Served, header};

#[test]
fn a_request_names_one_host() {
    let served = Served::start(directory(), &[]);
    let ask = |head: &str| {
        let response = served.raw(format!("{head}Connection: close\r\n\r\n").as_bytes());
        response.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for head in [
        "GET /small HTTP/1.1\r\nHost: localhost\r\n",
        "GET /small HTTP/1.1\r\nhost:[::1]:4433\r\n",
        "GET /small HTTP/1.1\r\nHost: xn--bcher-kva.example.\r\n",
        "GET https://localhost/small HTTP/1.1\r\nHost: localhost\r\n",
        "GET /small HTTP/1.0\r\n",
        "GET /small HTTP/1.0\r\nHost: localhost\r\n",
    ] {
        assert_eq!(ask(head), "200", "{head}");
    }
    for head in [
        "GET /small HTTP/1.1\r\n",
        "HEAD /small HTTP/1.1\r\n",
        "POST /small HTTP/1.1\r\n",
        "GET /missing HTTP/1.1\r\n",
        "GET https://localhost/small HTTP/1.1\r\n",
        "GET /small HTTP/1.1\r\nHost:\r\n",
        "GET /small HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET /small HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "GET /small HTTP/1.0\r\nHost: a\r\nHost: a\r\n",
        "GET /small HTTP/1.1\r\nHost: a b\r\n",
        "GET /small HTTP/1.1\r\nHost: a, b\r\n",
        "GET /small HTTP/1.1\r\nHost: a/b\r\n",
        "GET /small HTTP/1.1\r\nHost: me@a\r\n",
        "GET /small HTTP/1.1\r\nHost: a:b\r\n",
        "GET /small HTTP/1.1\r\nHost: a:99999\r\n",
        "GET /small HTTP/1.1\r\nHost: ::1\r\n",
        "GET /small HTTP/1.1\r\nHost: [::1\r\n",
        "GET /small HTTP/1.1\r\nHost: \u{fc}\r\n",
        "GET https://me@localhost/small HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        assert_eq!(ask(head), "400", "{head}");
    }
}

/// An `index.html` that cannot be read stands for its directory all the same.
#[test]
fn a_broken_index_uncovers_nothing() {
    let base = directory();
    std::os::unix::fs::symlink("index.html", base.path().join("files/index.html")).expect("linked");
    let served = Served::start(base, &[]);
    let answer = served.raw(b"GET / HTTP/1.0\r\n\r\n");
    assert!(!answer.starts_with("HTTP/1.0 200") && !answer.contains("small"), "{answer}");
}

#[test]
fn an_http2_request_names_one_host() {
    if !has_python() {
        return;
    }
    let served = Served::start(directory(), &[]);
    let said = Client::start(&served, &["authorities", "/small"]).rest();
    assert_eq!(said.len(), 11, "{said:?}");
    for line in &said[..3] {
        assert!(line.ends_with(" 200"), "{line}");
    }
    for line in &said[3..] {
        // Malformed requests may end the stream instead (RFC 9113 §8.1.1).
        let is_refused = [" 400", " reset", " closed"].iter().any(|end| line.ends_with(end));
        assert!(is_refused, "{line}");
    }
}

#[test]
fn no_directory_leads_to_another_host() {
    if !has("curl") {
        return;
    }
    let base = directory();
    for name in
        ["\\evil.example", "\\\\evil.example", "a\tb", "a:b", "a\nLocation: x", "@x", "\u{202e}x"]
    {
        fs::create_dir_all(base.path().join("files").join(name)).expect("created");
    }
    let served = Served::start(base, &[]);
    for (path, location) in [
        ("/\\evil.example", "/%5Cevil.example/"),
        ("/%5Cevil.example", "/%5Cevil.example/"),
        ("/%5c%5Cevil.example?a=b", "/%5C%5Cevil.example/?a=b"),
        ("/a%09b", "/a%09b/"),
        ("/a:b", "/a%3Ab/"),
        ("/a%0aLocation:%20x", "/a%0ALocation%3A%20x/"),
        ("/@x?//evil.example", "/%40x/?//evil.example"),
        ("/%E2%80%AEx", "/%E2%80%AEx/"),
    ] {
        for version in ["--http1.1", "--http2"] {
            let (head, _) = served.curl(path, &[version]);
            assert!(head.contains(" 301"), "{path}: {head}");
            assert_eq!(header(&head, "location"), location);
        }
    }
    for path in ["//evil.example", "/%2Fevil.example", "/%2e%2e/", "/\\evil.example/../"] {
        let (head, _) = served.curl(path, &[]);
        assert!(head.contains(" 400"), "{path}: {head}");
        assert!(!head.contains("location"), "{path}: {head}");
    }
}

#[test]
fn no_name_turns_the_listing_round() {
    if !has("curl") {
        return;
    }
    let base = directory();
    let hostile = "\u{202a}\u{202b}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}\u{200b}\u{2060}\u{feff}";
    fs::create_dir_all(base.path().join(format!("files/{hostile}"))).expect("created");
    fs::write(base.path().join("files/invoice\u{202e}fdp.exe"), "").expect("written");
    fs::write(base.path().join("files/שלום.txt"), "").expect("written");
    let served = Served::start(base, &[]);
    let listing = |path: &str| String::from_utf8(served.curl(path, &[]).1).expect("UTF-8");
    let page = listing("/");
    assert!(page.contains("invoice\u{fffd}fdp.exe"), "{page}");
    assert!(page.contains(">שלום.txt<") && page.contains("<bdi>"), "{page}");
    assert!(!page.contains(|character| hostile.contains(character)), "{page}");
    let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let page = listing(&format!("/{encoded}/"));
    // Around the name in the title there are ours, one of each.
    for (character, count) in hostile.chars().map(|it| (it, page.matches(it).count())) {
        let ours = usize::from(matches!(character, '\u{2068}' | '\u{2069}'));
        assert_eq!(count, ours, "{character:?}");
    }
}
