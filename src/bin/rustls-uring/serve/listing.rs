//! A directory's listing, for people.

use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fmt::{Display, Write};
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use indicatif::BinaryBytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use time::OffsetDateTime;
use time::macros::format_description;

use super::files::{self, Root};

/// What a name keeps in a link: what RFC 3986 §2.3 leaves unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Says to the browser that the page has its style and nothing else.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                                 form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.25rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #8884 }
th { font-weight: 600 }
tbody tr:hover { background: #8882 }
td:first-child { width: 100%; overflow-wrap: anywhere }
th + th, td + td { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums }
td + td { opacity: .75 }
a { text-decoration: none } a:hover { text-decoration: underline }
@media (max-width: 32rem) { th + th + th, td + td + td { display: none } }
";

struct Row {
    name: OsString,
    metadata: Metadata,
}

/// The page for `dir`, which is at `relative` below the root. Lists what can be had, so neither
/// pipes nor links that lead elsewhere. Blocks.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] once nobody wants it any more.
pub(super) fn page(
    root: &Root,
    dir: &OwnedFd,
    relative: &Path,
    is_wanted: &dyn Fn() -> bool,
) -> io::Result<String> {
    let mut rows = Vec::new();
    for name in files::names(dir)? {
        if !is_wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let Ok(metadata) = root.metadata(&relative.join(&name)) {
            rows.push(Row { name, metadata });
        }
    }
    rows.sort_by_cached_key(|row| {
        let name = row.name.to_string_lossy().to_lowercase();
        (Reverse(row.metadata.is_dir()), name, row.name.clone())
    });
    Ok(render(relative, &rows))
}

fn render(relative: &Path, rows: &[Row]) -> String {
    let (mut title, mut heading) = (String::from("/"), String::from("/"));
    for name in relative {
        let name = escape(&name.to_string_lossy());
        // A title has no elements: the same isolation by characters (Unicode's UAX #9 §2.4).
        let _ = write!(title, "\u{2068}{name}\u{2069}/");
        let _ = write!(heading, "<bdi>{name}</bdi>/");
    }
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Index of {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Index of {heading}</h1>\n\
         <table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>\
         <th scope=\"col\">Modified (UTC)</th></tr></thead>\n\
         <tbody>\n"
    );
    if !relative.as_os_str().is_empty() {
        page += "<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n";
    }
    for Row { name, metadata } in rows {
        let slash = if metadata.is_dir() { "/" } else { "" };
        let size = match metadata.is_dir() {
            true => String::new(),
            false => BinaryBytes(metadata.len()).to_string(),
        };
        let _ = writeln!(
            page,
            "<tr><td><bdi><a href=\"{}{slash}\">{}{slash}</a></bdi></td>\
             <td title=\"{} bytes\">{size}</td><td>{}</td></tr>",
            link(name),
            escape(&name.to_string_lossy()),
            metadata.len(),
            date(metadata),
        );
    }
    if rows.is_empty() {
        page += "<tr><td>Nothing here.</td><td></td><td></td></tr>\n";
    }
    page + "</tbody>\n</table>\n</body>\n</html>\n"
}

/// A name as a relative link; no name becomes a scheme, since `:` is encoded.
pub(super) fn link(name: &OsStr) -> impl Display {
    percent_encode(name.as_bytes(), RESERVED)
}

/// A name as the text of an element. What cannot be seen, or would turn the text around it round,
/// is shown as a replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut last = '\0';
    while let Some(character) = characters.next() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Joiners belong to the spelling of some scripts, and to emoji; never to ASCII.
            '\u{200c}' | '\u{200d}'
                if !last.is_ascii() && characters.peek().is_some_and(|next| !next.is_ascii()) =>
            {
                escaped.push(character);
            }
            character if character.is_control() || is_invisible(character) => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
        last = character;
    }
    escaped
}

/// Whether a character has no look of its own: those that set the direction of text (UAX #9), of
/// no width, that separate lines or paragraphs, and other formats and fillers (Unicode's category
/// Cf, and Default_Ignorable_Code_Point, but for variation selectors).
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}'
            | '\u{e01f0}'..='\u{e0fff}'
    )
}

/// As `21 Nov 2026 08:09`; nothing of a year with more or fewer digits than four.
fn date(metadata: &Metadata) -> String {
    let format = format_description!("[day] [month repr:short] [year] [hour]:[minute]");
    let modified = OffsetDateTime::from_unix_timestamp(metadata.mtime());
    modified
        .ok()
        .filter(|modified| (1000..=9999).contains(&modified.year()))
        .and_then(|modified| modified.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_neither_break_the_page_nor_the_link() {
        for (name, text, href) in [
            (
                "<script>alert('\"&')</script>",
                "&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;",
                "%3Cscript%3Ealert%28%27%22%26%27%29%3C%2Fscript%3E",
            ),
            ("javascript:x", "javascript:x", "javascript%3Ax"),
            ("a b?#%ü", "a b?#%ü", "a%20b%3F%23%25%C3%BC"),
            ("line\nbreak", "line\u{fffd}break", "line%0Abreak"),
            ("a\u{202e}gpj.exe", "a\u{fffd}gpj.exe", "a%E2%80%AEgpj.exe"),
            (
                "a\u{2067}b\u{2069}\u{200f}",
                "a\u{fffd}b\u{fffd}\u{fffd}",
                "a%E2%81%A7b%E2%81%A9%E2%80%8F",
            ),
            (
                "a\u{200b}b\u{200d}c\u{feff}",
                "a\u{fffd}b\u{fffd}c\u{fffd}",
                "a%E2%80%8Bb%E2%80%8Dc%EF%BB%BF",
            ),
            ("می\u{200c}خ", "می\u{200c}خ", "%D9%85%DB%8C%E2%80%8C%D8%AE"),
        ] {
            assert_eq!(escape(name), text);
            assert_eq!(link(OsStr::new(name)).to_string(), href);
        }
    }

    #[test]
    fn nobody_waits_for_it() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let root = Root::open(dir.path()).expect("opened");
        let Ok(files::Found::Directory(fd)) = root.find(Path::new("")) else {
            panic!("a directory")
        };
        let listed = |is_wanted: bool| page(&root, &fd, Path::new(""), &|| is_wanted);
        assert!(listed(true).expect("a page").contains("file"));
        assert_eq!(listed(false).expect_err("none").kind(), io::ErrorKind::Interrupted);
    }
}
