//! The API as kubectl and strangers see it.

use anyhow::{Result, ensure};

use crate::tour::step::Tour;

/// Without a certificate and without a token there is no answer but 401.
pub fn anonymous_is_refused(tour: &mut Tour) -> Result<()> {
    let server = tour.shell("kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}'")?;
    for path in ["/api", "/apis", "/openapi/v3", "/apis/compute.evroclabs.net/v1alpha1/namespaces/demo/disks"] {
        let code = tour.shell(&format!("curl -sk -o /dev/null -w '%{{http_code}}' {server}{path}"))?;
        ensure!(code == "401", "{path}: expected 401 without credentials, found {code}");
    }
    let forged =
        tour.shell(&format!("curl -sk -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer x' {server}/apis"))?;
    ensure!(forged == "401", "expected 401 for a made-up token, found {forged}");
    Ok(())
}

/// Discovery and OpenAPI are good enough for kubectl's own commands.
pub fn kinds_are_explained(tour: &mut Tour) -> Result<()> {
    let kinds = tour.shell("kubectl api-resources --api-group=compute.evroclabs.net")?;
    for kind in ["VirtualMachine", "Disk", "DiskImage"] {
        ensure!(kinds.contains(kind), "expected {kind} among the kinds:\n{kinds}");
    }
    let explained = tour.shell("kubectl explain disk.spec.diskSize")?;
    ensure!(
        explained.contains("amount") && explained.contains("unit"),
        "expected the fields of diskSize:\n{explained}"
    );
    ensure!(
        tour.shell("kubectl auth can-i create disks.compute.evroclabs.net")?.trim() == "yes",
        "the admin may not create disks"
    );
    Ok(())
}

/// One object through its life, by the verbs that kubectl has.
pub fn a_disk_lives(tour: &mut Tour) -> Result<()> {
    tour.shell(
        "kubectl create -f - <<'END'\n\
         apiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: api-check}\nspec: {diskSize: {amount: 1, unit: GB}}\nEND",
    )?;
    tour.shell("kubectl label disk api-check colour=blue")?;
    ensure!(tour.value("disk api-check", ".metadata.labels.colour")? == "blue", "the label was not kept");
    ensure!(tour.shell("kubectl get disk -l colour=blue -o name")?.contains("api-check"), "the label does not select");
    let uid = tour.value("disk api-check", ".metadata.uid")?;
    ensure!(uid.len() == 36, "expected a UUID as uid, found `{uid}`");
    tour.refused("kubectl create -f - <<'END'\n{\"apiVersion\":\"compute.evroclabs.net/v1alpha1\",\"kind\":\"Disk\",\"metadata\":{\"name\":\"api-check\"},\"spec\":{\"diskSize\":{\"amount\":1,\"unit\":\"GB\"}}}\nEND")?;
    tour.shell("kubectl apply --server-side --field-manager=tour -f - <<'END'\napiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: api-check, labels: {shape: round}}\nspec: {diskSize: {amount: 1, unit: GB}}\nEND")?;
    let labels = tour.value("disk api-check", ".metadata.labels")?;
    ensure!(labels.contains("blue") && labels.contains("round"), "apply took another manager's label away: {labels}");
    tour.shell("kubectl delete disk api-check --timeout=15s")?;
    let output = tour.refused("kubectl get disk api-check")?;
    ensure!(output.contains("NotFound"), "expected NotFound, found: {output}");
    Ok(())
}
