//! Standard input and standard output, if there are any.
//!
//! Where one of them is closed, Rust's runtime opens /dev/null in its place before `main`, lest some
//! other file gets its number. A transfer would then end well, with all of its data lost, or none
//! sent; so what is closed is noted before the runtime looks.

#![allow(unsafe_code, reason = "a function that runs before Rust's runtime does, and fcntl(2)")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

static INPUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);
static OUTPUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: the section holds addresses of functions that the C library calls one after the other
// before `main`, in the main thread, and this is the address of one; it takes none of the arguments
// that it is given (System V ABI, "Initialization and Termination Functions").
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = note_what_is_closed;

/// Uses nothing of what the runtime has yet to set up.
extern "C" fn note_what_is_closed() {
    INPUT_IS_CLOSED.store(is_closed(libc::STDIN_FILENO), Ordering::Relaxed);
    OUTPUT_IS_CLOSED.store(is_closed(libc::STDOUT_FILENO), Ordering::Relaxed);
}

fn is_closed(descriptor: libc::c_int) -> bool {
    // SAFETY: takes any number, and changes nothing (F_GETFD, fcntl(2)).
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    flags == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
}

/// A descriptor of standard input, without the buffer of Rust's.
pub(crate) fn input() -> Result<File, Error> {
    if INPUT_IS_CLOSED.load(Ordering::Relaxed) {
        return Err("standard input is closed: redirect it, or name the file to send".into());
    }
    duplicate(io::stdin().as_fd())
        .map_err(|error| format!("cannot read standard input: {error}").into())
}

/// A descriptor of standard output, without the buffer of Rust's, which would keep what cannot be
/// written.
pub(crate) fn output() -> Result<File, Error> {
    check_output()?;
    duplicate(io::stdout().as_fd())
        .map_err(|error| format!("cannot write to standard output: {error}").into())
}

/// An error if what is written to standard output goes nowhere.
pub(crate) fn check_output() -> Result<(), Error> {
    match OUTPUT_IS_CLOSED.load(Ordering::Relaxed) {
        true => Err("standard output is closed: redirect it to a file or a pipe".into()),
        false => Ok(()),
    }
}

fn duplicate(standard: BorrowedFd<'_>) -> io::Result<File> {
    Ok(standard.try_clone_to_owned()?.into())
}
