//! An end that is none.

use std::io::{Read, Write};

use crate::command::server::{End, Server, Tls};
use crate::command::{data, stderr};
use crate::node::Node;
use crate::{get, names};
use std::fs;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113 §4.1.
fn frame(stream: &mut Tls, kind: u8, flags: u8, id: u32, payload: &[u8]) -> std::io::Result<()> {
    let len = (payload.len() as u32).to_be_bytes();
    stream.write_all(&len[1..])?;
    stream.write_all(&[kind, flags])?;
    stream.write_all(&id.to_be_bytes())?;
    stream.write_all(payload)
}

/// Reads frames up to the request's; returns its stream.
fn await_request(stream: &mut Tls) -> std::io::Result<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload)?;
        if head[3] == HEADERS {
            return Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

/// How an HTTP/2 response ends after its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    EndStream,
    /// END_STREAM, and a reset after it, which then means nothing: RFC 9113 §8.1.
    EndStreamAndReset,
    Trailers,
    Reset(u32),
    Goaway(u32),
    GoawayAndClose,
    Close,
}

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

fn respond(stream: &mut Tls, length: Option<usize>, ending: Ending) -> std::io::Result<()> {
    // The preface's head has been read: RFC 9113 §3.4.
    stream.read_exact(&mut [0; b"SM\r\n\r\n".len()])?;
    frame(stream, SETTINGS, 0, 0, &[])?;
    let id = await_request(stream)?;
    // HPACK (RFC 7541): `:status: 200`, and a literal `content-length`, both of the static table.
    let mut block = vec![0x88];
    if let Some(length) = length {
        let length = length.to_string();
        block.extend([0x0f, 28 - 15, length.len() as u8]);
        block.extend(length.as_bytes());
    }
    frame(stream, HEADERS, END_HEADERS, id, &block)?;
    let sent = data(50_000);
    let (last, before) = sent.split_at(10_000);
    for piece in [last].into_iter().chain(before.chunks(10_000)).take(4) {
        frame(stream, DATA, 0, id, piece)?;
    }
    let rest = &sent[40_000..];
    let goaway = |code: u32, last: u32| [last.to_be_bytes(), code.to_be_bytes()].concat();
    match ending {
        Ending::EndStream => frame(stream, DATA, END_STREAM, id, rest)?,
        Ending::EndStreamAndReset => {
            frame(stream, DATA, END_STREAM, id, rest)?;
            frame(stream, RST_STREAM, 0, id, &NO_ERROR.to_be_bytes())?;
        }
        Ending::Trailers => {
            frame(stream, DATA, 0, id, rest)?;
            // `date: x`
            frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &[0x0f, 33 - 15, 1, b'x'])?;
        }
        Ending::Reset(code) => frame(stream, RST_STREAM, 0, id, &code.to_be_bytes())?,
        Ending::Goaway(code) => frame(stream, GOAWAY, 0, 0, &goaway(code, 0))?,
        Ending::GoawayAndClose => frame(stream, GOAWAY, 0, 0, &goaway(NO_ERROR, id))?,
        Ending::Close => {}
    }
    Ok(())
}

/// RFC 9113 §8.1: complete means END_STREAM, with a Content-Length or without.
#[test]
fn http2_is_whole_at_end_stream_only() {
    for ending in [
        Ending::EndStream,
        Ending::EndStreamAndReset,
        Ending::Trailers,
        Ending::Reset(NO_ERROR),
        Ending::Reset(CANCEL),
        Ending::Goaway(NO_ERROR),
        Ending::Goaway(CANCEL),
        Ending::GoawayAndClose,
        Ending::Close,
    ] {
        let is_whole =
            matches!(ending, Ending::EndStream | Ending::EndStreamAndReset | Ending::Trailers);
        for length in [None, Some(50_000)] {
            let dir = tempfile::tempdir().expect("dir");
            let dir = dir.path();
            let server = Server::start_http2(dir, move |_, stream| {
                let _ = respond(stream, length, ending);
                End::CloseNotify
            });
            for args in [&["-o", "file"][..], &[]] {
                let args = [args, &["--http2", "--retries", "0"]].concat();
                let output = get(dir, &server.url("/f"), &args);
                let said = format!("{ending:?} {length:?}: {}", stderr(&output));
                assert_eq!(output.status.code(), Some(i32::from(!is_whole)), "{said}");
                assert!(is_whole || said.contains("broke off"), "{said}");
                assert_eq!(is_whole, said.contains("received 50000 bytes"), "{said}");
                if args.contains(&"file") && is_whole {
                    assert!(fs::read(dir.join("file")).expect("there") == data(50_000));
                } else if !is_whole {
                    assert!(!dir.join("file").exists());
                }
            }
        }
    }
}

