mod authority;
mod authz;
mod files;
mod identity;
mod rotation;
mod token;
mod user_files;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A fixed moment: 2026-11-21.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_219_200)
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}
