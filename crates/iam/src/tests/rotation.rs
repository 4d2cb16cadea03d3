//! A rotation of the authority, interrupted at every point.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{days, now};
use crate::authority::Authority;
use crate::identity::Identity;
use crate::leaf::{self, LeafPaths, LeafSpec, OPERATOR_LIFE, ROLE_LIFE};
use crate::rotation::{PkiFiles, Retired, Rotation, Stage};
use crate::token::{Claims, TokenKey, TokenVerifier};

const OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// An installation: keys, one role with a certificate, one operator with a copy of theirs on another machine.
struct World {
    folder: tempfile::TempDir,
    files: PkiFiles,
    /// The operator's certificate, which is not renewed.
    operator: String,
    /// A token that was made before.
    token: String,
    /// The files that the role has loaded: its certificate, and the authorities that it trusts.
    loaded: (String, String),
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("authority")).unwrap();
        fs::create_dir(path("control")).unwrap();
        let files = PkiFiles {
            authority: path("authority"),
            trusted: path("ca.crt"),
            token: path("control"),
            token_owner: None,
        };
        let authority = Authority::open_or_create(&files.signing(), "test", now()).unwrap().0;
        let operator = leaf::issue(&authority, &LeafSpec::client("admin", "evroc:operators"), OPERATOR_LIFE, now());
        let (key, _) = TokenKey::open_or_create(&files.token_key(), None).unwrap();
        let claims = Claims::for_identity(&Identity::operator(), "it", "api", now(), days(1)).unwrap();
        let token = key.sign(&claims).unwrap();
        let mut world =
            Self { folder, files, operator: operator.unwrap().certificate, token, loaded: Default::default() };
        world.files.publish(now()).unwrap();
        world.ensure(now());
        world.load();
        world
    }

    fn leaf(&self) -> LeafPaths {
        LeafPaths::in_folder(self.folder.path(), "node")
    }

    fn ensure(&self, at: SystemTime) {
        let authority = Authority::open_or_create(&self.files.signing(), "test", at).unwrap().0;
        let spec = LeafSpec::client("system:node:a", "system:nodes");
        leaf::ensure(&authority, &spec, &self.leaf(), None, ROLE_LIFE, at).unwrap();
    }

    fn load(&mut self) {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        self.loaded = (read(&self.leaf().certificate), read(&self.files.trusted));
    }

    /// Carries out a stage, without the note that it is done.
    fn carry_out(&mut self, rotation: &Rotation, at: SystemTime) {
        match rotation.stage {
            Stage::Prepare => self.files.prepare("test", at).unwrap(),
            Stage::Publish => {
                self.files.publish(at).unwrap();
                self.load();
            }
            Stage::Switch => self.files.switch(rotation, at).unwrap(),
            Stage::Reissue => {
                self.files.publish(at).unwrap();
                self.ensure(at);
                // Others have loaded nothing since the list was published.
                self.check("before the certificates are loaded", at);
                self.load();
            }
        }
    }

    /// Runs to the end from wherever it is, as a start does.
    fn resume(&mut self, at: SystemTime) {
        let mut rotation = self.files.rotation().unwrap();
        while let Some(current) = rotation {
            self.carry_out(&current, at);
            rotation = self.files.finish_stage(current).unwrap();
        }
        self.files.publish(at).unwrap();
        self.load();
    }

    /// No client is locked out: what the role and the operator have is accepted by who has loaded the list of the role, and by who reads it now.
    fn check(&self, case: &str, at: SystemTime) {
        let read = fs::read_to_string(&self.files.trusted).unwrap();
        for trusted in [&self.loaded.1, &read] {
            for (whose, certificate) in [
                ("the operator's", &self.operator),
                ("the role's", &self.loaded.0),
                ("the file's", &fs::read_to_string(self.leaf().certificate).unwrap()),
            ] {
                assert!(accepts(trusted, certificate, at), "{case}: {whose} certificate");
            }
        }
        let (key, _) = TokenKey::open_or_create(&self.files.token_key(), None).unwrap();
        let verifier = TokenVerifier::new("it", [&key]).with_retired(&self.files.retired_keys().unwrap());
        assert!(verifier.verify(&self.token, "api", at).is_ok(), "{case}: the token");
    }
}

/// An outside judge: whether rustls takes a client's certificate with these authorities.
fn accepts(trusted: &str, certificate: &str, at: SystemTime) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    for one in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(one.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let time = UnixTime::since_unix_epoch(at.duration_since(std::time::UNIX_EPOCH).unwrap());
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    clients.unwrap().verify_client_cert(&der, &[], time).is_ok()
}

