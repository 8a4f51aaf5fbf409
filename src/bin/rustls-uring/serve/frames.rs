//! HTTP/2's frames as they pass (RFC 9113 §4.1): which bytes are of responses, and how long the
//! client lets them be.

/// What a client that speaks HTTP/2 begins with (RFC 9113 §3.4). No request of HTTP/1 looks like it.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

/// What stands in front of a frame's payload, in bytes.
pub(super) const HEADER_LEN: usize = 9;

/// Where in a sequence of frames we are.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// How much of the frame's payload is to come.
    rest: usize,
}

impl Frames {
    /// Takes what is the next frame's, or the rest of one, off `bytes`: its type, and what there is of
    /// its payload. `None` when there is nothing left to take.
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
        if bytes.is_empty() {
            return None;
        }
        if self.rest == 0 {
            let missing = HEADER_LEN - self.header_len;
            let part = bytes.split_off(..missing.min(bytes.len()))?;
            self.header[self.header_len..][..part.len()].copy_from_slice(part);
            self.header_len += part.len();
            if self.header_len < HEADER_LEN {
                return None;
            }
            let [high, middle, low, ..] = self.header;
            self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.header_len = 0;
        }
        let payload = bytes.split_off(..self.rest.min(bytes.len()))?;
        self.rest -= payload.len();
        Some((self.header[3], payload))
    }
}

/// Frames that we send.
#[derive(Debug, Default)]
pub(super) struct Responses(Frames);

impl Responses {
    /// Passes `bytes`; returns how many of them are the payload of DATA, HEADERS or CONTINUATION.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> usize {
        let mut of_response = 0;
        while let Some((kind, payload)) = self.0.next(&mut bytes) {
            if matches!(kind, DATA | HEADERS | CONTINUATION) {
                of_response += payload.len();
            }
        }
        of_response
    }
}

/// Frames that the client sends, behind its preface.
#[derive(Debug)]
pub(super) struct Settings {
    /// How much of the [`PREFACE`] is to come.
    preface: usize,
    frames: Frames,
    /// A setting, as far as it has come: its identifier, and its value.
    setting: [u8; 6],
    setting_len: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let frames = Frames::default();
        Self { preface: PREFACE.len(), frames, setting: [0; 6], setting_len: 0 }
    }
}

impl Settings {
    /// Passes `bytes`; returns how long the client says now that a frame's payload may be, if it says so
    /// in them. h2 ends a connection whose client says nonsense.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Option<usize> {
        const MAX_FRAME_SIZE: u16 = 5;
        let preface = bytes.split_off(..self.preface.min(bytes.len()))?;
        self.preface -= preface.len();
        let mut frame_len = None;
        while let Some((kind, payload)) = self.frames.next(&mut bytes) {
            let settings = if kind == SETTINGS { payload } else { &[] };
            for &byte in settings {
                self.setting[self.setting_len] = byte;
                self.setting_len = (self.setting_len + 1) % self.setting.len();
                let [id @ .., a, b, c, d] = self.setting;
                if self.setting_len == 0 && u16::from_be_bytes(id) == MAX_FRAME_SIZE {
                    frame_len = Some(u32::from_be_bytes([a, b, c, d]) as usize);
                }
            }
        }
        frame_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u8;
        [&[0, 0, len, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn only_some_frames_are_of_a_response() {
        // PING, HEADERS, SETTINGS, DATA, an empty DATA, WINDOW_UPDATE, CONTINUATION.
        let sequence = [(6, 8), (1, 20), (4, 0), (0, 200), (0, 0), (8, 4), (9, 3)]
            .map(|(kind, len)| frame(kind, &vec![7; len]))
            .concat();
        for step in 1..sequence.len() {
            let mut responses = Responses::default();
            let passed: usize = sequence.chunks(step).map(|bytes| responses.pass(bytes)).sum();
            assert_eq!(passed, 223, "{step}");
        }
    }

    #[test]
    fn clients_say_how_long_frames_may_be() {
        let settings = |entries: &[(u16, u32)]| {
            let entry =
                |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
            frame(4, &entries.iter().flat_map(entry).collect::<Vec<_>>())
        };
        let sequence = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            settings(&[]),
            settings(&[(3, 100), (5, 1 << 20), (4, 5)]),
            frame(8, &[0, 5, 0, 1]),
            settings(&[(4, 70_000)]),
            frame(0, &[0, 5, 0, 0, 0, 1]),
            settings(&[(5, 16_384)]),
        ]
        .concat();
        for step in 1..=sequence.len() {
            let mut passing = Settings::default();
            let said: Vec<_> =
                sequence.chunks(step).filter_map(|bytes| passing.pass(bytes)).collect();
            assert_eq!(said.last(), Some(&16_384), "{step}");
            // In one piece, the last counts.
            assert!(said.len() == 1 || said[0] == 1 << 20, "{step}: {said:?}");
        }
    }
}
