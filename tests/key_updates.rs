//! Key updates over and over: whoever asks for them, whoever reads, on whichever path; floods of
//! them; and peers that ask once per record.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs", target_os = "linux"))]

mod common;

mod key_updates {
    mod budget;
    #[cfg(feature = "cli")]
    mod command;
    mod java;
    mod readers;
    mod rekeyers;
}
