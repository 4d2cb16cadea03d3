use std::io::Read;

use super::*;

fn input(user_data: Option<&str>) -> SeedInput {
    SeedInput {
        instance_id: "3f0c6c5e-6a9f-4a55-8a0e-000000000001".into(),
        hostname: "hello".into(),
        authorized_keys: vec!["ssh-ed25519 AAAA me@here".into(), "ssh-rsa BBBB \"quoted\": x".into()],
        user_data: user_data.map(str::to_owned),
    }
}

fn read(disk: &[u8], name: &str) -> Vec<u8> {
    let mut disk = disk.to_vec();
    let file_system = fatfs::FileSystem::new(Cursor::new(&mut disk[..]), fatfs::FsOptions::new()).unwrap();
    assert_eq!(file_system.volume_label(), "CIDATA");
    let mut content = Vec::new();
    file_system.root_dir().open_file(name).unwrap().read_to_end(&mut content).unwrap();
    content
}

#[test]
fn without_user_data_the_user_is_set_up() {
    let disk = build(&input(None)).unwrap();
    assert_eq!(disk.len(), 1 << 20);
    assert_eq!(disk, build(&input(None)).unwrap(), "same input, same bytes");
    let meta: serde_json::Value = serde_json::from_slice(&read(&disk, "meta-data")).unwrap();
    assert_eq!(meta["instance-id"], "3f0c6c5e-6a9f-4a55-8a0e-000000000001");
    assert_eq!(meta["local-hostname"], "hello");
    assert_eq!(meta["public-keys"][0], "ssh-ed25519 AAAA me@here");
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
    assert_eq!(String::from_utf8(read(&disk, "user-data")).unwrap(), expected);
}

#[test]
fn user_data_is_given_unchanged() {
    for text in [
        "#cloud-config\nhostname: x\n",
        "#!/bin/sh\necho  hi  \n",
        "## template: jinja\n#cloud-config\n",
        "\u{e4}\u{f6}\n\n",
        "test",
    ] {
        let disk = build(&input(Some(text))).unwrap();
        assert_eq!(read(&disk, "user-data"), text.as_bytes());
    }
}

#[test]
fn base64_is_decoded_also_when_it_is_wrapped() {
    let text = "Content-Type: multipart/mixed; boundary=x\n\n--x--\n".repeat(5);
    let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
    let wrapped: Vec<_> = encoded.as_bytes().chunks(76).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    for given in [encoded.clone(), wrapped.join("\n") + "\n"] {
        assert_eq!(user_data(&input(Some(&given))), text.as_bytes());
    }
    let gzip = base64::engine::general_purpose::STANDARD.encode([0x1f, 0x8b, 8, 0, 0xff]);
    assert_eq!(user_data(&input(Some(&gzip))), [0x1f, 0x8b, 8, 0, 0xff]);
}

#[test]
fn large_user_data_makes_a_large_seed() {
    let text = format!("#cloud-config\n# {}", "x".repeat(1_400_000));
    let disk = build(&input(Some(&text))).unwrap();
    assert_eq!(disk.len(), 2 << 20);
    assert_eq!(read(&disk, "user-data"), text.as_bytes());
}
