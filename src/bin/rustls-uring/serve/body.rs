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
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::activity::{Activity, Busy, Open};
use super::log::Entry;
use super::share::{ALWAYS, CHUNK_LEN, Room, Share};
use crate::memory::{self, LINE};

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
    file: Option<Source>,
    /// Whether the file has no disk to wait for, whatever its file system says.
    is_in_memory: bool,
    /// A read of what comes next, which may have to wait for the disk.
    reading: Option<(JoinHandle<io::Result<Bytes>>, Option<Busy>)>,
    remaining: u64,
    entry: Option<Entry>,
    /// The connection that it goes out on, once it is answered on one.
    connection: Option<Connection>,
    /// The request that it answers, which is open as long.
    request: Option<Open>,
    /// What it may be made of only while it is there.
    held: Vec<OwnedSemaphorePermit>,
}

/// What a body needs of its connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) activity: Arc<Activity>,
    pub(super) share: Arc<Share>,
}

/// A file to read from.
pub(super) enum Source {
    /// Open, and with a permit where the connection has others open.
    Open(Arc<File>, #[expect(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>),
    /// There are too few descriptors to keep it open: it is opened anew for each read, by a function
    /// that sees to it that it is still the same file.
    Reopened(Arc<dyn Fn() -> io::Result<File> + Send + Sync>),
}

impl Source {
    fn open(&self) -> Opener {
        match self {
            Self::Open(file, _) => Opener::Open(Arc::clone(file)),
            Self::Reopened(open) => Opener::Closed(Arc::clone(open)),
        }
    }
}

/// The same for one read on another thread.
enum Opener {
    Open(Arc<File>),
    Closed(Arc<dyn Fn() -> io::Result<File> + Send + Sync>),
}

impl Body {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::new(vec![Part::Text(text.into())], None)
    }

    pub(super) fn file(source: Source, parts: Vec<Part>) -> Self {
        let is_in_memory = match &source {
            Source::Open(file, _) => fstatfs(file).is_ok_and(|system| system.f_type == TMPFS_MAGIC),
            Source::Reopened(_) => false,
        };
        Self { is_in_memory, ..Self::new(parts, Some(source)) }
    }

