//! A cloud of a random name, started as a user starts it, and removed without a trace.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use evroc_tests::leftovers::{Leftover, Snapshot};
use evroc_tests::names;

use super::terminal::Terminal;

/// How much of each log a failure shows.
const LOG_LINES: usize = 15;

/// One instance of the product.
pub struct Cloud {
    /// The terminal of its user.
    pub terminal: Terminal,
    folder: PathBuf,
    purged: bool,
}

impl Cloud {
    /// Chooses a name and makes the user's folders; nothing is started.
    pub fn prepare() -> Result<Cloud> {
        let instance = names::random();
        // The user's folder is not the instance's: its purge need not remove it.
        let folder = std::env::temp_dir().join(format!("{instance}-user"));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let terminal = Terminal::open(&instance, &names::repository(), &folder)?;
        Ok(Cloud { terminal, folder, purged: false })
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.terminal.instance
    }

    /// The ends of the instance's logs, for a failure.
    pub fn last_words(&self) -> String {
        let folder = PathBuf::from("/var/lib").join(self.instance()).join("log");
        let mut printed = String::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
            printed += &format!("--- end of {}\n{}\n", entry.path().display(), end.join("\n"));
        }
        printed
    }

    /// Stops the instance, removes its state, and returns its leftovers on the machine.
    pub fn purge(&mut self) -> Vec<Leftover> {
        self.purged = true;
        let line = "PATH=\"$PATH:$EVROC_CLONE/.tools/bin\" evrocd down --purge --instance \"$EVROC_INSTANCE\"";
        let clone = self.terminal.clone.display().to_string();
        self.terminal.set("EVROC_CLONE", &clone);
        let printed = self.terminal.type_line(line, Duration::from_secs(60));
        if let Ok(output) = printed.as_ref().map(|output| output.both.trim()) {
            println!("purge: {output}");
        }
        let _ = fs::remove_dir_all(&self.folder);
        Snapshot::take().of_instance(self.instance())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if !self.purged {
            self.purge();
        }
    }
}
