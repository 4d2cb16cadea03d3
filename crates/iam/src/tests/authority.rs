use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{days, now};
use crate::authority::{Authority, AuthorityError, AuthorityPaths};
use crate::leaf::{self, Leaf, LeafPaths, LeafSpec, OPERATOR_LIFE, ROLE_LIFE, renewal};

fn paths(folder: &Path) -> AuthorityPaths {
    fs::create_dir_all(folder.join("control")).unwrap();
    fs::create_dir_all(folder.join("pki")).unwrap();
    AuthorityPaths {
        key: folder.join("control/ca.key"),
        certificate: folder.join("control/ca.crt"),
        public_copy: folder.join("pki/ca.crt"),
    }
}

fn open(paths: &AuthorityPaths) -> Result<(Authority, Vec<String>), AuthorityError> {
    Authority::open_or_create(paths, "test", now())
}

#[test]
fn it_is_made_once_and_then_kept() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path());
    let (first, notes) = open(&paths).unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let (second, notes) = open(&paths).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    assert_eq!(fs::metadata(&paths.key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&paths.public_copy).unwrap(), first.certificate_pem().as_bytes());
}

#[allow(clippy::type_complexity)]
/// Every state that an interruption or a careless hand can leave, and what happens then.
#[test]
fn half_an_authority_is_finished_or_named() {
    enum Want {
        Finished,
        Refused(&'static str),
    }
    use Want::*;
    let table: &[(&str, fn(&AuthorityPaths), Want)] = &[
        (
            "only the key",
            |p| {
                fs::remove_file(&p.certificate).unwrap();
                fs::remove_file(&p.public_copy).unwrap();
            },
            Finished,
        ),
        ("key and public copy", |p| fs::remove_file(&p.certificate).unwrap(), Finished),
        ("no public copy", |p| fs::remove_file(&p.public_copy).unwrap(), Finished),
        ("public copy of another authority", |p| fs::write(&p.public_copy, "other").unwrap(), Finished),
        ("no key", |p| fs::remove_file(&p.key).unwrap(), Refused("ca.key is missing, but")),
        (
            "only the public copy",
            |p| {
                fs::remove_file(&p.key).unwrap();
                fs::remove_file(&p.certificate).unwrap();
            },
            Refused("pki/ca.crt is there"),
        ),
        ("empty key", |p| fs::write(&p.key, "").unwrap(), Refused("ca.key is damaged")),
        (
            "truncated certificate",
            |p| {
                let pem = fs::read(&p.certificate).unwrap();
                fs::write(&p.certificate, &pem[..100]).unwrap();
            },
            Refused("ca.crt is damaged"),
        ),
        (
            "another key",
            |p| fs::write(&p.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap(),
            Refused("does not belong to"),
        ),
    ];
    for (case, damage, want) in table {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let (before, _) = open(&paths).unwrap();
        let leaf = leaf::issue(&before, &LeafSpec::client("admin", "evroc:operators"), OPERATOR_LIFE, now()).unwrap();
        damage(&paths);
        match (open(&paths), want) {
            (Ok((after, notes)), Finished) => {
                assert_eq!(notes.len(), 1, "{case}: {notes:?}");
                let spec = LeafSpec::client("admin", "evroc:operators");
                let unfit = leaf::why_unfit(&after, &spec, leaf.certificate.as_bytes(), leaf.key.as_bytes(), now());
                assert_eq!(unfit, None, "{case}: earlier certificates stay valid");
                assert!(open(&paths).unwrap().1.is_empty(), "{case}: repaired for good");
            }
            (Err(error), Refused(expected)) => {
                let text = error.to_string();
                assert!(text.contains(expected), "{case}: {text}");
                assert!(text.contains("backup") || text.contains("put back"), "{case} says what to do: {text}");
            }
            (Ok(_), Refused(_)) => panic!("{case}: expected a refusal"),
            (Err(error), Finished) => panic!("{case}: {error}"),
        }
    }
}

#[test]
fn renewal_is_due_at_two_thirds_of_the_life_or_a_little_earlier() {
    for (not_before, not_after, jitter, want) in
        [(0, 300, 0, 200), (0, 300, 255, 185), (1000, 1300, 0, 1200), (0, 22, 0, 15), (0, 0, 255, 0), (300, 0, 0, 300)]
    {
        assert_eq!(renewal(not_before, not_after, jitter), want, "{not_before}..{not_after} {jitter}");
    }
}

/// The decision over a simulated year: it is never too late, and not made more often than it has to be.
#[test]
fn leaves_are_renewed_in_time_and_no_more_often_than_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = open(&paths(folder.path())).unwrap();
    let files = LeafPaths::in_folder(folder.path(), "node");
    let spec = LeafSpec::client("system:node:a", "system:nodes");
    let unix = |time: std::time::SystemTime| {
        i64::try_from(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
    };
    // As an older version left it: it stands until two thirds of its own life are over.
    leaf::ensure(&authority, &spec, &files, None, OPERATOR_LIFE, now()).unwrap();
    let mut replaced = Vec::new();
    for hour in 0..24 * 365 {
        let at = now() + Duration::from_secs(3600 * hour);
        let ensured = leaf::ensure(&authority, &spec, &files, None, ROLE_LIFE, at).unwrap();
        assert!(ensured.renewal > unix(at), "not due at once again");
        let leaf = Leaf::read(&fs::read(&files.certificate).unwrap()).unwrap();
        assert!(leaf.not_after - unix(at) > (leaf.not_after - leaf.not_before) / 4, "hour {hour}");
        replaced.extend(ensured.replaced.map(|_| hour / 24));
    }
    assert!((225..=243).contains(&replaced[0]), "{replaced:?}");
    let steps: Vec<u64> = replaced.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.len() >= 5 && steps.iter().all(|days| (18..=20).contains(days)), "{replaced:?}");
}

#[test]
fn a_leaf_is_kept_while_it_fits_and_replaced_when_not() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = open(&paths(folder.path())).unwrap();
    let files = LeafPaths::in_folder(folder.path(), "server");
    let spec = LeafSpec::control_server("evroc.localhost");
    let ensure = |spec: &LeafSpec, at| leaf::ensure(&authority, spec, &files, None, ROLE_LIFE, at).unwrap().replaced;
    assert_eq!(ensure(&spec, now()).as_deref(), Some("there was none"));
    assert_eq!(ensure(&spec, now()), None);
    assert_eq!(ensure(&spec, now() + days(18)), None);
    assert!(ensure(&spec, now() + days(20)).unwrap().contains("two thirds"));
    let at = now() + days(21);
    fs::remove_file(&files.key).unwrap();
    assert!(ensure(&spec, at).unwrap().contains("only one"));
    fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(ensure(&spec, at).unwrap().contains("belong together"));
    let spec = LeafSpec::control_server("cloud.example.org");
    assert!(ensure(&spec, at).unwrap().contains("names changed"));
    let other = tempfile::tempdir().unwrap();
    let (stranger, _) = open(&paths(other.path())).unwrap();
    let reason = leaf::ensure(&stranger, &spec, &files, None, ROLE_LIFE, at).unwrap().replaced.unwrap();
    assert!(reason.contains("another authority"), "{reason}");
}

