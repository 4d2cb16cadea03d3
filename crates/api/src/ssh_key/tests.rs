use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJY";

/// A key of a type with fields: `None` is a field without a length, of eight zero bytes.
fn line(kind: &str, fields: &[Option<&[u8]>]) -> String {
    let mut data = Vec::new();
    for field in [Some(kind.as_bytes())].iter().chain(fields) {
        match field {
            Some(field) => {
                data.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
                data.extend(*field);
            }
            None => data.extend([0; 8]),
        }
    }
    format!("{kind} {}", base64::engine::general_purpose::STANDARD.encode(data))
}

/// Every type of sshd(8), the two that need hardware among them, and one that is unknown here.
fn of_every_kind() -> Vec<String> {
    let point = |length: usize| [&[4_u8], vec![7; length - 1].as_slice()].concat();
    let (p256, p384, p521) = (point(65), point(97), point(133));
    let number = [0_u8, 0xff, 1];
    vec![
        line("ssh-ed25519", &[Some(&[7; 32])]),
        line("ssh-rsa", &[Some(&[1, 0, 1]), Some(&number)]),
        line("ssh-dss", &[Some(&number[..]); 4]),
        line("ecdsa-sha2-nistp256", &[Some(b"nistp256"), Some(&p256)]),
        line("ecdsa-sha2-nistp384", &[Some(b"nistp384"), Some(&p384)]),
        line("ecdsa-sha2-nistp521", &[Some(b"nistp521"), Some(&p521)]),
        line("sk-ssh-ed25519@openssh.com", &[Some(&[7; 32]), Some(b"ssh:")]),
        line("sk-ecdsa-sha2-nistp256@openssh.com", &[Some(b"nistp256"), Some(&p256), Some(b"ssh:")]),
        line("ssh-new2030@example.com", &[Some(b"parameters"), Some(b""), Some(b"key")]),
    ]
}

#[test]
fn every_kind_of_key_is_taken_whole_and_refused_cut_short() {
    for key in of_every_kind() {
        assert_eq!(problem(&key), None, "{key}");
        assert_eq!(problem(&format!("{key} me@laptop of \u{e5}sa \u{1f600}\n")), None);
        let (kind, data) = key.split_once(' ').unwrap();
        let is_new = kind.contains("2030");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        for length in 0..bytes.len() {
            let short = base64::engine::general_purpose::STANDARD.encode(&bytes[..length]);
            // Of a type whose fields are not known, the end of one field may be the end of the key.
            let ends_with_field = is_new && [bytes.len() - 7, bytes.len() - 11].contains(&length);
            assert_eq!(problem(&format!("{kind} {short}")).is_none(), ends_with_field, "{kind} of {length} bytes");
        }
        // As a terminal or an editor cuts it: characters of base64.
        assert!(problem(&format!("{kind} {}", &data[..data.len() - 1])).is_some(), "{key}");
        let longer = base64::engine::general_purpose::STANDARD.encode([bytes.as_slice(), &[0]].concat());
        assert!(problem(&format!("{kind} {longer}")).is_some(), "{key}");
    }
}

#[test]
fn certificates_are_taken_whole() {
    let point = [&[4_u8], vec![7; 64].as_slice()].concat();
    let of_kinds: [(&str, Vec<Option<&[u8]>>); 4] = [
        ("ssh-ed25519-cert-v01@openssh.com", vec![Some(&[7; 32])]),
        ("ssh-rsa-cert-v01@openssh.com", vec![Some(&[3]), Some(&[5])]),
        ("ecdsa-sha2-nistp256-cert-v01@openssh.com", vec![Some(b"nistp256"), Some(&point)]),
        ("sk-ssh-ed25519-cert-v01@openssh.com", vec![Some(&[7; 32]), Some(b"ssh:")]),
    ];
    for (kind, key) in of_kinds {
        // The serial; then the type and an empty id, of four bytes each; principals; two times; options, extensions, reserved; signature.
        let empty: Option<&[u8]> = Some(b"");
        let tail =
            [None, None, Some(&b"principals"[..]), None, None, empty, empty, empty, Some(b"ca"), Some(b"signature")];
        let whole = [vec![Some(&b"nonce"[..])], key, tail.to_vec()].concat();
        assert_eq!(problem(&line(kind, &whole)), None, "{kind}");
        for length in 0..whole.len() {
            assert!(problem(&line(kind, &whole[..length])).is_some(), "{kind} of {length} fields");
        }
        assert!(problem(&line(kind, &[whole, vec![Some(b"more")]].concat())).is_some(), "{kind}");
    }
}

#[test]
fn options_are_those_of_sshd() {
    for options in [
        "restrict,pty",
        "cert-authority",
        "cert-authority,principals=\"a,b\"",
        "from=\"10.0.0.0/8,!10.0.0.3\",no-pty",
        "command=\"echo \\\"a, b\\\" | cat\",no-X11-forwarding",
        "environment=\"A=b c\",environment=\"B=\"",
        "expiry-time=\"20300101\",permitopen=\"h:1\",permitlisten=\"2\",tunnel=\"0\"",
        "no-touch-required",
    ] {
        assert_eq!(problem(&format!("{options} {ED25519} me@laptop")), None, "{options}");
        assert_eq!(problem(&format!("{options}\t {ED25519}")), None, "{options}");
    }
    for (options, why) in [
        ("restrict,ptty", "expected options of sshd(8)"),
        ("from=10.0.0.0/8", "in double quotes"),
        ("from", "expected from=\"…\""),
        ("restrict=\"yes\"", "without a value"),
        ("command=\"a", "closing quote"),
        ("command=\"a\",command=\"b\"", "once"),
        ("environment=\"A\"", "NAME=value"),
        ("restrict,", "expected options of sshd(8)"),
        ("hello", "expected options of sshd(8)"),
        ("#", "found a comment"),
    ] {
        let problem = problem(&format!("{options} {ED25519}")).unwrap_or_default();
        assert!(problem.contains(why), "{options}: {problem}");
    }
}

#[test]
fn other_texts_are_named() {
    for (text, why) in [
        ("", "an empty text"),
        (" \n", "an empty text"),
        ("ssh-ed25519", "no key or was cut short"),
        ("ssh-ed25519 AAAA", "within field 1"),
        ("hello world", "no key or was cut short"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "PEM block"),
        ("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJY", "type \"ssh-ed25519\""),
        (&format!("{ED25519} me\u{7f}"), "U+007F"),
        (&format!("{ED25519} me\u{85}"), "U+0085"),
        (&format!("{ED25519} a\n{ED25519} b"), "several lines"),
        (&format!("{ED25519} {}", "\u{20ac}".repeat(6_000)), "at most 16384 bytes"),
    ] {
        let problem = problem(text).unwrap_or_default();
        assert!(problem.contains(why), "{text}: {problem}");
    }
}
