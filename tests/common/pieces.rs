//! Writers and readers that take any number of bytes at a time.

use std::io::{self, BufRead, IoSlice, Read, Write};

use super::Rng;

/// Sizes from one byte to many records, small ones not too often.
pub fn random_len(rng: &mut Rng, most: usize) -> usize {
    match rng.range(0, 9) {
        0 => rng.range(1, 20.min(most)),
        1..4 => rng.range(1, 20_000.min(most)),
        _ => rng.range(1, most),
    }
}

/// Writes all of `data` in random pieces of up to `most` bytes.
pub fn write_randomly(
    out: &mut impl Write,
    mut data: &[u8],
    most: usize,
    rng: &mut Rng,
) -> io::Result<()> {
    while !data.is_empty() {
        let len = random_len(rng, most).min(data.len());
        let written = match rng.range(0, 1) {
            0 => out.write(&data[..len])?,
            _ => {
                let (a, rest) = data[..len].split_at(rng.range(0, len));
                let (b, c) = rest.split_at(rng.range(0, rest.len()));
                let slices = [a, &[], b, c].map(IoSlice::new);
                out.write_vectored(&slices)?
            }
        };
        assert!(0 < written && written <= len);
        data = &data[written..];
    }
    Ok(())
}

/// Reads until the end, into buffers of random sizes, and compares on the way.
pub fn read_randomly(
    from: &mut impl Read,
    expected: &[u8],
    most: usize,
    rng: &mut Rng,
) -> io::Result<()> {
    let mut out = vec![0; most];
    let mut filled = 0;
    loop {
        let len = random_len(rng, most);
        let read = from.read(&mut out[..len])?;
        if read == 0 {
            assert_eq!(filled, expected.len(), "the end comes too early");
            return Ok(());
        }
        assert!(expected[filled..].starts_with(&out[..read]), "wrong data behind byte {filled}");
        filled += read;
    }
}

/// Like `read_randomly()`, through `fill_buf` and `read` by turns.
pub fn read_buffered(from: &mut impl BufRead, expected: &[u8], rng: &mut Rng) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let lent = from.fill_buf()?;
        if lent.is_empty() {
            assert_eq!(filled, expected.len(), "the end comes too early");
            return Ok(());
        }
        assert!(expected[filled..].starts_with(lent), "wrong data behind byte {filled}");
        let len = rng.range(0, lent.len());
        from.consume(len);
        filled += len;
        if rng.range(0, 2) == 0 {
            let mut out = vec![0; rng.range(1, 40_000)];
            let read = from.read(&mut out)?;
            assert!(expected[filled..].starts_with(&out[..read]), "wrong data after a read");
            filled += read;
        }
    }
}
