//! HTTPS data path: TLS, routing, holding requests at zero.

pub mod dial;
