//! DiskImage: publishes the images that this host has, and removes what no image and no volume needs.
//!
//! A host publishes what is absent. An image whose published digest is another is never overwritten: other hosts' disks are clones
//! of those bytes. The difference is a condition of the Host that names both digests ([`Topic::ImagesPublished`]).
//!
//! Every pass starts from the folder and from the published objects; it runs when either changes (the folder is read again and
//! again) and after a failure. Images do not wait for each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{DiskImage, DiskImageSpec, DiskImageStatus};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::units::{Size, Unit};
use evroc_controller::{Context, Error, Result, chain, create_or_adopt, pauses, write_status};
use futures::StreamExt;
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};

use super::host::{HostConditions, Topic};
use crate::image::{ImageFacts, Images};
use crate::pool::Pool;

/// How often the folder is looked at. Longer shows a new image later; shorter reads every `image.json` more often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long after a failure the next pass begins.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// The part of the condition that is about all images.
const IMAGES: &str = "disk images";

/// Publishes the disk images of this host.
pub struct DiskImages {
    /// API and clock.
    pub base: Context,
    /// The images.
    pub images: Arc<dyn Images>,
    /// The volumes that are cloned from them.
    pub pool: Arc<dyn Pool>,
    /// The host's conditions, which report images that are not published.
    pub conditions: HostConditions,
}

/// Publishes until the process ends.
pub async fn run(images: DiskImages) {
    let (published, writer) = reflector::store();
    let api = Api::<DiskImage>::all(images.base.client.clone());
    let mut changes =
        watcher(api, watcher::Config::default()).backoff(pauses()).reflect(writer).touched_objects().boxed();
    let mut again = tokio::time::interval(LOOK_AGAIN);
    let (mut is_listed, mut reported) = (false, BTreeSet::new());
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(error = chain(&error), "watching disk images failed, will be tried again");
                    continue;
                }
                None => return,
            },
            listed = published.wait_until_ready(), if !is_listed => is_listed = listed.is_ok(),
            _ = again.tick() => {}
        }
        if !is_listed {
            continue;
        }
        let is_done = images.pass(&published, &mut reported).await;
        again.reset_after(if is_done { LOOK_AGAIN } else { TRY_AGAIN });
    }
}

/// The step that an image needs.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Box<DiskImageSpec>),
    MarkReady,
    Nothing,
    /// Other bytes are published under its name, with this digest.
    Differs(String),
}

fn decide(facts: &ImageFacts, published: Option<&DiskImage>) -> Step {
    let Some(published) = published else { return Step::Create(Box::new(spec(facts))) };
    if published.spec.sha256 != facts.sha256 {
        return Step::Differs(published.spec.sha256.clone());
    }
    let is_ready = published.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, READY));
    if is_ready { Step::Nothing } else { Step::MarkReady }
}

impl DiskImages {
    /// Brings everything up to date that can be; returns whether nothing failed. `reported`: the parts of the condition that are not in
    /// order.
    async fn pass(&self, published: &Store<DiskImage>, reported: &mut BTreeSet<String>) -> bool {
        let topic = Topic::ImagesPublished;
        let scan = match self.images.scan() {
            Ok(scan) => scan,
            Err(error) => {
                self.problem(IMAGES, Verdict::unknown("CannotList", chain(&error)));
                return false;
            }
        };
        self.conditions.set(topic, IMAGES, Verdict::yes("Published", "the disk images of this host are published"));
        let mut is_done = true;
        let mut problems = BTreeSet::new();
        for (name, error) in &scan.unreadable {
            self.problem(&part(name), Verdict::no("ImageUnreadable", chain(error)));
            problems.insert(part(name));
        }
        for facts in &scan.images {
            let known = published.get(&ObjectRef::new(&facts.name));
            let verdict = match self.publish(facts, known.as_deref()).await {
                Ok(None) => continue,
                Ok(Some(verdict)) => verdict,
                // Another host was faster; the watch delivers its object.
                Err(Error::Changed(_)) => {
                    is_done = false;
                    continue;
                }
                Err(error) => {
                    is_done = false;
                    Verdict::no("CannotPublish", chain(&error))
                }
            };
            self.problem(&part(&facts.name), verdict);
            problems.insert(part(&facts.name));
        }
        for part in reported.difference(&problems) {
            self.conditions.clear(topic, part);
        }
        *reported = problems;
        match self.pool.remove_unused_bases().await {
            Ok(removed) => {
                removed.iter().for_each(|base| tracing::info!(base, "removed a disk image that nothing uses"));
            }
            // Unreadable volumes are reported by the agent of the volumes.
            Err(error) => tracing::debug!(error = chain(&error), "cannot remove unused disk images"),
        }
        is_done
    }

