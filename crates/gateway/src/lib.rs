//! HTTPS data path: TLS, routing, holding requests at zero.
