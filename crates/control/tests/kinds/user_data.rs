//! User data and SSH keys of a virtual machine at creation: echoed as given, warned about, or refused with the place and the reason.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Server, kind};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNbmN6oQ1AUhWYbUMLUaSkJ4Gt2sSHcOE8Z8Lrn3qJY me@laptop";

fn vm(name: &str, user_data: Option<&str>, keys: &[&str]) -> Value {
    let (_, mut vm) = kind("virtualmachines");
    let keys: Vec<Value> = keys.iter().map(|key| json!({"value": key})).collect();
    vm["metadata"]["name"] = json!(name);
    vm["spec"] = json!({"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": name}],
        "osSettings": {"ssh": {"authorizedKeys": keys}}});
    if let Some(user_data) = user_data {
        vm["spec"]["osSettings"]["cloudInitUserData"] = json!(user_data);
    }
    vm
}

#[tokio::test]
async fn what_the_guest_will_ignore_causes_a_warning_and_is_echoed() {
    let server = Server::start().await;
    let (path, _) = kind("virtualmachines");
    let create = async |vm: &Value| server.send_and_see(Method::POST, &path, "application/json", vm).await;
    let encoded = STANDARD.encode("#!/bin/sh\n");
    let cases: [(Option<&str>, &[&str], &[&str]); 8] = [
        (None, &[KEY], &[]),
        (Some(""), &[KEY], &[]),
        (Some("#cloud-config\nusers: [default]\n"), &[KEY], &[]),
        (Some(&encoded), &[], &[]),
        (Some("runcmd: [ls]\n"), &[], &["cloud-init will ignore it"]),
        (Some("test"), &[], &["found base64 of bytes"]),
        (Some("#cloud-config\n"), &[KEY], &["cloudInitUserData does not reference these keys"]),
        (Some("\u{feff}users: x\n"), &[KEY], &["cloud-init will ignore it", "does not reference these keys"]),
    ];
    for (number, (user_data, keys, expected)) in cases.into_iter().enumerate() {
        let vm = vm(&format!("vm{number}"), user_data, keys);
        let (code, answer, warnings) = create(&vm).await;
        assert_eq!(code, 201, "{answer}");
        assert_eq!(warnings.len(), expected.len(), "{user_data:?}: {warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with("299 - \"spec.osSettings.") && warning.contains(expected), "{warning}");
        }
        assert_eq!(answer["spec"]["osSettings"], vm["spec"]["osSettings"], "verbatim");
    }

    // Server-side apply creates as well; a later change of keys says that it comes too late.
    let applied = vm("applied", Some("runcmd: [ls]\n"), &[]);
    let apply = format!("{path}/applied?fieldManager=test");
    let (code, _, warnings) =
        server.send_and_see(Method::PATCH, &apply, "application/apply-patch+yaml", &applied).await;
    assert_eq!((code.as_u16(), warnings.len()), (201, 1), "{warnings:?}");
    let merge = "application/merge-patch+json";
    let keys = json!({"spec": {"osSettings": {"ssh": {"authorizedKeys": [{"value": KEY}]}}}});
    let (code, _, warnings) = server.send_and_see(Method::PATCH, &format!("{path}/applied"), merge, &keys).await;
    assert!(code == 200 && warnings.len() == 1 && warnings[0].contains("written at the first boot"), "{warnings:?}");
    let stop = json!({"spec": {"running": false}});
    let (code, _, warnings) = server.send_and_see(Method::PATCH, &format!("{path}/applied"), merge, &stop).await;
    assert_eq!((code.as_u16(), warnings), (200, vec![]));
}

#[tokio::test]
async fn what_cannot_be_a_key_or_is_too_long_is_refused_with_its_place() {
    let server = Server::start().await;
    let (path, _) = kind("virtualmachines");
    let cut = &KEY[..60];
    let many = [KEY; 11];
    // Three bytes each: fewer characters than the limit, and more bytes.
    let wide = format!("#cloud-config\n# {}", "\u{20ac}".repeat(400_000));
    let long_key = format!("{KEY} {}", "x".repeat(16_384));
    let cases: [(&Value, &str, &str); 6] = [
        (
            &vm("a", None, &[KEY, cut]),
            "spec.osSettings.ssh.authorizedKeys[1].value",
            "an end of its data within field 2",
        ),
        (&vm("a", None, &[KEY, KEY, ""]), "spec.osSettings.ssh.authorizedKeys[2].value", "an empty text"),
        (&vm("a", None, &["from=x", KEY]), "spec.osSettings.ssh.authorizedKeys[0].value", "no key"),
        (&vm("a", None, &[&long_key]), "spec.osSettings.ssh.authorizedKeys[0].value", "at most 16384 bytes"),
        (&vm("a", None, &many), "spec.osSettings.ssh.authorizedKeys", "at most 10"),
        (&vm("a", Some(&wide), &[]), "spec.osSettings.cloudInitUserData", "at most 1048576 bytes"),
    ];
    for (vm, field, why) in cases {
        let (code, answer, warnings) = server.send_and_see(Method::POST, &path, "application/json", vm).await;
        assert_eq!((code.as_u16(), warnings), (422, vec![]), "{answer}");
        let cause = &answer["details"]["causes"][0];
        assert_eq!(cause["field"], field, "{answer}");
        assert!(cause["message"].as_str().unwrap_or_default().contains(why), "{answer}");
    }
    let full = "x".repeat((1 << 20) - "#cloud-config\n# ".len());
    let (code, answer) = server.post(&path, &vm("full", Some(&format!("#cloud-config\n# {full}")), &[KEY; 10])).await;
    assert_eq!(code, 201, "{answer}");
}