/// An outside judge: rustls accepts the certificates for the names that they are for and for no others.
#[test]
fn rustls_accepts_the_names_and_only_those() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = open(&paths(folder.path())).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate_der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone())
            .build()
            .unwrap();
    let time = UnixTime::since_unix_epoch(now().duration_since(std::time::UNIX_EPOCH).unwrap());
    let control = LeafSpec::control_server("evroc.localhost");
    let gateway = LeafSpec::gateway_server("evroc.localhost");
    for (spec, name, want) in [
        (&control, "localhost", true),
        (&control, "127.0.0.1", true),
        (&control, "::1", true),
        (&control, "registry.evroc.localhost", true),
        (&control, "svc-1.evroc.localhost", false),
        (&control, "127.0.0.2", false),
        (&gateway, "svc-1.evroc.localhost", true),
        (&gateway, "evroc.localhost", true),
        (&gateway, "a.b.evroc.localhost", false),
        (&gateway, "example.org", false),
    ] {
        let pem = leaf::issue(&authority, spec, ROLE_LIFE, now()).unwrap();
        let der = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
        let result = verifier.verify_server_cert(&der, &[], &ServerName::try_from(name).unwrap(), &[], time);
        assert_eq!(result.is_ok(), want, "{name}: {result:?}");
    }
    // A server's certificate does not pass as a client's.
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    for (spec, want) in [(control, false), (LeafSpec::client("admin", "evroc:operators"), true)] {
        let pem = leaf::issue(&authority, &spec, ROLE_LIFE, now()).unwrap();
        let der = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
        assert_eq!(clients.verify_client_cert(&der, &[], time).is_ok(), want);
    }
}