    /// Publishes one image; returns the obstacle, if any.
    async fn publish(&self, facts: &ImageFacts, published: Option<&DiskImage>) -> Result<Option<Verdict>> {
        let api = Api::<DiskImage>::all(self.base.client.clone());
        match (decide(facts, published), published) {
            // The watch brings the object, and with it the next pass, which marks it as ready.
            (Step::Create(spec), _) => create_or_adopt(&api, &DiskImage::new(&facts.name, *spec)).await.map(|()| None),
            (Step::Differs(theirs), _) => Ok(Some(differs(facts, &theirs))),
            (Step::MarkReady, Some(published)) => {
                let mut status: DiskImageStatus = published.status.clone().unwrap_or_default();
                let ready = Verdict::yes("Ready", "disks can be made from it");
                let generation = published.metadata.generation;
                conditions::set(&mut status.conditions, READY, &ready, generation, self.base.now());
                write_status(&api, published, &status).await.map(|_| None)
            }
            (Step::MarkReady | Step::Nothing, _) => Ok(None),
        }
    }

    fn problem(&self, part: &str, verdict: Verdict) {
        if self.conditions.set(Topic::ImagesPublished, part, verdict.clone()) {
            tracing::error!(part, reason = verdict.reason, error = verdict.message, "cannot publish a disk image");
        }
    }
}

fn part(name: &str) -> String {
    format!("disk image {name}")
}

fn differs(facts: &ImageFacts, published: &str) -> Verdict {
    let message = format!(
        "SHA-256 {} on this host, {published} in the cloud; give the new build another name, or delete DiskImage {:?} to publish \
         this one",
        facts.sha256, facts.name
    );
    Verdict::no("OtherBytes", message)
}

fn spec(facts: &ImageFacts) -> DiskImageSpec {
    let megabytes = facts.virtual_size_bytes.div_ceil(Unit::MB.bytes());
    let minimum = Size { amount: i64::try_from(megabytes).unwrap_or(i64::MAX), unit: Unit::MB };
    DiskImageSpec {
        default_size: facts.default_size.unwrap_or(minimum),
        minimum_size_bytes: facts.virtual_size_bytes,
        os_arch: facts.os_arch.clone(),
        os_image: facts.os_image.clone(),
        os_version: facts.os_version.clone(),
        version: facts.version.clone(),
        sha256: facts.sha256.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(sha256: &str) -> ImageFacts {
        let facts = serde_json::json!({"name": "tiny", "sha256": sha256, "virtualSizeBytes": 1 << 20});
        serde_json::from_value(facts).unwrap()
    }

    #[test]
    fn an_image_is_published_once_and_never_overwritten() {
        let (ours, theirs) = (facts(&"a".repeat(64)), facts(&"b".repeat(64)));
        assert!(matches!(decide(&ours, None), Step::Create(spec) if spec.sha256 == ours.sha256));
        let mut published = DiskImage::new("tiny", spec(&ours));
        assert_eq!(decide(&ours, Some(&published)), Step::MarkReady);
        let mut status = DiskImageStatus::default();
        conditions::set(&mut status.conditions, READY, &Verdict::yes("Ready", ""), None, Default::default());
        published.status = Some(status);
        assert_eq!(decide(&ours, Some(&published)), Step::Nothing);
        assert_eq!(decide(&theirs, Some(&published)), Step::Differs(ours.sha256.clone()));
        let message = differs(&theirs, &ours.sha256).message;
        assert!(message.contains(&ours.sha256) && message.contains(&theirs.sha256), "{message}");
    }
}