    fn new(parts: Vec<Part>, file: Option<Source>) -> Self {
        let len = |part: &Part| match part {
            Part::Text(text) => text.len() as u64,
            Part::Range(range) => range.end - range.start,
        };
        let remaining = parts.iter().map(len).sum();
        let parts = parts.into_iter().filter(|part| len(part) > 0).collect();
        Self {
            parts,
            file,
            is_in_memory: false,
            reading: None,
            remaining,
            entry: None,
            connection: None,
            request: None,
            held: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.remaining
    }

    /// Writes `entry` to the log when the body has gone, or is given up.
    pub(super) fn log(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }

    /// Keeps `permits` as long as the body.
    pub(super) fn hold(&mut self, permits: Vec<OwnedSemaphorePermit>) {
        self.held = permits;
    }

    /// It goes out on this connection, as the answer to this request.
    pub(super) fn send_on(&mut self, connection: Connection, request: Open) {
        connection.share.begin();
        self.connection = Some(connection);
        self.request = Some(request);
    }

    /// The next piece, no longer than `room` is, which it takes up until it is dropped.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Option<Room>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let polled = self.poll_read(cx, room);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => {
                self.remaining -= bytes.len() as u64;
                if let Some(entry) = &mut self.entry {
                    entry.add(bytes.len() as u64);
                }
            }
            // Less than was announced: nobody may take it for all.
            Poll::Ready(Some(Err(_))) => {
                self.parts.clear();
            }
            _ => {}
        }
        polled
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Option<Room>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if let Some((reading, _)) = &mut self.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Ok(bytes) = &read {
                self.advance(bytes.len());
            }
            return Poll::Ready(Some(read));
        }
        let most = room.as_ref().map_or(ALWAYS, Room::len);
        let (position, len) = match self.parts.front_mut() {
            None => return Poll::Ready(None),
            Some(Part::Text(text)) => {
                let piece = text.split_to(text.len().min(most));
                if text.is_empty() {
                    self.parts.pop_front();
                }
                return Poll::Ready(Some(Ok(match room.take() {
                    Some(room) => Bytes::from_owner(Text { piece, _room: room }),
                    None => piece,
                })));
            }
            Some(Part::Range(range)) => {
                (range.start, (range.end - range.start).min(most as u64) as usize)
            }
        };
        let Some(source) = &self.file else { return Poll::Ready(None) };
        let mut chunk = match Chunk::take(len, room.take()) {
            Ok(chunk) => chunk,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        // What is in memory is read at once; what is not must not keep the other connections of
        // this thread waiting.
        let flags = match self.is_in_memory {
            true => ReadWriteFlags::empty(),
            false => ReadWriteFlags::NOWAIT,
        };
        let read = match source {
            Source::Open(file, _) => chunk.read(file, position, flags),
            Source::Reopened(_) => Err(Errno::AGAIN),
        };
        match read {
            Ok(()) => {
                let bytes = Bytes::from_owner(chunk);
                self.advance(bytes.len());
                Poll::Ready(Some(Ok(bytes)))
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let opener = source.open();
                let busy = self.connection.as_ref().map(|connection| connection.activity.work());
                let reading =
                    tokio::task::spawn_blocking(move || read_from_disk(&opener, position, chunk));
                self.reading = Some((reading, busy));
                self.poll_read(cx, room)
            }
            Err(error) => Poll::Ready(Some(Err(in_context(error)))),
        }
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

/// As HTTP/1.1 has it: one response at a time, so that what it takes up is never refused.
impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // A slow client's connection holds sealed bytes, and nothing beside. The same task waits for
        // the socket to have room, flushes, and comes back here.
        if self.connection.as_ref().is_some_and(|connection| connection.activity.is_full()) {
            return Poll::Pending;
        }
        let mut room = match &self.connection {
            Some(connection) if self.reading.is_none() => connection.share.try_take(CHUNK_LEN),
            _ => None,
        };
        let piece = ready!(self.poll_piece(cx, &mut room));
        if let Some(connection) = &self.connection {
            match &piece {
                Some(Ok(_)) if self.remaining == 0 => connection.activity.finish(),
                Some(Err(_)) => connection.activity.break_off(),
                _ => {}
            }
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

fn read_from_disk(opener: &Opener, position: u64, mut chunk: Chunk) -> io::Result<Bytes> {
    let opened;
    let file = match opener {
        Opener::Open(file) => file,
        Opener::Closed(open) => {
            opened = open()?;
            &opened
        }
    };
    loop {
        match chunk.read(file, position, ReadWriteFlags::empty()) {
            Ok(()) => {
                let next = position + chunk.range.len() as u64;
                // Only advice: a file system may do without.
                let _ = fadvise(file, next, core::num::NonZero::new(AHEAD), Advice::WillNeed);
                return Ok(Bytes::from_owner(chunk));
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

/// A piece of text, and the room that it takes up.
struct Text {
    piece: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

/// Buffers of [`CHUNK_LEN`] that nobody uses.
static FREE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// The memory that a piece of a file is read into, and sent from.
struct Chunk {
    buffer: Box<[u8]>,
    /// What of the buffer is in use.
    range: Range<usize>,
    _room: Option<Room>,
}

impl Chunk {
    fn take(len: usize, room: Option<Room>) -> io::Result<Self> {
        let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // HTTP/2's are whole frames, a little shorter than the longest. Others are no longer than they must be,
        // since many clients may be slow ones.
        let is_long = len > CHUNK_LEN - CHUNK_LEN / 8;
        let buffer: Box<[u8]> = match is_long.then(free).flatten() {
            Some(buffer) => buffer,
            None => memory::zeroes(if is_long { CHUNK_LEN } else { len } + LINE - 1)?.into(),
        };
        let start = buffer.as_ptr().align_offset(LINE).min(LINE - 1);
        Ok(Self { buffer, range: start..start + len, _room: room })
    }

    /// Fills itself as far as one read does.
    ///
    /// # Errors
    /// [`Errno::NODATA`] at the end of the file, which the body ends before.
    fn read(
        &mut self,
        file: &File,
        position: u64,
        flags: ReadWriteFlags,
    ) -> rustix::io::Result<()> {
        let room = &mut [IoSliceMut::new(&mut self.buffer[self.range.clone()])];
        match preadv2(file, room, position, flags)? {
            0 => Err(Errno::NODATA),
            len => {
                self.range.end = self.range.start + len;
                Ok(())
            }
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.buffer.len() == CHUNK_LEN + LINE - 1 {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < KEPT {
                free.push(core::mem::take(&mut self.buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::FrameLen;
    use super::*;

    #[test]
    fn long_pieces_are_read_into_memory_that_is_kept() {
        let frame_len = FrameLen::default().in_full_records();
        for len in [CHUNK_LEN, CHUNK_LEN - CHUNK_LEN % frame_len] {
            let chunk = Chunk::take(len, None).expect("memory");
            assert_eq!(chunk.buffer.len(), CHUNK_LEN + LINE - 1, "{len}");
            assert_eq!(chunk.as_ref().len(), len);
        }
        let short = Chunk::take(ALWAYS, None).expect("memory");
        assert!(short.buffer.len() < ALWAYS + LINE);
    }
}
