//! Bearer tokens: of the platform's issuer, in time and for the API, and no others.

use std::time::{Duration, SystemTime};

use evroc_iam::token::API_AUDIENCE;
use evroc_iam::{Identity, TokenKey};
use evroc_testkit::{DOMAIN, Platform};
use serde_json::{Value, json};

use super::{Kubectl, World};

const ASK: &str = r#"create -o json -f - <<'END'
{"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "AccessToken", "spec": {"expirationSeconds": 60}}
END"#;

/// kubectl that has nothing but a token.
fn with_token(world: &World, token: &str) -> Kubectl {
    world.kubectl_as("", &json!({"token": token}))
}

/// Old and new kubectl print different messages for 401.
fn is_unauthorized(message: &str) -> bool {
    message.contains("Unauthorized") || message.contains("must be logged in")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_authenticates_its_requester() {
    let world = World::start().await;
    let answer: Value = serde_json::from_str(&world.kubectl(super::NEWEST).ok(ASK).await).expect("JSON");
    let token = answer["status"]["token"].as_str().expect("a token");
    let ends: k8s_openapi::jiff::Timestamp =
        answer["status"]["expirationTimestamp"].as_str().expect("an end").parse().expect("a time");
    assert!(ends.as_second() - k8s_openapi::jiff::Timestamp::now().as_second() <= 60, "{answer}");

    let kubectl = with_token(&world, token);
    assert!(kubectl.ok("get vmvirtualresources").await.contains("test.xs"));
    let me = kubectl.ok("auth whoami -o json").await;
    assert!(me.contains("\"admin\"") && me.contains("evroc:operators"), "{me}");
    // The flag, and Debian's kubectl.
    for program in [super::NEWEST, super::OLD] {
        let nobody = Kubectl { program: super::tools().join(program), ..with_token(&world, "x") };
        assert!(is_unauthorized(&nobody.refused("get disks").await));
        nobody.ok(&format!("get disks --token={token}")).await;
    }
    // A token that was lost cannot be kept alive.
    let refused = kubectl.refused(ASK).await;
    assert!(refused.contains("a token cannot ask for another one"), "{refused}");
    let refused = world.kubectl(super::NEWEST).refused(&ASK.replace("60", "864000")).await;
    assert!(refused.contains("should be less than or equal to 86400"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_token_is_401() {
    let world = World::start().await;
    let now = SystemTime::now();
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    let issuer = world.platform.issuer();
    let admin = Identity::operator();
    let token = |audience: &str, from: SystemTime| issuer.token(&admin, audience, from, minute).expect("a token").0;
    let good = token(API_AUDIENCE, now);
    with_token(&world, &good).ok("get disks").await;

    let other = Platform::start().await;
    let forged = TokenKey::open_or_create(&world.kubeconfig.with_extension("key"), None).expect("a key").0;
    let forged = evroc_iam::Claims::for_identity(&admin, &format!("https://iam.{DOMAIN}"), API_AUDIENCE, now, minute)
        .and_then(|claims| forged.sign(&claims));
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = head.split_once('.').expect("three parts");
    let stranger = issuer.token(&Identity::new("x", ["y"]), API_AUDIENCE, now, minute).expect("a token").0;
    let payload = stranger.split('.').nth(1).expect("three parts");
    for (what, token) in [
        ("expired", token(API_AUDIENCE, now - hour)),
        ("not valid yet", token(API_AUDIENCE, now + hour)),
        ("for the registry", token("registry", now)),
        ("of another installation", other.issuer().token(&admin, API_AUDIENCE, now, minute).expect("a token").0),
        ("signed by a stranger", forged.expect("a token")),
        ("with the claims of another user", format!("{header}.{payload}.{signature}")),
        ("no token at all", "x".to_owned()),
    ] {
        let refused = with_token(&world, &token).refused("get disks").await;
        assert!(is_unauthorized(&refused), "{what}: {refused}");
    }
    let refused = with_token(&world, &stranger).refused("get disks").await;
    assert!(refused.contains("Forbidden") && refused.contains("\"x\""), "{refused}");
}
