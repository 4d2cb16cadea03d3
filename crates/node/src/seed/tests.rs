use std::io::Read;

use base64::Engine;
use proptest::prelude::*;

use super::*;

fn input(user_data: Option<&str>) -> SeedInput {
    SeedInput {
        instance_id: "3f0c6c5e-6a9f-4a55-8a0e-000000000001".into(),
        hostname: "hello".into(),
        authorized_keys: vec!["ssh-ed25519 AAAA me@here".into(), "ssh-rsa BBBB \"quoted\": x\n".into()],
        user_data: user_data.map(str::to_owned),
    }
}

fn read(disk: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut disk = disk.to_vec();
    let file_system = fatfs::FileSystem::new(Cursor::new(&mut disk[..]), fatfs::FsOptions::new()).unwrap();
    assert_eq!(file_system.volume_label(), "CIDATA");
    let mut content = Vec::new();
    file_system.root_dir().open_file(name).ok()?.read_to_end(&mut content).unwrap();
    Some(content)
}

#[test]
fn without_user_data_the_user_is_set_up() {
    let disk = build(&input(None)).unwrap();
    assert_eq!(disk.len(), 1 << 20);
    assert_eq!(disk, build(&input(None)).unwrap(), "same input, same bytes");
    assert_eq!(disk, build(&input(Some(""))).unwrap(), "an empty text is none");
    let meta: serde_json::Value = serde_json::from_slice(&read(&disk, "meta-data").unwrap()).unwrap();
    assert_eq!(meta["instance-id"], "3f0c6c5e-6a9f-4a55-8a0e-000000000001");
    assert_eq!(meta["local-hostname"], "hello");
    assert_eq!(meta["public-keys"], json!(["ssh-ed25519 AAAA me@here", "ssh-rsa BBBB \"quoted\": x"]));
    let expected = r#"#cloud-config
users:
- name: evroc-user
  gecos: evroc user
  shell: /bin/bash
  sudo: "ALL=(ALL) NOPASSWD:ALL"
  lock_passwd: true
  ssh_authorized_keys:
  - "ssh-ed25519 AAAA me@here"
  - "ssh-rsa BBBB \"quoted\": x"
ssh_pwauth: false
disable_root: true
"#;
    assert_eq!(String::from_utf8(read(&disk, "user-data").unwrap()).unwrap(), expected);
    assert_eq!(read(&disk, "vendor-data"), None);
}

#[test]
fn user_data_is_given_as_it_was_meant() {
    for text in [
        "#cloud-config\nhostname: x\n",
        "#!/bin/sh\necho  hi  \n",
        "## template: jinja\n#cloud-config\n",
        "\u{e4}\u{f6}\n\n",
        "no base64, and no header",
    ] {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        for given in [text.to_owned(), encoded, format!("\u{feff}{text}")] {
            let disk = build(&input(Some(&given))).unwrap();
            assert_eq!(read(&disk, "user-data").unwrap(), text.as_bytes(), "{given}");
        }
    }
}

#[test]
fn own_user_data_gets_the_keys_only_where_it_lists_the_default_user() {
    for (given, is_hidden) in [
        ("#cloud-config\nruncmd: [ls]\n", true),
        ("#!/bin/sh\n", true),
        ("#cloud-config\nusers: [default]\n", false),
        ("#cloud-config\nusers: [{name: other}]\n", true),
    ] {
        let disk = build(&input(Some(given))).unwrap();
        assert_eq!(read(&disk, "vendor-data").as_deref(), is_hidden.then_some(NO_KEYS.as_bytes()), "{given}");
        let without = SeedInput { authorized_keys: Vec::new(), ..input(Some(given)) };
        assert_eq!(read(&build(&without).unwrap(), "vendor-data"), None, "{given}");
    }
}

#[test]
fn large_user_data_makes_a_large_seed() {
    let text = format!("#cloud-config\n# {}", "x".repeat(1_400_000));
    let disk = build(&input(Some(&text))).unwrap();
    assert_eq!(disk.len(), 2 << 20);
    assert_eq!(read(&disk, "user-data").unwrap(), text.as_bytes());
}

proptest! {
    /// Whatever keys hold, also those that an earlier version of the API accepted: both documents are YAML and JSON, and hold the keys.
    #[test]
    fn every_seed_is_yaml(keys in prop::collection::vec(any::<String>(), 1..4), rare in "[\u{7e}-\u{a1}\u{2027}-\u{202a}\u{fefe}-\u{ff01}\u{fffd}-\u{10001}\"\\\\/#:]{0,12}") {
        let keys: Vec<String> = keys.into_iter().map(|key| format!("{key}{rare}.")).collect();
        let trimmed: Vec<&str> = keys.iter().map(|key| key.trim()).collect();
        let input = SeedInput { authorized_keys: keys.clone(), ..input(None) };
        let [(_, meta_data), (_, user_data)] = &files(&input)[..] else { panic!("two files") };
        let meta_data = std::str::from_utf8(meta_data).unwrap();
        let as_json: serde_json::Value = serde_json::from_str(meta_data).unwrap();
        let as_yaml: serde_json::Value = serde_saphyr::from_str(meta_data).unwrap();
        prop_assert_eq!(&as_json, &as_yaml);
        prop_assert_eq!(&as_json["public-keys"], &json!(trimmed));
        let user_data: serde_json::Value = serde_saphyr::from_slice(user_data).unwrap();
        prop_assert_eq!(&user_data["users"][0]["ssh_authorized_keys"], &json!(trimmed));
        // The characters that YAML 1.1 takes as they are, as PyYAML checks them.
        let is_printable = |it: char| matches!(it, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        prop_assert!(meta_data.chars().all(is_printable), "{}", meta_data.escape_default());
    }
}
