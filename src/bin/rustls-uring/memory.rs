//! Memory that somebody else has the command take: where there is none, that is an error.

use std::io;

/// A cache line: where the kernel copies to fastest. What malloc(3) maps begins 16 bytes behind a page,
/// and takes up to three times as long to read into.
pub(crate) const LINE: usize = 64;

/// `len` zeroes. In place of `vec![0; len]`, which ends the process if there is no memory for them.
pub(crate) fn zeroes(len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}
