use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

use super::*;

/// Its base64 has characters that only one of the alphabets has, and ends with padding.
const CONFIG: &str = "#cloud-config\n# ~~~ ??? \u{3fe}\u{ff}>>\nruncmd: [ls]\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn base64_is_decoded_in_every_form() {
    let marked = format!("\u{feff}{CONFIG}");
    let standard = STANDARD.encode(CONFIG);
    assert!(standard.contains(['+', '/']) && standard.ends_with('='), "{standard}");
    let wrapped: Vec<&str> = standard.as_bytes().chunks(20).map(|line| std::str::from_utf8(line).unwrap()).collect();
    for given in [
        standard.clone(),
        STANDARD_NO_PAD.encode(CONFIG),
        URL_SAFE.encode(CONFIG),
        URL_SAFE_NO_PAD.encode(CONFIG),
        wrapped.join("\n") + "\n",
        wrapped.join("\r\n"),
        wrapped.join(" "),
        format!("\u{feff}{standard}"),
        STANDARD.encode(&marked),
    ] {
        let decoded = decode(&given);
        assert_eq!((decoded.bytes.as_slice(), decoded.was_base64), (CONFIG.as_bytes(), true), "{given}");
    }
    // What has no header is decoded as well: nothing depends on what is in it.
    assert_eq!(decode("test").bytes, [0xb5, 0xeb, 0x2d]);
}

#[test]
fn text_stays_as_it_is() {
    for given in [CONFIG, "#!/bin/sh\necho  hi  \n", "\u{e4}\u{f6}\n\n", "a+b_c", "abcde", " \n", ""] {
        assert_eq!(decode(given), Decoded { bytes: given.as_bytes().to_vec(), was_base64: false });
    }
    assert_eq!(decode(&format!("\u{feff}{CONFIG}")).bytes, CONFIG.as_bytes());
}

#[test]
fn what_cloud_init_ignores_is_named() {
    let mime = "Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\n--x\n";
    for known in [
        CONFIG.to_owned(),
        "#!/bin/sh\n".into(),
        "\n  #Cloud-Config\n".into(),
        "#include https://a.example/x\n".into(),
        "#cloud-boothook\n".into(),
        "## template: jinja\n#cloud-config\n".into(),
        "## template: jinja\n{% if true %}#cloud-config{% endif %}\n".into(),
        mime.into(),
        STANDARD.encode(mime),
        STANDARD.encode(gzip(CONFIG)),
        STANDARD.encode(gzip(mime)),
    ] {
        assert_eq!(unrecognised(&decode(&known)), None, "{known}");
    }
    let whole = gzip(CONFIG);
    for (unknown, found) in [
        ("runcmd: [ls]\n".to_owned(), "found \"runcmd: [ls]\\n\""),
        ("Content-Type: multipart/mixed; boundary=x\n\n--x--\n".into(), "found \"Content-Type: multipart"),
        (STANDARD.encode("runcmd: [ls]\n"), "found base64 of \"runcmd"),
        (STANDARD.encode(gzip("runcmd: [ls]\n")), "found base64 of gzip of \"runcmd"),
        (STANDARD.encode(gzip("\u{feff}#cloud-config\n")), "found base64 of gzip of \"\\u{feff}#cloud"),
        (STANDARD.encode(&whole[..whole.len() - 9]), "damaged or cut short"),
        ("## template: jinja\nruncmd: [ls]\n".into(), "found \"## template"),
        ("# cloud-config\n".into(), "found \"# cloud"),
        ("\u{feff}".into(), "found nothing"),
        (" \n".into(), "found nothing"),
        ("test".into(), "found base64 of bytes that are not UTF-8"),
        (STANDARD.encode(b"#!/bin/sh\n# caf\xe9\n"), "found base64 of bytes that are not UTF-8"),
    ] {
        let why = unrecognised(&decode(&unknown)).unwrap_or_else(|| panic!("nothing about {unknown:?}"));
        assert!(why.contains(found) && why.is_ascii() | why.contains('…'), "{unknown:?}: {why}");
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(b"#cloud-config\n").unwrap();
    let zeros = vec![0; 1 << 20];
    (0..64).for_each(|_| bomb.write_all(&zeros).unwrap());
    let bytes = bomb.finish().unwrap();
    assert_eq!(gunzip(&bytes).unwrap().len(), usize::try_from(LONGEST_LOOK).unwrap());
    assert_eq!(unrecognised(&Decoded { bytes, was_base64: true }), None);
}

#[test]
fn user_data_lists_the_default_user_or_does_not() {
    for (listed, text) in [
        (true, "#cloud-config\nusers:\n- default\n"),
        (true, "#cloud-config\nusers:\n  - name: a\n  -   \"default\"  # the image's\n"),
        (true, "#cloud-config\nusers: [default, {name: a}]\n"),
        (true, "#cloud-config\n{\"users\": [\"default\"]}\n"),
        (true, "#cloud-config\n{\n \"users\": [\n  {\"name\": \"a\"},\n  \"default\"\n ]\n}\n"),
        (false, "#cloud-config\nusers:\n- name: default-user\n"),
        (false, "#cloud-config\n# users:\n# - default\nruncmd: [ls]\n"),
        (false, "#cloud-config\nruncmd:\n- default\n"),
        (false, "#!/bin/sh\necho default\n"),
        (false, "#cloud-config\nusers:\n- name: a\n  gecos: the default\n"),
    ] {
        let encoded = STANDARD.encode(text);
        let mime = format!(
            "Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\n--x\nContent-Type: text/cloud-config\n\
             Content-Transfer-Encoding: base64\n\n{encoded}\n--x--\n"
        );
        for bytes in [text.as_bytes().to_vec(), gzip(text), mime.clone().into_bytes(), gzip(&mime)] {
            assert_eq!(lists_default_user(&bytes), listed, "{text} {}", bytes.len());
            assert_eq!(references_keys(&bytes), listed, "{text} {}", bytes.len());
        }
    }
}

#[test]
fn keys_are_referenced_by_name_too() {
    for text in [
        "## template: jinja\n#cloud-config\nssh_authorized_keys: {{ ds.meta_data.public_keys }}\n",
        "## template: jinja\n#cloud-config\nssh_authorized_keys: {{ v1.public_ssh_keys }}\n",
        "## template: jinja\n#cloud-config\nssh_authorized_keys: {{ ds.meta_data['public-keys'] }}\n",
        "#cloud-config\nallow_public_ssh_keys: true\n",
    ] {
        assert!(references_keys(text.as_bytes()) && !lists_default_user(text.as_bytes()), "{text}");
    }
}
