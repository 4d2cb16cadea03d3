//! The registry, as far as controllers query it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use evroc_network::{ForgetError, ForgetGroup};
use evroc_run::image::{ImageError, ImageFacts, Images};

/// The pushed images. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SimImages(Arc<Mutex<Pushed>>);

#[derive(Debug, Default)]
struct Pushed {
    images: BTreeMap<String, ImageFacts>,
    is_down: bool,
}

impl SimImages {
    fn pushed(&self) -> MutexGuard<'_, Pushed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes `repository:tag` for linux/amd64 with this user; the digest follows from both.
    pub fn push(&self, image: &str, user: &str) {
        let mut hasher = DefaultHasher::new();
        (image, user).hash(&mut hasher);
        let digest = format!("sha256:{:064x}", hasher.finish());
        let facts = ImageFacts { digest, user: user.into(), platform: "linux/amd64".into() };
        self.pushed().images.insert(image.into(), facts);
    }

    /// Returns the pushed images, in order.
    pub fn list(&self) -> Vec<String> {
        self.pushed().images.keys().cloned().collect()
    }

    /// Lets the registry not answer, or answer again.
    pub fn set_down(&self, is_down: bool) {
        self.pushed().is_down = is_down;
    }
}

#[async_trait]
impl ForgetGroup for SimImages {
    async fn forget(&self, group: &str, _: &str) -> Result<(), ForgetError> {
        let mut pushed = self.pushed();
        if pushed.is_down {
            let (what, source) = ("the images".into(), "connection refused".into());
            return Err(ForgetError { what, group: group.into(), source });
        }
        pushed.images.retain(|image, _| !image.starts_with(&format!("{group}/")));
        Ok(())
    }
}

#[async_trait]
impl Images for SimImages {
    async fn facts(&self, repository: &str, reference: &str) -> Result<ImageFacts, ImageError> {
        let pushed = self.pushed();
        if pushed.is_down {
            return Err(ImageError::Unavailable("connection refused".into()));
        }
        pushed
            .images
            .get(&format!("{repository}:{reference}"))
            .cloned()
            .ok_or_else(|| ImageError::NotFound { repository: repository.into(), reference: reference.into() })
    }
}
