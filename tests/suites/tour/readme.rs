//! The tour in README.md: generated from the real output of its lines, so that it stays true.
//!
//! Only the commands are compared: times, addresses and hashes differ with every run.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::names;

use super::terminal::Terminal;

const BEGIN: &str = "<!-- tour:begin -->";
const END: &str = "<!-- tour:end -->";

/// The longest output of one line that the README shows; of a longer one its beginning and its end.
const LINES_SHOWN: usize = 60;

/// Compares the README's commands with those of the transcript, or writes the tour when `UPDATE=1` is set.
pub fn check_or_update(transcript: &[(String, String)], terminal: &Terminal) -> Result<()> {
    let path = names::repository().join("README.md");
    let Ok(text) = fs::read_to_string(&path) else {
        // Nothing to show, nothing that could be untrue.
        ensure!(transcript.is_empty(), "there is no README.md; write it with the two markers {BEGIN} and {END}");
        return Ok(());
    };
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        let tour = render(transcript, &Normal::of(terminal));
        return fs::write(&path, replace(&text, &tour)?).with_context(|| format!("write {}", path.display()));
    }
    let found = commands(block(&text)?);
    let expected: Vec<&str> = transcript.iter().map(|(line, _)| line.as_str()).collect();
    ensure!(
        found == expected,
        "the tour has other commands than the test; run with UPDATE=1\nexpected:\n{}\nfound:\n{}",
        expected.join("\n"),
        found.join("\n"),
    );
    Ok(())
}

/// The differences between this run and a user's, each with the text that the README shows.
struct Normal {
    replacements: Vec<(String, String)>,
}

impl Normal {
    fn of(terminal: &Terminal) -> Normal {
        let clone = terminal.clone.display().to_string();
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_default();
        let mut replacements = vec![
            (format!("{}/examples", terminal.here.display()), "examples".to_owned()),
            (terminal.home.display().to_string(), "~".to_owned()),
            (terminal.instance.clone(), "evroc".to_owned()),
        ];
        if !target.is_empty() {
            replacements.push((target, "target".to_owned()));
        }
        replacements.push((clone, "~/evroc".to_owned()));
        // The usual instance is not named.
        replacements.push((" --instance evroc".to_owned(), String::new()));
        replacements.push(("EVROC_INSTANCE=evroc ".to_owned(), String::new()));
        // The name server is this machine's; 192.0.2.0/24 is for documents.
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers = resolver.lines().filter_map(|line| line.strip_prefix("nameserver "));
        replacements.extend(servers.map(|server| (server.trim().to_owned(), "192.0.2.53".to_owned())));
        Normal { replacements }
    }

    fn apply(&self, text: &str) -> String {
        let named = self.replacements.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let ports = usual_ports(&named);
        // Only a test asks for any free port.
        let lines = ports.lines().map(str::trim_end).filter(|line| !line.contains(" is kept from now on"));
        lines.collect::<Vec<_>>().join("\n").replace('\r', "")
    }
}

/// Any port of this run as the one that a user gets: 6443 on an address; on a name 443, which is left out.
fn usual_ports(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(':') {
        let digits = rest[at + 1..].chars().take_while(char::is_ascii_digit).count();
        let before = &rest[..at];
        let usual = if digits < 4 {
            None
        } else if before.ends_with("127.0.0.1") || before.ends_with("[::1]") {
            Some("6443")
        } else if before.ends_with(".localhost") {
            Some("")
        } else {
            None
        };
        out.push_str(before);
        match usual {
            Some("") => {}
            Some(port) => out.push_str(&format!(":{port}")),
            None => out.push_str(&rest[at..at + 1 + digits]),
        }
        rest = &rest[at + 1 + digits..];
    }
    out + rest
}

fn render(transcript: &[(String, String)], normal: &Normal) -> String {
    let mut text = String::from("```console\n");
    for (line, output) in transcript {
        text += &format!("$ {line}\n");
        let output = normal.apply(output);
        let lines: Vec<&str> = without_compiler(&output);
        let left_out = lines.len().saturating_sub(LINES_SHOWN);
        for (number, shown) in lines.iter().enumerate() {
            match number {
                _ if left_out == 0 || number < LINES_SHOWN / 2 || number >= LINES_SHOWN / 2 + left_out => {
                    text += &format!("{shown}\n");
                }
                _ if number == LINES_SHOWN / 2 => text += &format!("… {left_out} more lines\n"),
                _ => {}
            }
        }
    }
    text + "```\n"
}

/// Returns the lines without cargo's progress output, which depends on what was built before.
fn without_compiler(output: &str) -> Vec<&str> {
    let mut building = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in output.lines() {
        if line.starts_with("== ") {
            building = line == "== build";
        } else if building {
            continue;
        }
        lines.push(line);
    }
    lines
}

fn block(text: &str) -> Result<&str> {
    let Some((_, rest)) = text.split_once(BEGIN) else { bail!("the marker {BEGIN} is missing") };
    let Some((block, _)) = rest.split_once(END) else { bail!("the marker {END} is missing") };
    Ok(block)
}

fn replace(text: &str, tour: &str) -> Result<String> {
    // By place, not by content: the text between the markers may occur elsewhere too.
    block(text)?;
    let begin = text.find(BEGIN).map_or(0, |at| at + BEGIN.len());
    let end = text.find(END).unwrap_or(text.len());
    Ok(format!("{}\n{tour}{}", &text[..begin], &text[end..]))
}

fn commands(block: &str) -> Vec<&str> {
    block.lines().filter_map(|line| line.strip_prefix("$ ")).collect()
}

#[test]
fn the_block_is_replaced_and_read_back() {
    let normal = Normal { replacements: vec![("evt-1".into(), "evroc".into())] };
    let transcript = [(
        "make run".to_owned(),
        "cloud evt-1 at https://127.0.0.1:40123\r\nsee https://console.evroc.localhost:8443/x".to_owned(),
    )];
    let text =
        replace(&format!("# Title\n{BEGIN}\nold\n{END}\nrest\n"), &render(&transcript, &normal)).expect("markers");
    assert!(text.contains("cloud evroc at https://127.0.0.1:6443\nsee https://console.evroc.localhost/x\n"), "{text}");
    assert!(text.ends_with(&format!("{END}\nrest\n")) && !text.contains("old"), "{text}");
    assert_eq!(commands(block(&text).expect("block")), ["make run"]);
    let empty = replace(&format!("# Title\n\n{BEGIN}\n{END}\n"), "tour\n").expect("markers");
    assert_eq!(empty, format!("# Title\n\n{BEGIN}\ntour\n{END}\n"));
}