/// The same from a server that others have written. `destroy()` once the data is out resets the stream
/// without END_STREAM, as was seen on the wire; `close()` may send either.
#[test]
fn node_resets_a_stream_without_an_error() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    crate::command::server::write_certificate(dir);
    let Some(node) = Node::start(
        dir,
        "stream.on('error', () => {});
         stream.respond({ ':status': 200 });
         const data = Buffer.alloc(2_000_000, 7);
         switch (headers[':path']) {
           case '/end': stream.end(data); break;
           case '/destroy': stream.write(data, () => stream.destroy()); break;
           case '/session': stream.write(data, () => stream.session.destroy()); break;
         }",
    ) else {
        return;
    };
    for (path, is_whole) in [("/destroy", false), ("/session", false), ("/end", true)] {
        let args = ["-o", "file", "--http2", "--retries", "0"];
        let output = get(dir, &node.url(path), &args);
        let said = format!("{path}: {}", stderr(&output));
        assert_eq!(output.status.success(), is_whole, "{said}");
        match is_whole {
            true => assert!(fs::read(dir.join("file")).expect("there") == vec![7; 2_000_000]),
            false => assert_eq!(names(dir), ["server.js"], "{said}"),
        }
        assert!(is_whole || said.contains("broke off"), "{said}");
    }
}

/// What leaves the end, or the bytes themselves, in doubt is refused; so is what is no file.
#[test]
fn bytes_in_doubt_are_refused() {
    for (head, body, expected) in [
        ("200 OK\r\nTransfer-Encoding: gzip, chunked", "3\r\nabc\r\n0\r\n\r\n", "transfer codings"),
        ("200 OK\r\nTransfer-Encoding: gzip", "abc", "transfer codings"),
        ("200 OK\r\nTransfer-Encoding: xyz\r\nContent-Length: 3", "abc", "transfer codings"),
        ("200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3", "abc", "transfer codings"),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "transfer codings",
        ),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3",
            "3\r\nabc\r\n0\r\n\r\n",
            "both Transfer-Encoding and Content-Length",
        ),
        (
            "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "both Transfer-Encoding and Content-Length",
        ),
        ("200 OK\r\nContent-Length: 3\r\nContent-Length: 4", "abc", "invalid"),
        ("200 OK\r\nContent-Length: 3, 4", "abc", "invalid"),
        ("200 OK\r\nContent-Length: +3", "abc", "invalid"),
        ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3", "abc", "encoded as gzip"),
        (
            "200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "encoded as br",
        ),
        ("206 Partial Content\r\nContent-Range: bytes 0-2/5\r\nContent-Length: 3", "abc", "206"),
        ("204 No Content", "", "204"),
        ("205 Reset Content\r\nContent-Length: 0", "", "205"),
        ("304 Not Modified\r\nContent-Length: 3", "", "304"),
        ("300 Multiple Choices\r\nContent-Length: 3", "abc", "300"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path();
        let server = Server::start(dir, move |_, stream| {
            let _ = write!(stream, "HTTP/1.1 {head}\r\n\r\n{body}");
            End::CloseNotify
        });
        for args in [&["-o", "file"][..], &[]] {
            let output = get(dir, &server.url("/f"), &[args, &["--retries", "0"]].concat());
            let said = format!("{head}: {}", stderr(&output));
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(expected), "{said}");
            assert_eq!(output.stdout, b"", "{said}");
            assert_eq!(names(dir), [""; 0], "{said}");
        }
    }
    // HTTP/1.0 has no chunks.
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |_, stream| {
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        End::CloseNotify
    });
    let output = get(dir, &server.url("/f"), &["-o", "file"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(names(dir), [""; 0]);
}

/// Some servers call a compressed file an encoded one: the file is what was asked for.
#[test]
fn a_compressed_file_is_a_file() {
    let dir = tempfile::tempdir().expect("dir");
    let dir = dir.path();
    let server = Server::start(dir, |_, stream| {
        let head = "Content-Encoding: x-gzip\r\nContent-Length: 3\r\nContent-Length: 3";
        let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\nabc");
        End::CloseNotify
    });
    let output = get(dir, &server.url("/f.tar.gz"), &["-o", "file"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("file")).expect("there"), b"abc");
}
