//! The data path against containers played by tasks.
