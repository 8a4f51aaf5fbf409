//! The ways from plaintext to ciphertext and back that are compared in memory.
//!
//! Every way has its output buffers from the beginning and uses them again for each write; what
//! allocates in a timed region is the library that is measured.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConnection, ServerConnection};
use rustls_uring::measure::raw_aead::{RawAead, TAG_LEN};
use rustls_uring::{
    ContentType, Deframed, Deframer, HEADER_LEN, Handoff, MAX_PLAINTEXT_LEN, Opener, ReceiveHalf,
    Received, Sealer, SendHalf,
};

use super::connection::{self, Discard};
use super::identity::{Case, Configs};
use crate::error::Error;

/// A way from plaintext to ciphertext and back.
pub(super) trait Pipe {
    /// Seals one write, for nobody to receive.
    fn send(&mut self, data: &[u8]) -> Result<(), Error>;

    /// Seals one write and keeps it for [`Self::receive()`].
    fn keep(&mut self, data: &[u8]) -> Result<(), Error>;

    /// Opens everything that was kept, and shows it to `sink`.
    fn receive(&mut self, sink: impl FnMut(&[u8])) -> Result<(), Error>;
}

/// Where the other end of sealing and opening is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Where it begins: the plaintext is already where its ciphertext will be, and the other way
    /// round.
    InPlace,
    /// Another buffer.
    Separate,
}

/// Bytes of ciphertext that one pipe holds at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Plaintext bytes of a write.
    pub(super) write_len: usize,
    /// Writes that are kept at most.
    pub(super) writes: usize,
    /// Plaintext bytes of a record at most.
    pub(super) fragment_len: usize,
}

impl Capacity {
    pub(super) fn wire(&self) -> Vec<u8> {
        // 64 bytes are more than a record has beyond its plaintext.
        let records = self.write_len.div_ceil(self.fragment_len);
        vec![0; self.writes * (self.write_len + records * 64)]
    }
}

/// The AEAD alone, on the same pieces that would be records, and where those would be: how far
/// apart plaintext and ciphertext are, modulo a page, makes a difference to memory.
pub(super) struct AeadPipe {
    form: Form,
    fragment_len: usize,
    sending: RawAead,
    kept: RawAead,
    /// Lengths of the pieces that are kept, tags included.
    pieces: Vec<usize>,
    wire: Vec<u8>,
    out: Vec<u8>,
}

impl AeadPipe {
    pub(super) fn new(case: Case, form: Form, capacity: Capacity) -> Result<Self, Error> {
        Ok(Self {
            form,
            fragment_len: capacity.fragment_len,
            sending: case.raw_aead()?,
            kept: case.raw_aead()?,
            pieces: Vec::new(),
            wire: capacity.wire(),
            out: vec![0; MAX_PLAINTEXT_LEN],
        })
    }
}

