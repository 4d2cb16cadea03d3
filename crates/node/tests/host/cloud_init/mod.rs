//! Seeds as cloud-init itself reads them. Debian's cloud-init, in a system of Debian packages that `scripts/cloud-init` makes, gets the
//! seeds that this host's agent would write for every form of user data, and the effects are compared with those that were meant.

mod forms;
mod ssh_keys;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evroc_api::user_data;
use evroc_node::seed::{self, GUEST_USER, SeedInput};

use forms::{Form, KEYS};

/// The effects of a seed.
struct Outcome {
    hostname: String,
    /// The line of [`GUEST_USER`] in `passwd`; empty without one.
    user: String,
    /// The authorized keys of all users.
    keys: BTreeSet<String>,
    /// The lines that user data wrote.
    ran: String,
    log: String,
}

/// The systems to run in, by Debian release.
fn systems() -> Vec<(String, PathBuf)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/cloud-init");
    let output = Command::new(script).arg("--list").output().expect("scripts/cloud-init runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let system = |line: &str| {
        let (release, folder) = line.split_once(' ')?;
        assert_ne!(folder, "-", "there is no system of {release}: run scripts/cloud-init");
        Some((release.to_owned(), PathBuf::from(folder)))
    };
    let systems: Vec<_> = text.lines().filter_map(system).collect();
    assert!(!systems.is_empty(), "scripts/cloud-init --list: {text}");
    systems
}

fn input(form: &Form) -> SeedInput {
    SeedInput {
        instance_id: uuid::Uuid::new_v4().to_string(),
        hostname: form.name.replace(' ', "-"),
        authorized_keys: form.keys.iter().map(|key| (*key).to_owned()).collect(),
        user_data: form.user_data.clone(),
    }
}

/// Lets cloud-init read the seeds of all forms.
fn boot(system: &Path, forms: &[Form]) -> BTreeMap<&'static str, Outcome> {
    let folder = tempfile::Builder::new().prefix("evroc-ci-").tempdir().unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/cloud_init");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/debian.12-0.1/root/etc/cloud/cloud.cfg.d");
    let settings = folder.path().join("settings");
    std::fs::create_dir(&settings).unwrap();
    std::fs::copy(own.join("settings.cfg"), settings.join("95_test.cfg")).unwrap();
    std::fs::copy(image.join("90_evroc.cfg"), settings.join("90_evroc.cfg")).unwrap();
    std::fs::write(settings.join("included"), forms::INCLUDED).unwrap();
    let folder_of = |form: &Form| folder.path().join(form.name);
    for form in forms {
        std::fs::create_dir(folder_of(form)).unwrap();
        std::fs::write(folder_of(form).join("seed"), seed::build(&input(form)).unwrap()).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]).arg(own.join("run")).arg(system).arg(&settings);
    let output = command.args(forms.iter().map(folder_of)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome = |form: &Form| {
        let read = |name: &str| {
            let bytes = std::fs::read(folder_of(form).join("out").join(name));
            String::from_utf8_lossy(&bytes.unwrap_or_else(|error| panic!("{}: {name}: {error}", form.name)))
                .into_owned()
        };
        let lines = read("keys");
        // cloud-init writes them in no order.
        let keys: BTreeSet<String> = lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let text = |name: &str| read(name).trim().to_owned();
        Outcome { hostname: text("hostname"), user: text("user"), keys, ran: text("ran"), log: read("log") }
    };
    forms.iter().map(|form| (form.name, outcome(form))).collect()
}

/// The part of the log that explains a failure.
fn last(outcome: &Outcome) -> String {
    let is_telling = |line: &&str| line.contains("WARNING") || line.contains("ERROR") || line.contains("Error");
    outcome.log.lines().filter(is_telling).collect::<Vec<_>>().join("\n")
}

#[test]
fn cloud_init_does_what_every_form_of_user_data_says() {
    let forms = forms::all();
    for (release, system) in systems() {
        let outcomes = boot(&system, &forms);
        for form in &forms {
            let outcome = &outcomes[form.name];
            let of = format!("{release}, {}", form.name);
            assert_eq!(outcome.hostname, form.name.replace(' ', "-"), "{of}: {}", last(outcome));
            assert_eq!(outcome.ran, form.writes, "{of}: {}", last(outcome));
            let expected: BTreeSet<String> = form.applied_keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(outcome.keys, expected, "{of}: {}", last(outcome));
            assert_eq!(!outcome.user.is_empty(), form.has_user, "{of}: {}", outcome.user);
            // The warning at creation says what cloud-init does, no more and no less.
            let own = form.user_data.as_deref().filter(|text| !text.is_empty());
            let decoded = own.map(user_data::decode);
            let is_ignored = own.is_some() && form.writes.is_empty() && form.applied_keys.is_empty();
            let warning = decoded.as_ref().and_then(user_data::unrecognised);
            assert_eq!(warning.is_some(), is_ignored, "{of}: {warning:?}");
            if let Some(decoded) = decoded {
                let is_applied = !form.applied_keys.is_empty();
                assert_eq!(user_data::references_keys(&decoded.bytes), is_applied, "{of}");
            }
        }
        let user = &outcomes["no user data"].user;
        assert!(user.starts_with(&format!("{GUEST_USER}:x:")) && user.ends_with(":/bin/bash"), "{user}");
    }
}

/// PyYAML, which cloud-init reads seeds with, takes all that a key may hold.
#[test]
fn every_character_of_a_key_is_read_by_pythons_yaml() {
    let characters: Vec<char> = ('\u{1}'..='\u{ffff}').chain(['\u{10000}', '\u{1f600}', '\u{10ffff}']).collect();
    let accepted = |it: &&char| evroc_api::ssh_key::problem(&format!("{} x{it}x", KEYS[0])).is_none();
    let accepted: Vec<char> = characters.iter().filter(accepted).copied().collect();
    assert!(accepted.len() > 63_000, "{}", accepted.len());
    let keys: Vec<String> =
        characters.chunks(1_000).map(|chunk| format!("{} {}.", KEYS[0], String::from_iter(chunk))).collect();
    let input = SeedInput { authorized_keys: keys.clone(), user_data: None, ..input(&forms::all()[0]) };
    let code = "import sys, json, yaml\n\
                m, u = [yaml.safe_load(text) for text in json.load(sys.stdin)[:2]]\n\
                json.dump([m['public-keys'], u['users'][0]['ssh_authorized_keys'], m['instance-id']], sys.stdout)\n";
    let files: Vec<String> =
        seed::files(&input).into_iter().map(|(_, content)| String::from_utf8(content).unwrap()).collect();
    for (release, system) in systems() {
        let mut python = Command::new("chroot")
            .arg(system)
            .args(["/usr/bin/python3", "-B", "-c", code])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let text = serde_json::to_vec(&files).unwrap();
        python.stdin.take().unwrap().write_all(&text).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{release}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found, serde_json::json!([keys, keys, input.instance_id]), "{release}");
    }
}
