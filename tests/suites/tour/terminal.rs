//! One user's terminal: lines are typed into the same shell session, so that what one exports the next one sees.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use evroc_tests::process::{self, Output, Running};

/// A terminal of its own: home folder, working folder, instance name.
pub struct Terminal {
    /// The instance that the tour's commands work on.
    pub instance: String,
    /// The user's home folder; temporary, so that no test touches a developer's own.
    pub home: PathBuf,
    /// The clone that `make` runs in.
    pub clone: PathBuf,
    /// The user's working folder: `examples/` rendered for this instance.
    pub here: PathBuf,
    variables: BTreeMap<String, String>,
    shell_state: PathBuf,
}

impl Terminal {
    /// Opens a terminal below `folder`, for an instance that does not exist yet.
    pub fn open(instance: &str, clone: &Path, folder: &Path) -> Result<Terminal> {
        let (home, here) = (folder.join("home"), folder.join("here"));
        for path in [&home, &here] {
            fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        }
        // The user works in the clone; this folder has only the files that the README names, because the examples are this instance's
        // own.
        std::os::unix::fs::symlink(clone.join("scripts"), here.join("scripts")).context("link the clone's scripts")?;
        let own_home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let or_in_home = |name: &str, folder: &str| {
            let value = std::env::var(name).unwrap_or_else(|_| format!("{own_home}/{folder}"));
            (name.to_owned(), value)
        };
        let mut variables = BTreeMap::from([
            or_in_home("CARGO_HOME", ".cargo"),
            or_in_home("RUSTUP_HOME", ".rustup"),
            ("HOME".to_owned(), home.display().to_string()),
            ("EVROC_INSTANCE".to_owned(), instance.to_owned()),
            // What the other stages have built; the tour of the fresh machine builds what a new user gets.
            ("EVROC_PROFILE".to_owned(), "dev".to_owned()),
            // Any free port: a cloud from `make run` may have the usual ones.
            ("EVROC_UP_FLAGS".to_owned(), "--api-port 0 --https-port 0 --uplink none".to_owned()),
            ("EVROC_EXAMPLES".to_owned(), here.join("examples").display().to_string()),
            ("TERM".to_owned(), "dumb".to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
        ]);
        let path = std::env::var("PATH").unwrap_or_default();
        variables.insert("PATH".to_owned(), format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
        let shell_state = folder.join("shell-state");
        fs::write(&shell_state, "").context("begin the shell's state")?;
        Ok(Terminal { instance: instance.to_owned(), home, clone: clone.to_path_buf(), here, variables, shell_state })
    }

    /// Sets a variable for the lines that are typed from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Types one line and waits for its end.
    pub fn type_line(&self, line: &str, within: Duration) -> Result<Output> {
        // Variables that the line exports are kept for the next one, as in a terminal that stays open.
        let script = format!("{}\n__code=$?\nexport -p >\"$EVROC_SHELL_STATE\"\nexit $__code", line);
        process::run(&mut self.shell(&script), within)
    }

    /// Types one line and leaves it running, while the caller does something else.
    pub fn begin_line(&self, line: &str) -> Result<Running> {
        Running::start(&mut self.shell(line), false)
    }

    /// Types one line and talks to the program it starts; a terminal of its own makes the program believe in a person.
    pub fn converse(&self, line: &str) -> Result<Running> {
        let mut command = self.shell("exec script --quiet --return --flush --command \"$EVROC_LINE\" /dev/null");
        command.env("EVROC_LINE", line);
        Running::start(&mut command, true)
    }

    /// A command outside the shell session with the same variables.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.here).envs(&self.variables);
        command
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.command("bash");
        let state = self.shell_state.display().to_string();
        let place = if script.starts_with("make ") { &self.clone } else { &self.here };
        command.current_dir(place).env("EVROC_SHELL_STATE", &state);
        command.arg("-c").arg(format!(". \"$EVROC_SHELL_STATE\"\nexport EVROC_SHELL_STATE={state}\n{script}"));
        command
    }
}
