//! Requests of a client without credentials: tokens and certificates that no authority has issued.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;

use super::text::joined;
use super::{ATTEMPTS, Cost, FACTOR, MOST, Server, answer, average};
use crate::load::Sent;
use crate::target::Target;

/// The form in which a client states who it is.
#[derive(Clone, Copy)]
pub enum Introduction {
    /// `Authorization: Bearer …`.
    Token(fn(usize) -> String),
    /// A chain of certificates.
    Chain(fn(usize) -> Result<(rcgen::KeyPair, Vec<String>)>),
}

/// All cases, with their sizes.
pub fn cases() -> Vec<(&'static str, usize, Introduction)> {
    vec![
        ("a long token", 10_000, Introduction::Token(|n| "x".repeat(n))),
        ("a token of many parts", 10_000, Introduction::Token(|n| joined(n / 2, ".", |_| "x".into()))),
        // {"alg":"EdDSA"} and {"a":{"a":… in base64.
        (
            "a token of nested claims",
            10_000,
            Introduction::Token(|n| format!("eyJhbGciOiJFZERTQSJ9.{}.x", "eyJhIjp7".repeat(n / 8))),
        ),
        (
            "a certificate of many names",
            300,
            Introduction::Chain(|n| {
                let key = rcgen::KeyPair::generate()?;
                let names = (0..n).map(|i| format!("n{i}.example.com")).collect::<Vec<_>>();
                let certificate = rcgen::CertificateParams::new(names)?.self_signed(&key)?;
                Ok((key, vec![certificate.pem()]))
            }),
        ),
        (
            "a chain of authorities of one name",
            20,
            Introduction::Chain(|n| {
                let key = rcgen::KeyPair::generate()?;
                let mut parameters = rcgen::CertificateParams::new(vec![])?;
                parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                let chain: Result<Vec<String>, rcgen::Error> =
                    (0..n).map(|_| Ok(parameters.self_signed(&rcgen::KeyPair::generate()?)?.pem())).collect();
                let first = parameters.self_signed(&key)?.pem();
                Ok((key, [first].into_iter().chain(chain?).collect()))
            }),
        ),
    ]
}

/// Measures a case: tokens on one connection, certificates on one each.
pub async fn cost(target: &Target, server: &Server, size: usize, introduction: Introduction) -> Result<Cost> {
    let mut best: Option<Cost> = None;
    for _ in 0..ATTEMPTS {
        let (mut milliseconds, mut bytes, mut status) = ([0.0; 3], 0, 0);
        for (index, factor) in [1, 2, FACTOR].into_iter().enumerate() {
            let size = size * factor;
            let request = Sent::new(Method::GET, "/apis".into(), "application/json", Bytes::new());
            milliseconds[index] = match introduction {
                Introduction::Token(text) => {
                    let request = request.header("authorization", format!("Bearer {}", text(size)));
                    let connection = target.endpoint.of(None)?.connect()?;
                    bytes = size;
                    average(server, async || {
                        status = answer(&connection, &request).await?.0;
                        Ok(())
                    })
                    .await?
                }
                Introduction::Chain(make) => {
                    let (key, chain) = make(size)?;
                    bytes = chain.iter().map(String::len).sum::<usize>() * 3 / 4;
                    let endpoint = target.endpoint.of(Some((&chain.concat(), &key.serialize_pem())))?;
                    average(server, async || {
                        // Refused in the handshake, or with the first request.
                        status = answer(&endpoint.connect()?, &request).await.map_or(0, |it| it.0);
                        Ok(())
                    })
                    .await?
                }
            };
        }
        let cost = Cost { status, bytes, milliseconds };
        if best.as_ref().is_none_or(|best| cost.ratio() < best.ratio()) {
            best = Some(cost);
        }
        if best.as_ref().is_some_and(|best| best.ratio() <= MOST) {
            break;
        }
    }
    best.context("nothing was measured")
}
