//! Bad input: each is refused or reported in one clear sentence with the field, what was expected, what was found, what to do.

use anyhow::{Context, Result, ensure};

use crate::tour::step::Tour;

/// Applies a manifest that has to be refused, and expects all these texts in the message.
fn refused_with(tour: &Tour, manifest: &str, parts: &[&str]) -> Result<()> {
    let output = tour.refused(&format!("kubectl apply -f - <<'END'\n{manifest}\nEND"))?;
    for word in parts {
        ensure!(output.contains(word), "expected `{word}` in the refusal, found: {}", output.trim());
    }
    Ok(())
}

/// Applies a manifest that is accepted and cannot work, expects all these texts in the condition Ready, and deletes it.
fn reported_with(tour: &Tour, manifest: &str, object: &str, parts: &[&str]) -> Result<()> {
    tour.shell(&format!("kubectl apply -f - <<'END'\n{manifest}\nEND"))?;
    let outcome = tour.eventually(|tour| {
        let condition = tour.value(object, ".status.conditions[?(@.type==\"Ready\")]")?;
        ensure!(condition.contains("\"status\":\"False\""), "expected Ready=False on {object}, found `{condition}`");
        for word in parts {
            ensure!(condition.contains(word), "expected `{word}` in the condition of {object}, found {condition}");
        }
        Ok(())
    });
    tour.shell(&format!("kubectl delete {object} --timeout=30s")).context("remove what could not work")?;
    outcome
}

/// An unknown field is named with its path; kubectl before 1.25 validates on its own and prints its own message.
pub fn unknown_field(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: bad}\nspec: {diskSize: {amount: 1, unit: GB}, colour: blue}";
    let output = tour.refused(&format!("kubectl apply -f - <<'END'\n{manifest}\nEND"))?;
    let is_named = output.contains("spec.colour") || output.contains("(Disk.spec): unknown field \"colour\"");
    ensure!(is_named, "expected `spec.colour` in the refusal, found: {}", output.trim());
    Ok(())
}

/// A value out of its range is named with path and what would do.
pub fn bad_value(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: bad}\nspec: {diskSize: {amount: 1, unit: PB}}";
    refused_with(tour, manifest, &["spec.diskSize.unit", "PB", "GB"])
}

/// A second VM on a disk that has its one user.
pub fn disk_in_use(tour: &mut Tour) -> Result<()> {
    let manifest = vm("thief", "test.xs", "hello");
    // Refused at once by the claim, or accepted and reported: both name disk and holder.
    let output = tour.cloud.terminal.type_line(&format!("kubectl apply -f - <<'END'\n{manifest}\nEND"), tour.left())?;
    if output.ok() {
        return reported_with(tour, &manifest, "vm/thief", &["hello"]);
    }
    for word in ["diskRefs", "hello"] {
        ensure!(output.both.contains(word), "expected `{word}` in the refusal, found: {}", output.both.trim());
    }
    Ok(())
}

/// A disk from an image that is not in the catalogue.
pub fn missing_image(tour: &mut Tour) -> Result<()> {
    let manifest = "apiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: imageless}\nspec: {diskImage: {diskImageRef: {name: no-such.1-0.1}}}";
    reported_with(tour, manifest, "disk/imageless", &["no-such.1-0.1"])
}

/// A profile that no host has room for.
pub fn not_enough_memory(tour: &mut Tour) -> Result<()> {
    let disk = "apiVersion: compute.evroclabs.net/v1alpha1\nkind: Disk\nmetadata: {name: giant}\nspec: {diskImage: {diskImageRef: {name: tiny.1-0.1}}}";
    tour.shell(&format!("kubectl apply -f - <<'END'\n{disk}\nEND"))?;
    let outcome = reported_with(tour, &vm("giant", "m1a.xl", "giant"), "vm/giant", &["memory"]);
    tour.shell("kubectl delete disk/giant --timeout=30s")?;
    outcome
}

/// The image's user is root: the service never becomes ready and reports why.
pub fn root_container(tour: &mut Tour) -> Result<()> {
    tour.shell("skopeo copy oci:$EVROC_HELLO_IMAGE:root docker://$EVROC_REGISTRY/demo/hello:root")?;
    reported_with(tour, &service("rooted", "hello:root", 8080), "service/rooted", &["root", "USER"])
}

/// A port that only root could open.
pub fn low_port(tour: &mut Tour) -> Result<()> {
    refused_with(tour, &service("low", "hello:v1", 80), &["containerPort", "1024", "80"])
}

/// An image that was never pushed.
pub fn missing_container_image(tour: &mut Tour) -> Result<()> {
    reported_with(tour, &service("absent", "hello:absent", 8080), "service/absent", &["hello:absent"])
}

/// A VM with one disk.
pub fn vm(name: &str, profile: &str, disk: &str) -> String {
    format!(
        "apiVersion: compute.evroclabs.net/v1alpha1\nkind: VirtualMachine\nmetadata: {{name: {name}}}\nspec:\n  \
         vmVirtualResourcesRef: {{vmVirtualResourcesRefName: {profile}}}\n  diskRefs: [{{name: {disk}, bootFrom: true}}]"
    )
}

fn service(name: &str, image: &str, port: u16) -> String {
    format!(
        "apiVersion: run.evroclabs.net/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  template: {{spec: {{containers: \
         [{{image: \"registry.evroc.localhost/demo/{image}\", ports: [{{containerPort: {port}}}]}}]}}}}"
    )
}
