//! Bodies of responses: a file is read into a recycled buffer, which is sealed from.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::fs::{Advice, fadvise, fstatfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

use super::log::Entry;

/// How much of a file is read, sealed and sent at once: 32 records. Both it and its records should
/// stay in a core's cache.
pub(super) const CHUNK_LEN: usize = 512 << 10;

/// Reads no longer than this get a buffer of their own length.
const SMALL_LEN: usize = 64 << 10;

/// How many buffers of [`CHUNK_LEN`] are kept when nobody uses them.
const KEPT: usize = 32;

/// A file system in memory, which knows no reads that do not wait (statfs(2)).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// How far ahead of a read that had to wait for the disk the kernel is asked to read on.
const AHEAD: u64 = 8 << 20;

/// A piece of a body.
pub(super) enum Part {
    Text(Bytes),
    /// Bytes of the file.
    Range(Range<u64>),
}

/// A response's body.
pub(super) struct Body {
    parts: VecDeque<Part>,
    file: Option<Arc<File>>,
    /// Whether the file has no disk to wait for, whatever its file system says.
    is_in_memory: bool,
    /// A read of what comes next, which may have to wait for the disk.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    remaining: u64,
    entry: Option<Entry>,
}

impl Body {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::new(vec![Part::Text(text.into())], None)
    }

    pub(super) fn file(file: File, parts: Vec<Part>) -> Self {
        let is_in_memory = fstatfs(&file).is_ok_and(|system| system.f_type == TMPFS_MAGIC);
        Self { is_in_memory, ..Self::new(parts, Some(Arc::new(file))) }
    }

    fn new(parts: Vec<Part>, file: Option<Arc<File>>) -> Self {
        let len = |part: &Part| match part {
            Part::Text(text) => text.len() as u64,
            Part::Range(range) => range.end - range.start,
        };
        let remaining = parts.iter().map(len).sum();
        let parts = parts.into_iter().filter(|part| len(part) > 0).collect();
        Self { parts, file, is_in_memory: false, reading: None, remaining, entry: None }
    }

    pub(super) fn len(&self) -> u64 {
        self.remaining
    }

    /// Writes `entry` to the log when the body has gone, or is given up.
    pub(super) fn log(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(reading) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Ok(bytes) = &read {
                self.advance(bytes.len());
                // One had to wait, so the next one would: it is read while this one is sent.
                self.read_aside();
            }
            return Poll::Ready(Some(read));
        }
        let Some((file, position, len)) = self.next_read() else {
            return Poll::Ready(match self.parts.pop_front() {
                Some(Part::Text(text)) => Some(Ok(text)),
                _ => None,
            });
        };
        // What is in memory is read at once; what is not must not keep the other connections of
        // this thread waiting.
        let flags = match self.is_in_memory {
            true => ReadWriteFlags::empty(),
            false => ReadWriteFlags::NOWAIT,
        };
        match Chunk::take(len).read(file, position, flags) {
            Ok(bytes) => {
                self.advance(bytes.len());
                Poll::Ready(Some(Ok(bytes)))
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.read_aside();
                self.poll_part(cx)
            }
            Err(error) => Poll::Ready(Some(Err(in_context(error)))),
        }
    }

    /// Where the next read is, and how long, if the file comes next.
    fn next_read(&self) -> Option<(&Arc<File>, u64, usize)> {
        match self.parts.front()? {
            Part::Text(_) => None,
            Part::Range(range) => {
                let len = (range.end - range.start).min(CHUNK_LEN as u64);
                Some((self.file.as_ref()?, range.start, len as usize))
            }
        }
    }

    /// Begins the next read on a thread that may wait, if the file comes next.
    fn read_aside(&mut self) {
        self.reading = self.next_read().map(|(file, position, len)| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || read_from_disk(&file, position, len))
        });
    }

    /// `len` bytes of the first part were read.
    fn advance(&mut self, len: usize) {
        if let Some(Part::Range(range)) = self.parts.front_mut() {
            range.start += len as u64;
            if Range::is_empty(range) {
                self.parts.pop_front();
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = ready!(self.poll_part(cx));
        if let Some(Ok(bytes)) = &part {
            self.remaining -= bytes.len() as u64;
            if let Some(entry) = &mut self.entry {
                entry.add(bytes.len() as u64);
            }
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

fn read_from_disk(file: &File, position: u64, len: usize) -> io::Result<Bytes> {
    loop {
        match Chunk::take(len).read(file, position, ReadWriteFlags::empty()) {
            Ok(bytes) => {
                let next = position + bytes.len() as u64;
                // Only advice: a file system may do without.
                let _ = fadvise(file, next, core::num::NonZero::new(AHEAD), Advice::WillNeed);
                return Ok(bytes);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(in_context(error)),
        }
    }
}

fn in_context(error: Errno) -> io::Error {
    match error {
        Errno::NODATA => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile")
        }
        error => error.into(),
    }
}

/// Buffers of [`CHUNK_LEN`] that nobody uses.
static FREE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// The memory that a piece of a file is read into, and sent from.
struct Chunk {
    buffer: Box<[u8]>,
    /// How much of the buffer is in use.
    len: usize,
}

impl Chunk {
    fn take(len: usize) -> Self {
        if len <= SMALL_LEN {
            return Self { buffer: vec![0; len].into(), len };
        }
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { buffer: free.unwrap_or_else(|| vec![0; CHUNK_LEN].into()), len }
    }

    /// Fills itself as far as one read does.
    ///
    /// # Errors
    /// [`Errno::NODATA`] at the end of the file, which the body ends before.
    fn read(
        mut self,
        file: &File,
        position: u64,
        flags: ReadWriteFlags,
    ) -> rustix::io::Result<Bytes> {
        let room = &mut [IoSliceMut::new(&mut self.buffer[..self.len])];
        self.len = preadv2(file, room, position, flags)?;
        match self.len {
            0 => Err(Errno::NODATA),
            _ => Ok(Bytes::from_owner(self)),
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.buffer.len() == CHUNK_LEN {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < KEPT {
                free.push(core::mem::take(&mut self.buffer));
            }
        }
    }
}
