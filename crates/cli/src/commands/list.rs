//! Lists of objects, as the server prints them.

use clap::Args;

use crate::config::Cloud;
use crate::{api, table};

/// How a list is shown.
#[derive(Args)]
pub struct List {
    /// All columns
    #[arg(long)]
    wide: bool,
    /// Only those with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

impl List {
    /// Prints the collection.
    pub async fn show(self, cloud: &Cloud, group: &str, plural: &str) -> anyhow::Result<()> {
        let query = self.selector.map(|s| format!("?labelSelector={}", encode(&s))).unwrap_or_default();
        table::print(&api::table(cloud, &api::path(cloud, group, plural, &query)).await?, self.wide);
        Ok(())
    }
}

/// Encodes a value for a query.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
