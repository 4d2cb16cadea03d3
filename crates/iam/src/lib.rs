//! Certificates, tokens and authorisation decisions.
