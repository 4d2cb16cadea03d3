//! Names of objects in arguments: they become parts of paths, and a wrong one is explained before anything is sent.

/// Reads a name, for `value_parser`.
///
/// # Errors
/// The form that was expected.
pub fn parse(text: &str) -> Result<String, String> {
    if evroc_api::names::is_object_name(text) {
        return Ok(text.to_owned());
    }
    Err("expected a name of lower-case letters, digits, '-' and '.', as `evroc … list` shows them".into())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Arguments;

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        for text in ["", "..", "a/b", "../x", "a?b", "a%2fb", "A", "-a", "a b", "a&previous=true"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("web-1.example").as_deref(), Ok("web-1.example"));
    }

    /// Every argument that is the name of an object is checked, those of commands to come as well.
    #[test]
    fn all_commands_check_names() {
        let mut commands = vec![(vec!["evroc".to_owned()], Arguments::command())];
        let mut checked = 0;
        while let Some((path, command)) = commands.pop() {
            for inner in command.get_subcommands() {
                let path = [path.clone(), vec![inner.get_name().to_owned()]].concat();
                commands.push((path, inner.clone()));
            }
            if !command.get_positionals().any(|argument| argument.get_id() == "name") {
                continue;
            }
            let rest = (path.last().map(String::as_str) == Some("proxy")).then(|| "22".to_owned());
            let line = |name: &str| path.iter().cloned().chain([name.to_owned()]).chain(rest.clone());
            assert!(Arguments::try_parse_from(line("web")).is_ok(), "{path:?}");
            assert!(Arguments::try_parse_from(line("../web")).is_err(), "{path:?} takes any text for a name");
            checked += 1;
        }
        assert!(checked >= 10, "{checked}");
        assert!(Arguments::try_parse_from(["evroc", "-n", "a/b", "run", "list"]).is_err());
    }
}
