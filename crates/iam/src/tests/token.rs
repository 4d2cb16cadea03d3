use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::{days, now};
use crate::identity::Identity;
use crate::token::{Claims, TokenError, TokenKey, TokenVerifier};
use std::time::Duration;

fn key() -> TokenKey {
    TokenKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

fn claims() -> Claims {
    Claims::for_identity(&Identity::operator(), "evroc", "registry", now(), days(1)).unwrap()
}

#[test]
fn a_token_speaks_for_its_user_at_its_audience_and_in_its_time() {
    let key = key();
    let verifier = TokenVerifier::new("evroc", [&key]);
    let token = key.sign(&claims()).unwrap();
    let found = verifier.verify(&token, "registry", now()).unwrap();
    assert_eq!(found, claims_with_id(&found.jti));
    assert_eq!(found.identity().groups, ["evroc:operators", "system:authenticated"]);
    assert!(matches!(verifier.verify(&token, "api", now()), Err(TokenError::Audience { .. })));
    assert!(matches!(verifier.verify(&token, "registry", now() + days(2)), Err(TokenError::Expired)));
    assert!(matches!(verifier.verify(&token, "registry", now() - days(1)), Err(TokenError::NotYetValid)));
    assert!(matches!(
        TokenVerifier::new("other", [&key]).verify(&token, "registry", now()),
        Err(TokenError::Malformed(_))
    ));
}

fn claims_with_id(id: &str) -> Claims {
    Claims { jti: id.to_owned(), ..claims() }
}

#[test]
fn forged_and_foreign_tokens_are_refused() {
    let key = key();
    let verifier = TokenVerifier::new("evroc", [&key]);
    let token = key.sign(&claims()).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let header = |json: String| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(json), parts[1], parts[2]);
    let id = key.id();
    for (case, forged) in [
        ("no algorithm", header(format!(r#"{{"alg":"none","kid":"{id}"}}"#))),
        ("a symmetric algorithm", header(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#))),
        ("lower case", header(format!(r#"{{"alg":"es256","kid":"{id}"}}"#))),
        ("its own key", header(format!(r#"{{"alg":"ES256","kid":"{id}","jwk":{{}}}}"#))),
        ("an unknown key", header(r#"{"alg":"ES256","kid":"x"}"#.into())),
        ("another header of ours", header(format!(r#"{{"alg":"ES256","kid":"{id}"}}"#))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{token}.x")),
        ("padding", format!("{token}=")),
        ("another key's signature", self::key().sign(&claims()).unwrap()),
        ("very long", format!("{token}{}", "A".repeat(9000))),
        ("nothing", String::new()),
    ] {
        assert!(verifier.verify(&forged, "registry", now()).is_err(), "{case} must be refused");
    }
}

#[test]
fn old_tokens_live_on_beside_a_new_key() {
    let (old, new) = (key(), key());
    let token = old.sign(&claims()).unwrap();
    assert!(TokenVerifier::new("evroc", [&new, &old]).verify(&token, "registry", now()).is_ok());
    assert!(matches!(
        TokenVerifier::new("evroc", [&new]).verify(&token, "registry", now()),
        Err(TokenError::UnknownKey)
    ));
}

#[test]
fn the_key_is_made_once_and_a_damaged_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.key");
    let (first, made) = TokenKey::open_or_create(&path, None).unwrap();
    assert!(made);
    let (second, made) = TokenKey::open_or_create(&path, None).unwrap();
    assert!(!made);
    assert_eq!(first.id(), second.id());
    std::fs::write(&path, "half").unwrap();
    let text = TokenKey::open_or_create(&path, None).unwrap_err().to_string();
    assert!(text.contains("token.key is not a P-256 private key"), "{text}");
}

#[test]
fn nothing_outlives_the_credential_that_it_was_made_with() {
    let short = Claims::for_identity(&Identity::operator(), "evroc", "api", now(), Duration::from_secs(60)).unwrap();
    let long = Claims::for_identity(&short.identity(), "evroc", "registry", now(), days(1)).unwrap();
    assert_eq!(long.exp, short.exp);
    assert!(short.identity().came_by_token() && !Identity::operator().came_by_token());
    let later = Claims::for_identity(&Identity::operator(), "evroc", "registry", now(), days(1)).unwrap();
    assert!(later.exp > short.exp, "callers within the process have no end");
}

/// The other signature of the same text: (r, order - s).
fn other_signature(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51_u8,
    ];
    let mut borrow = 0;
    for (s, order) in signature[32..].iter_mut().zip(order).rev() {
        let difference = i32::from(order) - i32::from(*s) - borrow;
        borrow = i32::from(difference < 0);
        *s = (difference & 0xff) as u8;
    }
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_has_one_text() {
    let key = key();
    let verifier = TokenVerifier::new("evroc", [&key]);
    for _ in 0..16 {
        let token = key.sign(&claims()).unwrap();
        assert!(verifier.verify(&token, "registry", now()).is_ok());
        assert_eq!(other_signature(&other_signature(&token)), token);
        let refused = verifier.verify(&other_signature(&token), "registry", now());
        assert!(matches!(refused, Err(TokenError::Signature)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_flipped_byte_passes(position in 0usize..400, bit in 0u8..7) {
        let key = key();
        let token = key.sign(&claims()).unwrap();
        let mut bytes = token.clone().into_bytes();
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        if let Ok(changed) = String::from_utf8(bytes) && changed != token {
            prop_assert!(TokenVerifier::new("evroc", [&key]).verify(&changed, "registry", now()).is_err());
        }
    }

    #[test]
    fn no_text_makes_the_verifier_panic(text in ".{0,200}") {
        prop_assert!(TokenVerifier::new("evroc", []).verify(&text, "registry", now()).is_err());
    }
}
