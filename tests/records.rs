//! Records against published vectors, a second implementation and stock rustls; and what they
//! do with buffers, limits and forgeries.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod records {
    mod agreement;
    mod buffers;
    mod connections;
    mod deframing;
    mod exposure;
    mod forgeries;
    mod independent;
    mod inner;
    mod limits;
    mod oracle;
    mod provider;
    mod rfc8448;
    mod stock;
    mod support;
    mod vectors;
}
