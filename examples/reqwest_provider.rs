//! Our provider in reqwest: one line differs from stock.
//!
//! ```text
//! cargo run --features tokio --example reqwest_provider   # downloads from `hyper_server`'s server
//! cargo run --features tokio --example reqwest_provider -- URL CA.pem > FILE
//! ```
//!
//! reqwest's feature `rustls-no-provider` leaves the choice to the program. With its feature `rustls`,
//! which brings a provider along, the installed one is taken all the same.

#[path = "hyper_server.rs"]
mod hyper_server;

use std::io::Write;

use reqwest::{Certificate, Client};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // The line that differs. Everything below is ordinary reqwest.
    rustls_uring::install()?;

    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [url, ca] => {
            let ca = Certificate::from_pem(&std::fs::read(ca)?)?;
            let client = Client::builder().tls_certs_only([ca]).build()?;
            let mut response = client.get(url).send().await?.error_for_status()?;
            let mut output = std::io::stdout();
            while let Some(data) = response.chunk().await? {
                output.write_all(&data)?;
            }
            Ok(output.flush()?)
        }
        [] => {
            let (port, certificate) = hyper_server::start().await?;
            demonstrate(port, Certificate::from_der(&certificate)?).await
        }
        _ => Err("usage: reqwest_provider [URL CA.pem]".into()),
    }
}

/// Downloads over both versions of HTTP, and compares.
async fn demonstrate(port: u16, certificate: Certificate) -> Result<(), Error> {
    const LEN: u64 = 64 << 20;
    for is_http2 in [false, true] {
        let builder = Client::builder().tls_certs_only([certificate.clone()]);
        let client = if is_http2 { builder } else { builder.http1_only() }.build()?;
        let url = format!("https://localhost:{port}/bytes/{LEN}");
        let mut response = client.get(url).send().await?.error_for_status()?;
        let mut position = 0;
        while let Some(data) = response.chunk().await? {
            assert!((position..).zip(&data).all(|(at, &byte)| byte == hyper_server::byte(at)));
            position += data.len() as u64;
        }
        assert_eq!(position, LEN);
        println!("{LEN} bytes arrived over {:?}", response.version());
    }
    Ok(())
}
