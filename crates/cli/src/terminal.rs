//! The user's terminal: raw while a console is attached, as before afterwards, whatever happens.

use std::io::IsTerminal;

/// A terminal in raw mode; dropping it restores the terminal.
pub struct Raw;

impl Raw {
    /// Raw mode where standard input is a terminal; elsewhere nothing is changed.
    pub fn enter() -> anyhow::Result<Option<Self>> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        crossterm::terminal::enable_raw_mode()?;
        Ok(Some(Self))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = crossterm::terminal::disable_raw_mode() {
            eprintln!("the terminal could not be restored ({error}): type `reset`");
        }
    }
}
