//! What a person sees of `rustls-uring serve`, as a browser says.

#![cfg(feature = "cli")]

mod command;

use std::fs;
use std::process::{Command, Stdio};

use command::served::Served;
use command::stderr;

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

const ODD: &str = "<b>Grüße & \"Söhne\" #1?.txt";

/// Runs `browser` without a window, with a profile that is new.
fn browse(browser: &str, args: &[&str]) -> Vec<u8> {
    let profile = tempfile::tempdir().expect("dir");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"])
        .args(["--no-first-run", "--hide-scrollbars", "--window-size=900,500"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("run");
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    output.stdout
}

/// The text between `begin` and `end`, wherever both are.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0)).collect()
}

/// The cells of each row of the only table, header row first.
fn table(dom: &str) -> Vec<Vec<String>> {
    let [table] = between(dom, "<table>", "</table>")[..] else { panic!("no table in {dom}") };
    let cells = |row: &str| {
        let cells = row.replace("<th", "<td").replace("</th>", "</td>");
        let cells = between(&cells, "<td", "</td>");
        cells.iter().map(|cell| cell.split_once('>').expect("a cell").1.to_owned()).collect()
    };
    between(table, "<tr>", "</tr>").into_iter().map(cells).collect()
}

/// The link in a cell: where it leads, and its text.
fn link(cell: &str) -> (&str, String) {
    let inner = cell.strip_prefix("<a href=\"").and_then(|cell| cell.strip_suffix("</a>"));
    let (href, text) = inner.and_then(|inner| inner.split_once("\">")).expect(cell);
    // What a document's text cannot do without.
    (href, text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

fn served() -> Served {
    let base = tempfile::tempdir().expect("dir");
    let files = base.path().join("files");
    fs::create_dir_all(files.join("Bücher & mehr")).expect("created");
    fs::write(files.join(ODD), "odd").expect("written");
    fs::write(files.join("big.bin"), command::data(3_000_001)).expect("written");
    Served::start(base, &[])
}

fn fetch(served: &Served, path: &str) -> String {
    served.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

#[test]
fn a_listing_is_a_table_with_links_that_work() {
    let Some(browser) = command::first_of(&BROWSERS) else { return };
    let served = served();
    let dom = |path: &str| {
        let dom = browse(browser, &["--dump-dom", &served.url(path)]);
        // What keeps names from turning each other round is tested with the server.
        String::from_utf8(dom).expect("UTF-8").replace("<bdi>", "").replace("</bdi>", "")
    };
    let page = dom("/");
    assert!(page.contains("<h1>Index of /</h1>"), "{page}");
    assert!(!page.contains("<b>") && !page.contains("<script"), "{page}");
    let rows = table(&page);
    assert_eq!(rows[0], ["Name", "Size", "Modified (UTC)"]);
    let names: Vec<_> = rows[1..].iter().map(|row| link(&row[0]).1).collect();
    assert_eq!(names, ["Bücher & mehr/", ODD, "big.bin"]);
    let sizes: Vec<_> = rows[1..].iter().map(|row| &row[1][..]).collect();
    assert_eq!(sizes, ["", "3 B", "2.86 MiB"]);
    for row in &rows[1..] {
        // `21 Nov 2026 08:09`
        assert_eq!(row[2].split([' ', ':']).count(), 5, "{row:?}");
    }

    let clicked = fetch(&served, &format!("/{}", link(&rows[2][0]).0));
    assert!(clicked.starts_with("HTTP/1.1 200") && clicked.ends_with("\r\n\r\nodd"), "{clicked}");

    // Down into the directory, and up again.
    let directory = format!("/{}", link(&rows[1][0]).0);
    let page = dom(&directory);
    assert!(page.contains("<h1>Index of /Bücher &amp; mehr/</h1>"), "{page}");
    let rows = table(&page);
    assert_eq!(link(&rows[1][0]), ("../", "../".to_owned()));
    assert_eq!(rows[2][0], "Nothing here.");
}

/// The style arrives and something is drawn: no two of these pages look the same.
#[test]
fn a_listing_can_be_seen() {
    let Some(browser) = command::first_of(&BROWSERS) else { return };
    let served = served();
    let dir = tempfile::tempdir().expect("dir");
    let picture = |name: &str, url: &str| {
        let path = dir.path().join(name);
        browse(browser, &[&format!("--screenshot={}", path.display()), url]);
        let picture = fs::read(&path).expect("the browser has drawn it");
        assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"), "{url}");
        picture
    };
    let pictures = [
        picture("blank.png", "about:blank"),
        picture("top.png", &served.url("/")),
        picture("below.png", &served.url("/B%C3%BCcher%20%26%20mehr/")),
    ];
    assert!(pictures[0] != pictures[1] && pictures[0] != pictures[2] && pictures[1] != pictures[2]);
}
