//! Every form of user data, and what it should do in the guest.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Lines of every kind that sshd(8) takes and cloud-init passes on.
pub const KEYS: [&str; 5] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJY",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJZ me@\u{e5}sa's \"laptop\": #1 \\ \u{1f600}",
    "restrict,command=\"echo \\\"a, b\\\" # c\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJa backup",
    "cert-authority,principals=\"a,b\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJb ca",
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHAAAABHNzaDo= token",
];

/// The file that an `#include` finds.
pub const INCLUDED: &str = "#cloud-config\nruncmd: [echo included >>/ran]\n";

/// A form of user data and its effect.
pub struct Form {
    pub name: &'static str,
    pub user_data: Option<String>,
    pub keys: &'static [&'static str],
    /// The content of `/ran` afterwards.
    pub writes: &'static str,
    /// Those of `keys` that reach an account.
    pub applied_keys: &'static [&'static str],
    /// Whether `evroc-user` exists.
    pub has_user: bool,
}

const CONFIG: &str = "#cloud-config\n# \u{3fe}\u{ff}>>???~~~ \u{fffd}\nruncmd: [echo config >>/ran]\n";
const SCRIPT: &str = "#!/bin/sh\necho script >>/ran\n";
const BOM: &str = "\u{feff}";
const ONE: &[&str] = &[KEYS[0]];
const PLAIN: &[&str] = &[KEYS[0], KEYS[2], KEYS[3], KEYS[4]];

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A message of two parts, as `cloud-init devel make-mime` makes it: in base64, because they are said to be UTF-8.
fn mime(headers: &str, config: &str, is_encoded: bool) -> String {
    let part = |kind: &str, text: &str| {
        let (encoding, body) = match is_encoded {
            true => ("base64", STANDARD.encode(text)),
            false => ("7bit", text.to_owned()),
        };
        format!(
            "--=b=\nContent-Type: text/{kind}; charset=\"utf-8\"\nMIME-Part: 1\nContent-Transfer-Encoding: {encoding}\n\n{body}\n"
        )
    };
    let parts = part("cloud-config", config) + &part("x-shellscript", SCRIPT);
    format!("Content-Type: multipart/mixed; boundary=\"=b=\"\n{headers}\n{parts}--=b=--\n")
}

fn runs(name: &'static str, user_data: impl Into<String>, writes: &'static str) -> Form {
    // With a key that no user data of this kind references.
    Form { name, user_data: Some(user_data.into()), keys: ONE, writes, applied_keys: &[], has_user: true }
}

/// All of them.
pub fn all() -> Vec<Form> {
    let plain = "#cloud-config\nruncmd: [echo config >>/ran]\n";
    let (version, none) = ("MIME-Version: 1.0\n", "");
    let wrapped: Vec<String> =
        STANDARD.encode(CONFIG).as_bytes().chunks(30).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let handler = "#part-handler\ndef list_types():\n    return ['text/x-own']\n\
                   def handle_part(data, ctype, filename, payload):\n    if ctype == '__begin__':\n        open('/ran', 'a').write('handler\\n')\n";
    let archive = "#cloud-config-archive\n- |\n  #cloud-config\n  runcmd: [echo config >>/ran]\n- |\n  #!/bin/sh\n  echo script >>/ran\n";
    let jsonp = "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/runcmd\", \"value\": [\"echo jsonp >>/ran\"]}]\n";
    let template = "## template: jinja\n#cloud-config\nruncmd: [\"echo {{ ds.meta_data.local_hostname }} >>/ran\"]\n";
    let mut latin = b"#!/bin/sh\n# caf\xe9\n".to_vec();
    latin.extend(b"echo script >>/ran\n");
    let mut forms = vec![
        runs("text", CONFIG, "config"),
        runs("script", SCRIPT, "script"),
        runs("base64", STANDARD.encode(CONFIG), "config"),
        runs("base64 unpadded", STANDARD_NO_PAD.encode(CONFIG), "config"),
        runs("base64 url safe", URL_SAFE.encode(CONFIG), "config"),
        runs("base64 url safe unpadded", URL_SAFE_NO_PAD.encode(CONFIG), "config"),
        runs("base64 wrapped", wrapped.join("\n"), "config"),
        runs("byte order mark", format!("{BOM}{CONFIG}"), "config"),
        runs("base64 of a mark", STANDARD.encode(format!("{BOM}{CONFIG}")), "config"),
        runs("gzip", STANDARD.encode(gzip(CONFIG)), "config"),
        runs("gzip of a mark", STANDARD.encode(gzip(&format!("{BOM}{CONFIG}"))), ""),
        runs("blanks before", format!("\n \n{}", plain.replace("cloud-config", "Cloud-Config")), "config"),
        runs("latin script", STANDARD.encode(latin), ""),
        runs("mime", mime(version, plain, false), "script\nconfig"),
        runs("mime encoded", STANDARD.encode(mime(version, plain, true)), "script\nconfig"),
        runs("mime gzip", STANDARD.encode(gzip(&mime(version, plain, true))), "script\nconfig"),
        runs("mime without version", mime(none, plain, false), ""),
        runs("boothook", "#cloud-boothook\n#!/bin/sh\n[ -e /ran ] || echo boothook >>/ran\n", "boothook"),
        runs("include", "#include\nfile:///included\n", "included"),
        runs("include once", "#include-once file:///included\n", "included"),
        runs("part handler", handler, "handler"),
        runs("archive", archive, "script\nconfig"),
        runs("jsonp", jsonp, "jsonp"),
        runs("template", template, "template"),
        runs("no header", "runcmd: [echo config >>/ran]\n", ""),
        runs("another comment", "# cloud-config\nruncmd: [echo config >>/ran]\n", ""),
    ];
    let keys = |name, user_data: Option<&str>, applied_keys, has_user| Form {
        name,
        user_data: user_data.map(str::to_owned),
        keys: &KEYS,
        writes: "",
        applied_keys,
        has_user,
    };
    let all: &[&str] = &KEYS;
    let listed = "#cloud-config\nusers:\n- default\n- {name: other}\n";
    let own = "#cloud-config\nusers: [{name: other}]\nruncmd: [echo config >>/ran]\n";
    let named = "## template: jinja\n#cloud-config\nusers:\n- name: evroc-user\n  ssh_authorized_keys: {{ ds.meta_data.public_keys | tojson }}\n";
    let switch = "#cloud-config\nallow_public_ssh_keys: true\n";
    let encoded = STANDARD.encode(gzip(&mime(version, listed, true)));
    forms.extend([
        keys("no user data", None, all, true),
        keys("empty user data", Some(""), all, true),
        keys("default user", Some(listed), all, true),
        Form { writes: "script", ..keys("default user in a part", Some(&encoded), all, true) },
        Form { writes: "config", ..keys("other user", Some(own), &[], false) },
        // Jinja's JSON has halves of characters beyond U+FFFF, which Python does not join.
        Form { keys: PLAIN, ..keys("keys by name", Some(named), PLAIN, true) },
        keys("keys by switch", Some(switch), all, true),
    ]);
    forms
}