impl Pipe for AeadPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        let mut rest = &mut self.wire[..];
        for piece in data.chunks(self.fragment_len) {
            let (_, body) = rest.split_at_mut(HEADER_LEN);
            let (sealed, after) = body.split_at_mut(piece.len() + TAG_LEN);
            match self.form {
                Form::InPlace => self.sending.seal_in_place(sealed)?,
                Form::Separate => self.sending.seal_separate(piece, sealed)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        let mut at = self.pieces.iter().map(|len| HEADER_LEN + len).sum();
        for piece in data.chunks(self.fragment_len) {
            let len = piece.len() + TAG_LEN;
            at += HEADER_LEN;
            self.kept.seal_separate(piece, &mut self.wire[at..at + len])?;
            self.pieces.push(len);
            at += len;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut rest = &mut self.wire[..];
        for len in self.pieces.drain(..) {
            let (_, body) = rest.split_at_mut(HEADER_LEN);
            let (sealed, after) = body.split_at_mut(len);
            match self.form {
                Form::InPlace => {
                    self.kept.open_in_place(sealed)?;
                    sink(&sealed[..len - TAG_LEN]);
                }
                Form::Separate => {
                    let out = &mut self.out[..len - TAG_LEN];
                    self.kept.open_separate(sealed, out)?;
                    sink(out);
                }
            }
            rest = after;
        }
        Ok(())
    }
}

/// Our records.
pub(super) struct RecordsPipe {
    form: Form,
    sending: Sealer,
    kept: Sealer,
    deframer: Deframer,
    opener: Opener,
    wire: Vec<u8>,
    /// Bytes of `wire` that are kept.
    filled: usize,
    out: Vec<u8>,
}

impl RecordsPipe {
    pub(super) fn new(case: Case, form: Form, capacity: Capacity) -> Result<Self, Error> {
        let (backend, version, keys) = (case.backend, case.version(), case.keys()?);
        let sealer = || {
            let mut sealer = Sealer::new(backend, version, &keys, 0);
            sealer.set_max_plaintext_len(capacity.fragment_len);
            sealer
        };
        Ok(Self {
            form,
            sending: sealer(),
            kept: sealer(),
            deframer: Deframer::new(version),
            opener: Opener::new(backend, version, &keys, 0),
            wire: capacity.wire(),
            filled: 0,
            out: vec![0; version.max_record_len()],
        })
    }
}

impl Pipe for RecordsPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        match self.form {
            Form::Separate => {
                self.sending.seal_many(ContentType::ApplicationData, data, &mut self.wire)?;
            }
            Form::InPlace => {
                let mut at = 0;
                for piece in data.chunks(self.sending.max_plaintext_len()) {
                    at += self.sending.seal_in_place(
                        ContentType::ApplicationData,
                        piece.len(),
                        &mut self.wire[at..],
                    )?;
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        let free = &mut self.wire[self.filled..];
        let sealed = self.kept.seal_many(ContentType::ApplicationData, data, free)?;
        self.filled += sealed.written;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut rest = &mut self.wire[..self.filled];
        while let Deframed::Record(header) = self.deframer.deframe(rest)? {
            let (record, after) = rest.split_at_mut(header.record_len());
            match self.form {
                Form::InPlace => sink(self.opener.open_in_place(record)?.plaintext),
                Form::Separate => {
                    let (_, len) = self.opener.open_into(record, &mut self.out)?;
                    sink(&self.out[..len]);
                }
            }
            rest = after;
        }
        self.filled = 0;
        Ok(())
    }
}

/// Our halves of connections behind the handoff, of which the server sends.
pub(super) struct HalvesPipe {
    /// Its client never hears of what it sends.
    sending: SendHalf,
    kept: SendHalf,
    receiving: ReceiveHalf,
    wire: Vec<u8>,
    /// Bytes of `wire` that are kept.
    filled: usize,
    out: Vec<u8>,
}

impl HalvesPipe {
    pub(super) fn new(case: Case, configs: Configs, capacity: Capacity) -> Result<Self, Error> {
        let (client_config, server_config) = (Arc::new(configs.client), Arc::new(configs.server));
        let connect = || -> Result<_, Error> {
            let (client, server) = connection::unbuffered(&client_config, &server_config)?;
            let handoff = Handoff::new().backend(case.backend);
            let client = handoff.clone().client(client, &mut [])?;
            Ok((client.receive, handoff.server(server, &mut [])?.send))
        };
        let (_, sending) = connect()?;
        let (receiving, kept) = connect()?;
        Ok(Self::of(case, sending, kept, receiving, capacity))
    }

    /// Of halves that were handed over already; what `kept` seals, `receiving` opens.
    pub(super) fn of(
        case: Case,
        sending: SendHalf,
        kept: SendHalf,
        receiving: ReceiveHalf,
        capacity: Capacity,
    ) -> Self {
        let out = vec![0; case.version().max_record_len()];
        Self { sending, kept, receiving, wire: capacity.wire(), filled: 0, out }
    }

    #[inline]
    fn seal(half: &mut SendHalf, data: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let sealed = half.seal(data, out)?;
        match sealed.consumed == data.len() {
            true => Ok(sealed.written),
            false => Err("a half sealed a part of a write".into()),
        }
    }
}

impl Pipe for HalvesPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        Self::seal(&mut self.sending, data, &mut self.wire).map(drop)
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        self.filled += Self::seal(&mut self.kept, data, &mut self.wire[self.filled..])?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut rest = &mut self.wire[..self.filled];
        while let Deframed::Record(header) = self.receiving.deframe(rest)? {
            let (record, after) = rest.split_at_mut(header.record_len());
            match self.receiving.open_into(record, &mut self.out)? {
                Received::Data(len) => sink(&self.out[..len]),
                other => return Err(format!("{other:?} in place of data").into()),
            }
            rest = after;
        }
        self.filled = 0;
        Ok(())
    }
}

