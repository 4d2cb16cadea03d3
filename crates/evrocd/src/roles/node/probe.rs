//! How guests run on this host: the accelerator is probed by starting a guest.

use std::time::Duration;

use evroc_controller::chain;
use evroc_node::agent::host::{Accelerator, NO_ACCELERATOR};
use evroc_vmm::probe::{Payload, Probe};

use super::{FIRST_GUEST_UID, Node};

/// A machine without memory to spare, or without its packages, may have them a minute later.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// The image that an accelerator is probed with.
const PROBE_IMAGE: &str = "tiny.1-0.1";
/// The line that the probe's image prints when its system is up.
const PROBE_MARKER: &str = "evroc-guest: ready";

impl Node {
    /// Finds out how guests run; a machine that is to start waits for it.
    pub(super) async fn probe(&self) {
        let payload = match self.images.get(PROBE_IMAGE, None).await {
            Ok(image) => Payload::Image { disk: image.base, marker: PROBE_MARKER.into() },
            Err(_) => Payload::BootSector,
        };
        let mut probe = Probe::new(payload, &self.config.role_dir);
        let guest = self.config.uid_base + FIRST_GUEST_UID;
        probe.user = Some((guest, guest));
        probe.qemu = self.qemu.clone();
        let record = self.config.role_dir.join("accel.json");
        loop {
            let error = match probe.run_cached(&record).await {
                Ok(verdict) => {
                    tracing::info!(
                        accelerator = verdict.accelerator.name(),
                        reason = verdict.reason,
                        "guests run with"
                    );
                    let offers = self.machines.owned().guests().offers(verdict.accelerator).await;
                    let offers = offers.unwrap_or_else(|error| {
                        tracing::error!(error = chain(&error), "the hypervisor does not say what hardware it offers");
                        evroc_vmm::Offers::default()
                    });
                    let found = Accelerator { kind: Some(verdict.accelerator), reason: verdict.reason, offers };
                    self.accelerator.send_replace(Some(found));
                    return;
                }
                Err(error) => chain(&error),
            };
            tracing::error!(error, "no guest can run on this host, will be tried again");
            // For `evrocd status`; no verdict, so the next try does not take it for one.
            let said = serde_json::json!({"accelerator": NO_ACCELERATOR, "reason": error}).to_string();
            if let Err(error) = std::fs::write(&record, said) {
                tracing::warn!(%error, path = %record.display(), "cannot write what the probe found");
            }
            let offers = evroc_vmm::Offers::default();
            self.accelerator.send_replace(Some(Accelerator { kind: None, reason: error, offers }));
            tokio::time::sleep(PROBE_AGAIN).await;
        }
    }
}
