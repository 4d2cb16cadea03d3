//! The user's terminal: raw while a console is attached and restored afterwards, and protected from what guests and containers write.

use std::borrow::Cow;
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

/// Makes the output of a guest or container safe to print: on a terminal, control characters could rename the window, type into the shell or
/// hide other lines. Colours, tabs and line ends are kept; other control characters are shown as `^[` and the like. Output that does not
/// go to a terminal is left as it is.
pub fn printable(output: &[u8]) -> Cow<'_, [u8]> {
    if std::io::stdout().is_terminal() { shown(output) } else { Cow::Borrowed(output) }
}

/// The same wherever it goes.
pub fn shown(output: &[u8]) -> Cow<'_, [u8]> {
    if !output.iter().enumerate().any(|(at, _)| is_unsafe(&output[at..])) {
        return Cow::Borrowed(output);
    }
    let mut safe = Vec::with_capacity(output.len());
    let mut rest = output;
    while let [byte, after @ ..] = rest {
        let length = colour(rest);
        if length > 0 {
            safe.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match is_unsafe(rest) {
            // A control character of two bytes (U+0080 to U+009F).
            true if *byte == 0xc2 => {
                safe.extend_from_slice("\u{fffd}".as_bytes());
                rest = &after[1..];
                continue;
            }
            true => safe.extend([b'^', byte ^ 0x40]),
            false => safe.push(*byte),
        }
        rest = after;
    }
    Cow::Owned(safe)
}

/// Whether the bytes begin with a control character that does more than end a line or move to a column.
fn is_unsafe(bytes: &[u8]) -> bool {
    match bytes {
        [b'\n' | b'\t', ..] | [b'\r', b'\n', ..] => false,
        [0x00..=0x1f | 0x7f, ..] | [0xc2, 0x80..=0x9f, ..] => true,
        _ => false,
    }
}

/// The length of the colour sequence (`ESC [ 1 ; 31 m`) that the bytes begin with; 0 when there is none.
fn colour(bytes: &[u8]) -> usize {
    let Some(parameters) = bytes.strip_prefix(b"\x1b[") else { return 0 };
    let end = parameters.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';'));
    end.filter(|end| parameters[*end] == b'm').map_or(0, |end| end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_shown_and_colours_are_kept() {
        for (written, printed) in [
            ("plain\ttext\r\n", "plain\ttext\r\n"),
            ("\x1b[1;31mred\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n"),
            ("\x1b]0;title\x07", "^[]0;title^G"),
            ("\x1b[2J\x1b[H", "^[[2J^[[H"),
            ("real\rfake", "real^Mfake"),
            ("\x7f\u{9b}31m", "^?\u{fffd}31m"),
            ("äö€", "äö€"),
            ("\x1b[31", "^[[31"),
        ] {
            assert_eq!(String::from_utf8_lossy(&shown(written.as_bytes())), printed, "{written:?}");
        }
    }
}
