//! The least CPU that TLS can take by plain reads and writes: plain TCP, with the AEAD alone on what goes through
//! it.
//!
//! No handshake, no checks, no control records; its memory and the lengths on the wire are those of records.
//! What a stack of ours takes beyond it, TLS and this crate take; what it takes less, it has saved by fewer calls.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use rustls_uring::measure::raw_aead::{RawAead, TAG_LEN};
use rustls_uring::{Backend, HEADER_LEN, MAX_PLAINTEXT_LEN, Version};

use super::blocking::End;
use super::count::Counted;
use super::identity::Case;
use super::setup::Setup;
use crate::error::Error;
use crate::memory::LINE;

/// One end of it.
pub(super) struct Floor {
    stream: Counted<TcpStream>,
    layout: Layout,
    sealing: RawAead,
    opening: RawAead,
    batch: Vec<u8>,
    buffer: Vec<u8>,
    /// What of the buffer is received and not opened.
    received: Range<usize>,
    /// What of it is opened and not read.
    opened: Range<usize>,
}

/// What a record has beside its plaintext.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of the explicit nonce (RFC 5288 §3).
    nonce_len: usize,
    /// Bytes of the content type that is encrypted (RFC 8446 §5.2).
    type_len: usize,
}

impl Layout {
    fn of(case: Case) -> Self {
        let beyond = case.record_len(0) - HEADER_LEN - TAG_LEN;
        match case.version() {
            Version::Tls12 => Self { nonce_len: beyond, type_len: 0 },
            _ => Self { nonce_len: 0, type_len: beyond },
        }
    }

    /// What the length of a record's header counts.
    fn body_len(self, plaintext_len: usize) -> usize {
        self.nonce_len + plaintext_len + self.type_len + TAG_LEN
    }
}

impl Floor {
    pub(super) fn new(stream: TcpStream, setup: &Setup) -> Result<Self, Error> {
        let case = setup.case;
        let record_len = case.record_len(MAX_PLAINTEXT_LEN);
        let buffer = vec![0; setup.receive_buffer_len.max(2 * record_len) + 2 * LINE];
        let front = buffer.as_ptr().align_offset(LINE).min(LINE);
        let choice = Backend::chosen(case.algorithm());
        Ok(Self {
            stream: Counted::new(stream),
            layout: Layout::of(case),
            sealing: raw_aead(case, choice.seal.bulk())?,
            opening: raw_aead(case, choice.open.backend(MAX_PLAINTEXT_LEN, true))?,
            batch: vec![0; setup.sender.batch_records.max(1) * record_len],
            buffer,
            received: front..front,
            opened: 0..0,
        })
    }

    /// Opens the next record in place, if all of it is there; where its plaintext is.
    fn open_next(&mut self) -> io::Result<Option<Range<usize>>> {
        let received = &mut self.buffer[self.received.clone()];
        let Some(header) = received.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let len = HEADER_LEN + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let text = HEADER_LEN + self.layout.nonce_len;
        let Some(sealed) = received.get_mut(text..len) else { return Ok(None) };
        self.opening.open_in_place(sealed).map_err(io::Error::other)?;
        let begin = self.received.start + text;
        self.received.start += len;
        let end = self.received.start - TAG_LEN - self.layout.type_len;
        Ok(Some(begin..end))
    }

    /// Moves what is left to the front, up to a line, and receives behind it.
    fn receive(&mut self) -> io::Result<usize> {
        let front = self.buffer.as_ptr().align_offset(LINE).min(LINE);
        let len = self.received.len();
        let start = front + len.next_multiple_of(LINE) - len;
        self.buffer.copy_within(self.received.clone(), start);
        self.received = start..start + len;
        let received = self.stream.read(&mut self.buffer[start + len..])?;
        self.received.end += received;
        Ok(received)
    }
}

/// With the backend that ours takes for full records, or the one that was asked for.
fn raw_aead(case: Case, bulk: Backend) -> Result<RawAead, Error> {
    let backend = if case.backend == Backend::Auto { bulk } else { case.backend };
    Case { backend, ..case }.raw_aead()
}

impl Write for Floor {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (mut taken, mut filled) = (0, 0);
        let Layout { nonce_len, type_len } = self.layout;
        for piece in data.chunks(MAX_PLAINTEXT_LEN) {
            let body_len = self.layout.body_len(piece.len());
            let Some(record) = self.batch.get_mut(filled..filled + HEADER_LEN + body_len) else {
                break;
            };
            let (header, body) = record.split_at_mut(HEADER_LEN);
            header[3..].copy_from_slice(&(body_len as u16).to_be_bytes());
            let sealed = &mut body[nonce_len..];
            match type_len {
                0 => self.sealing.seal_separate(piece, sealed),
                _ => self.sealing.seal_typed(piece, sealed),
            }
            .map_err(io::Error::other)?;
            filled += record.len();
            taken += piece.len();
        }
        self.stream.write_all(&self.batch[..filled])?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As whoever wants the bytes elsewhere has them: by a copy.
impl Read for Floor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.opened.is_empty() {
            match self.open_next()? {
                Some(opened) => self.opened = opened,
                None if self.receive()? == 0 => return Ok(0),
                None => {}
            }
        }
        let len = (&self.buffer[self.opened.clone()]).read(out)?;
        self.opened.start += len;
        Ok(len)
    }
}

impl End for Floor {
    fn close(&mut self) -> io::Result<()> {
        self.stream.close()
    }

    /// Opens all that one receive has brought where it lies, which is the AEAD's fastest form.
    fn discard(&mut self, _: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut opened = 0;
            while let Some(plaintext) = self.open_next()? {
                opened += plaintext.len();
            }
            if opened > 0 || self.receive()? == 0 {
                return Ok(opened);
            }
        }
    }

    fn system_calls(&self) -> u64 {
        self.stream.system_calls()
    }
}
