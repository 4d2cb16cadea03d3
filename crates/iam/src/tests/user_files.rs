use std::process::Command;

use super::now;
use crate::authority::{Authority, AuthorityPaths};
use crate::kubeconfig::Kubeconfig;
use crate::leaf::{self, LeafSpec, OPERATOR_LIFE};
use crate::ssh;

/// An outside judge where there is one: OpenSSH's own tool reads the key and derives the same public line.
#[test]
fn ssh_keygen_reads_our_key() {
    let pair = ssh::generate("evroc@test").unwrap();
    assert_eq!(ssh::public_line_of(&pair.private, "evroc@test").as_deref(), Some(pair.public.as_str()));
    assert_ne!(pair.private, ssh::generate("evroc@test").unwrap().private);
    assert_eq!(ssh::public_line_of("nonsense", ""), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id_ed25519");
    crate::files::write_atomic(&path, pair.private.as_bytes(), 0o600, None).unwrap();
    match Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pair.public.trim());
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}

#[test]
fn a_kubeconfig_is_accepted_until_what_it_says_changes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let paths = AuthorityPaths { key: at("ca.key"), certificate: at("ca.crt"), public_copy: at("public.crt") };
    let (authority, _) = Authority::open_or_create(&paths, "test", now()).unwrap();
    let leaf = leaf::issue(&authority, &LeafSpec::client("admin", "evroc:operators"), OPERATOR_LIFE, now()).unwrap();
    let config = Kubeconfig {
        instance: "evroc",
        user: "admin",
        namespace: "demo",
        api_port: 6443,
        https_port: 443,
        domain: "evroc.localhost",
        authority_pem: authority.certificate_pem(),
    };
    let text = config.render(&leaf);
    let found = config.accepted_leaf(&text).unwrap();
    assert_eq!((found.certificate, found.key), (leaf.certificate.clone(), leaf.key.clone()));
    // A user's own edit does not matter; a change of the installation does.
    assert!(config.accepted_leaf(&text.replace("namespace: demo", "namespace: mine")).is_some());
    assert!(Kubeconfig { api_port: 16443, ..config.clone() }.accepted_leaf(&text).is_none());
    assert!(Kubeconfig { domain: "other.example", ..config.clone() }.accepted_leaf(&text).is_none());
    assert!(Kubeconfig { authority_pem: "another", ..config.clone() }.accepted_leaf(&text).is_none());
    assert!(config.accepted_leaf("half: [").is_none());
}
