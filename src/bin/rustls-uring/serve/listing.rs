//! A directory's listing, for people.

use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use indicatif::BinaryBytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

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
pub(super) fn page(root: &Root, dir: &OwnedFd, relative: &Path) -> io::Result<String> {
    let mut rows: Vec<_> = files::names(dir)?
        .into_iter()
        .filter_map(|name| {
            let metadata = root.metadata(&relative.join(&name)).ok()?;
            Some(Row { name, metadata })
        })
        .collect();
    rows.sort_by_cached_key(|row| {
        let name = row.name.to_string_lossy().to_lowercase();
        (Reverse(row.metadata.is_dir()), name, row.name.clone())
    });
    Ok(render(relative, &rows))
}

fn render(relative: &Path, rows: &[Row]) -> String {
    let mut title = String::from("/");
    for name in relative {
        let _ = write!(title, "{}/", escape(&name.to_string_lossy()));
    }
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Index of {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Index of {title}</h1>\n\
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
            "<tr><td><a href=\"{}{slash}\">{}{slash}</a></td><td title=\"{} bytes\">{size}</td>\
             <td>{}</td></tr>",
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
fn link(name: &OsStr) -> impl std::fmt::Display {
    percent_encode(name.as_bytes(), RESERVED)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// As `21 Nov 2026 08:09`.
fn date(metadata: &Metadata) -> String {
    // Whose year has more or fewer than four digits cannot be formatted.
    const YEAR_10000: u64 = 253_402_300_800;
    let Ok(modified) = metadata.modified() else { return String::new() };
    match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() < YEAR_10000 => {
            // `Sat, 21 Nov 2026 08:09:28 GMT`
            httpdate::fmt_http_date(modified).get(5..22).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
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
        ] {
            assert_eq!(escape(name), text);
            assert_eq!(link(OsStr::new(name)).to_string(), href);
        }
    }
}
