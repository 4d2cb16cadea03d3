//! Suites over the finished product; see `tests/suites/main.rs`.
