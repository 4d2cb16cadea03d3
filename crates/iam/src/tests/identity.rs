use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};

use crate::identity::{Identity, IdentityError};

fn certificate(fields: &[(DnType, &str)], usage: Option<ExtendedKeyUsagePurpose>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for (field, value) in fields {
        name.push(field.clone(), *value);
    }
    params.distinguished_name = name;
    params.extended_key_usages = usage.into_iter().collect();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn a_client_certificate_names_user_and_group() {
    let der = certificate(
        &[(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:h1")],
        Some(ExtendedKeyUsagePurpose::ClientAuth),
    );
    let identity = Identity::from_client_certificate(&der).unwrap();
    assert_eq!(identity.user, "system:node:h1");
    assert_eq!(identity.groups, ["system:nodes", "system:authenticated"]);
    assert_eq!(identity.host(), Some("h1"));
    assert_eq!(identity.extra["authentication.evroclabs.net/certificate-serial"].len(), 1);
    assert!(identity.expires.is_some());
}

#[test]
fn no_certificate_makes_a_controller() {
    let fields = [(DnType::OrganizationName, "system:controllers"), (DnType::CommonName, "system:controller:compute")];
    let der = certificate(&fields, Some(ExtendedKeyUsagePurpose::ClientAuth));
    assert_eq!(Identity::from_client_certificate(&der), Err(IdentityError::Internal { group: "system:controllers" }));
}

#[test]
fn certificates_without_a_subject_are_refused() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let common = (DnType::CommonName, "admin");
    assert_eq!(Identity::from_client_certificate(b"nonsense"), Err(IdentityError::Unreadable));
    assert_eq!(
        Identity::from_client_certificate(&certificate(std::slice::from_ref(&common), Some(ServerAuth))),
        Err(IdentityError::NotAClient)
    );
    assert_eq!(Identity::from_client_certificate(&certificate(&[common], None)), Err(IdentityError::NotAClient));
    assert_eq!(
        Identity::from_client_certificate(&certificate(&[], Some(ClientAuth))),
        Err(IdentityError::CommonName { found: 0 })
    );
    let empty = certificate(&[(DnType::CommonName, "")], Some(ClientAuth));
    assert_eq!(Identity::from_client_certificate(&empty), Err(IdentityError::Text { field: "common name" }));
}

#[test]
fn no_identity_claims_system_authenticated_and_the_node_prefix_alone_is_no_host() {
    let der = certificate(
        &[(DnType::OrganizationName, "system:authenticated"), (DnType::CommonName, "x")],
        Some(ExtendedKeyUsagePurpose::ClientAuth),
    );
    assert_eq!(Identity::from_client_certificate(&der).unwrap().groups, ["system:authenticated"]);
    assert_eq!(Identity::new("system:node:", ["system:nodes"]).host(), None);
    assert_eq!(Identity::new("system:node:h1", ["evroc:operators"]).host(), None);
    assert_eq!(Identity::controller("run").controller_name(), Some("run"));
}

#[test]
fn a_certificate_that_could_be_read_in_two_ways_is_refused() {
    use ExtendedKeyUsagePurpose::ClientAuth;
    // The same attribute type, spelt by its number so that the builder takes it twice.
    let (second_name, second_group) = (DnType::CustomDnType(vec![2, 5, 4, 3]), DnType::CustomDnType(vec![2, 5, 4, 10]));
    let two_names = certificate(&[(DnType::CommonName, "user"), (second_name, "admin")], Some(ClientAuth));
    assert_eq!(Identity::from_client_certificate(&two_names), Err(IdentityError::CommonName { found: 2 }));
    let groups = [(DnType::CommonName, "user"), (DnType::OrganizationName, "a"), (second_group.clone(), "b")];
    let two_groups = Identity::from_client_certificate(&certificate(&groups, Some(ClientAuth))).unwrap();
    assert_eq!(two_groups.groups, ["a", "b", "system:authenticated"]);
    let groups = [(DnType::CommonName, "user"), (DnType::OrganizationName, "a"), (second_group.clone(), "")];
    let no_group = Identity::from_client_certificate(&certificate(&groups, Some(ClientAuth)));
    assert_eq!(no_group, Err(IdentityError::Text { field: "organization" }));
    let groups = [(DnType::CommonName, "user"), (DnType::OrganizationName, "a"), (second_group, "system:controllers")];
    let controller = Identity::from_client_certificate(&certificate(&groups, Some(ClientAuth)));
    assert_eq!(controller, Err(IdentityError::Internal { group: "system:controllers" }));

    // The authority itself is no client, whatever it is meant for.
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ClientAuth];
    let authority = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(Identity::from_client_certificate(authority.der()), Err(IdentityError::NotAClient));
}
