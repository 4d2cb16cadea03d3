//! Explains what blocks a deletion, for the object's status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The finalizers of Kubernetes' own garbage collection.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Describes who blocks the deletion of an object, beside the platform's finalizers in `own`: half a sentence. `owned` are the
/// objects that it owns, as in `Revision "hello-00001"`. `None` if nothing does.
pub fn waits_for(metadata: &ObjectMeta, own: &[&str], owned: &[String]) -> Option<String> {
    metadata.deletion_timestamp.as_ref()?;
    let finalizers = metadata.finalizers.iter().flatten().filter(|it| !own.contains(&it.as_str()));
    let reasons: Vec<String> = finalizers
        .map(|finalizer| match finalizer.as_str() {
            FOREGROUND if owned.is_empty() => "the objects that it owns".to_owned(),
            FOREGROUND => owned.join(", "),
            ORPHAN => "the objects that it owns to be let go".to_owned(),
            other => format!("finalizer \"{other}\", which its owner has to remove"),
        })
        .collect();
    (!reasons.is_empty()).then(|| format!("waits for {}", reasons.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn others_are_named_and_the_platform_is_not() {
        let mut metadata = ObjectMeta {
            finalizers: Some(vec!["ours/x".into(), FOREGROUND.into(), "theirs/backup".into()]),
            ..ObjectMeta::default()
        };
        assert_eq!(waits_for(&metadata, &["ours/x"], &[]), None, "nothing is being deleted");
        metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(
            waits_for(&metadata, &["ours/x"], &["Revision \"a\"".into()]).as_deref(),
            Some("waits for Revision \"a\" and finalizer \"theirs/backup\", which its owner has to remove")
        );
        metadata.finalizers = Some(vec!["ours/x".into()]);
        assert_eq!(waits_for(&metadata, &["ours/x"], &[]), None);
    }
}
