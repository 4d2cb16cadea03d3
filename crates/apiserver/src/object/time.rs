//! Points in time as Kubernetes writes them.

use jiff::Timestamp;

/// RFC 3339 with whole seconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