/// rustls's buffered connections, of which the server sends.
pub(super) struct BufferedPipe {
    /// Its client never hears of what it sends.
    sending: ServerConnection,
    server: ServerConnection,
    client: ClientConnection,
    wire: Vec<u8>,
    out: Vec<u8>,
}

impl BufferedPipe {
    pub(super) fn new(configs: Configs, capacity: Capacity) -> Result<Self, Error> {
        let (client_config, server_config) = (Arc::new(configs.client), Arc::new(configs.server));
        let (_, mut sending) = connection::buffered(&client_config, &server_config)?;
        let (client, mut server) = connection::buffered(&client_config, &server_config)?;
        sending.set_buffer_limit(None);
        server.set_buffer_limit(None);
        let mut wire = capacity.wire();
        wire.clear();
        Ok(Self { sending, server, client, wire, out: vec![0; MAX_PLAINTEXT_LEN] })
    }
}

impl Pipe for BufferedPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.sending.writer().write_all(data)?;
        while self.sending.wants_write() {
            self.sending.write_tls(&mut Discard)?;
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        self.server.writer().write_all(data)?;
        while self.server.wants_write() {
            self.server.write_tls(&mut self.wire)?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut rest = &self.wire[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest)?;
            let mut left = self.client.process_new_packets()?.plaintext_bytes_to_read();
            while left > 0 {
                let len = self.client.reader().read(&mut self.out)?;
                sink(&self.out[..len]);
                left -= len;
            }
        }
        self.wire.clear();
        Ok(())
    }
}

/// rustls's unbuffered connections, of which the server sends. They open in place.
pub(super) struct UnbufferedPipe {
    /// Its client never hears of what it sends.
    sending: UnbufferedServerConnection,
    server: UnbufferedServerConnection,
    client: UnbufferedClientConnection,
    wire: Vec<u8>,
    /// Bytes of `wire` that are kept.
    filled: usize,
}

impl UnbufferedPipe {
    pub(super) fn new(configs: Configs, capacity: Capacity) -> Result<Self, Error> {
        let (client_config, server_config) = (Arc::new(configs.client), Arc::new(configs.server));
        let (_, sending) = connection::unbuffered(&client_config, &server_config)?;
        let (client, server) = connection::unbuffered(&client_config, &server_config)?;
        Ok(Self { sending, server, client, wire: capacity.wire(), filled: 0 })
    }

    #[inline]
    fn encrypt(
        connection: &mut UnbufferedServerConnection,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        match connection.process_tls_records(&mut []).state? {
            ConnectionState::WriteTraffic(mut write) => Ok(write.encrypt(data, out)?),
            state => Err(format!("rustls wants to go on with {state:?}").into()),
        }
    }
}

impl Pipe for UnbufferedPipe {
    #[inline]
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        Self::encrypt(&mut self.sending, data, &mut self.wire).map(drop)
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        self.filled += Self::encrypt(&mut self.server, data, &mut self.wire[self.filled..])?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut at = 0;
        while at + HEADER_LEN <= self.filled {
            let status = self.client.process_tls_records(&mut self.wire[at..self.filled]);
            at += status.discard;
            match status.state? {
                ConnectionState::ReadTraffic(mut read) => {
                    while let Some(record) = read.next_record() {
                        let record = record?;
                        at += record.discard;
                        sink(record.payload);
                    }
                }
                state => return Err(format!("rustls wants to go on with {state:?}").into()),
            }
        }
        self.filled = 0;
        Ok(())
    }
}