/// A crash after every stage's work, before and after the note that it is done; and in the middle of the switch.
#[test]
fn a_rotation_that_is_interrupted_anywhere_is_finished_and_locks_nobody_out() {
    for crash in 0..2 * Stage::ALL.len() {
        let mut world = World::new();
        let before = fs::read(world.files.signing().certificate).unwrap();
        let mut rotation = world.files.begin(OVERLAP, false, now()).unwrap();
        world.check("begun", now());
        for point in 0..=crash {
            if point % 2 == 0 {
                world.carry_out(&rotation, now());
            } else if let Some(next) = world.files.finish_stage(rotation.clone()).unwrap() {
                rotation = next;
            }
            // In the middle of the switch nothing is issued: the key is the new one's.
            world.check(&format!("crash {crash}, point {point}"), now());
        }
        let again = world.files.begin(Duration::from_secs(1), false, now()).unwrap();
        if crash + 1 < 2 * Stage::ALL.len() {
            assert_eq!(again.overlap_seconds, OVERLAP.as_secs(), "crash {crash}: one rotation, not two");
            world.resume(now() + days(1) / 2);
            world.check(&format!("crash {crash}, resumed"), now() + days(1) / 2);
            assert_eq!(world.files.rotation().unwrap(), None);
            let after = fs::read(world.files.signing().certificate).unwrap();
            assert_ne!(before, after, "crash {crash}: another authority");
            assert_eq!(world.files.retired().unwrap().len(), 1, "crash {crash}");
            let mut names: Vec<_> = fs::read_dir(&world.files.authority)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["ca.crt", "ca.key", "retired.json"], "crash {crash}: nothing is left");
        }
    }
}

#[test]
fn a_switch_that_is_interrupted_between_two_files_is_joined() {
    let steps: [fn(&PkiFiles); 2] =
        [|_| {}, |files| fs::rename(files.authority.join("next.key"), files.signing().key).unwrap()];
    for step in steps {
        let mut world = World::new();
        let mut rotation = world.files.begin(OVERLAP, false, now()).unwrap();
        while rotation.stage != Stage::Switch {
            world.carry_out(&rotation, now());
            rotation = world.files.finish_stage(rotation).unwrap().unwrap();
        }
        // As the switch begins: the former authority is remembered first.
        let certificate = fs::read_to_string(world.files.signing().certificate).unwrap();
        let retired = [Retired { certificate, until: u64::MAX }];
        fs::write(world.files.authority.join("retired.json"), serde_json::to_vec(&retired).unwrap()).unwrap();
        step(&world.files);
        world.resume(now());
        world.check("joined", now());
        assert_eq!(world.files.retired().unwrap(), retired);
    }
}

#[test]
fn the_old_authority_and_key_end_at_their_date_and_not_before() {
    let mut world = World::new();
    world.files.begin(OVERLAP, false, now()).unwrap();
    world.resume(now());
    assert_eq!(world.loaded.1.matches("BEGIN CERTIFICATE").count(), 2);
    let key = TokenKey::open_or_create(&world.files.token_key(), None).unwrap().0;
    let verifier = TokenVerifier::new("it", [&key]).with_retired(&world.files.retired_keys().unwrap());
    let old = TokenVerifier::new("it", [&key]);
    assert!(old.verify(&world.token, "api", now()).is_err(), "another key signs");
    assert!(verifier.verify(&world.token, "api", now() + days(1) - Duration::from_secs(60)).is_ok());
    assert!(verifier.verify(&world.token, "api", now() + days(2)).is_err());

    let last = now() + OVERLAP - Duration::from_secs(1);
    assert!(!world.files.publish(last).unwrap().ended);
    world.ensure(last);
    world.load();
    world_accepts(&world, last, true);
    let end = now() + OVERLAP;
    let published = world.files.publish(end).unwrap();
    assert!(published.ended && published.changed && published.next_end.is_none());
    world.load();
    world_accepts(&world, end, false);
    assert!(accepts(&world.loaded.1, &world.loaded.0, end), "the role has a certificate of the new one");
    let again = world.files.publish(end).unwrap();
    assert!(!again.ended && !again.changed);
}

fn world_accepts(world: &World, at: SystemTime, want: bool) {
    assert_eq!(accepts(&world.loaded.1, &world.operator, at), want, "the operator's certificate");
}

#[test]
fn without_an_overlap_trust_ends_when_the_rotation_ends() {
    let mut world = World::new();
    let mut rotation = Some(world.files.begin(Duration::ZERO, false, now()).unwrap());
    while let Some(current) = rotation {
        world.carry_out(&current, now());
        world.check(&format!("{:?}", current.stage), now());
        rotation = world.files.finish_stage(current).unwrap();
    }
    assert!(world.files.publish(now()).unwrap().ended);
    world.load();
    world_accepts(&world, now(), false);
    assert!(accepts(&world.loaded.1, &world.loaded.0, now()));
}

#[test]
fn a_held_rotation_waits_until_it_is_begun_again() {
    let world = World::new();
    assert!(world.files.begin(OVERLAP, true, now()).unwrap().is_held);
    assert!(world.files.begin(OVERLAP, true, now()).unwrap().is_held);
    assert!(!world.files.begin(OVERLAP, false, now()).unwrap().is_held);
    assert!(!world.files.begin(OVERLAP, true, now()).unwrap().is_held, "and goes on");
}
