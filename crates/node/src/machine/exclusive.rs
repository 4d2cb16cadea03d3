//! A volume has one running machine. The API sees to it; this is for the case that it did not.
//!
//! Two starts at once are kept apart by a claim that is taken before the look at the other machines and held until the start is over:
//! by then the machine's shim is alive, which the next look sees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::config::MachineRunnerConfig;
use super::error::{MachineError, failed};
use super::paths::{MachinePaths, machines, names};
use super::record;
use crate::pool::Pool;
use crate::shim;

/// Volumes of machines that are being started, with the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<String, String>>>);

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    volumes: Vec<String>,
}

impl Claims {
    /// Claims these volumes for a machine, all or none.
    pub(super) fn take(&self, machine: &str, volumes: &[String]) -> Result<Claim, MachineError> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((volume, other)) = volumes.iter().find_map(|volume| taken.get_key_value(volume)) {
            return Err(shared(machine, volume, other));
        }
        taken.extend(volumes.iter().map(|volume| (volume.clone(), machine.to_owned())));
        Ok(Claim { claims: self.clone(), volumes: volumes.to_vec() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        for volume in &self.volumes {
            taken.remove(volume);
        }
    }
}

fn shared(machine: &str, volume: &str, other: &str) -> MachineError {
    MachineError::Invalid {
        uid: machine.to_owned(),
        expected: "volumes that no other running machine has",
        found: format!("volume {volume:?} of machine {other:?}"),
    }
}

/// Refuses a machine one of whose volumes another machine on this host has that runs. While the record of one that runs is damaged,
/// every volume that was handed to a machine may be its own.
pub(super) async fn refuse_shared_volumes(
    host: &MachineRunnerConfig,
    pool: &dyn Pool,
    machine: &str,
    volumes: &[String],
) -> Result<(), MachineError> {
    for other in names(&machines(&host.state_dir))?.into_iter().filter(|other| other != machine) {
        let paths = MachinePaths::new(host, &other);
        if !shim::is_served(&paths.shim).map_err(failed(&other, "look at", &paths.shim))? {
            continue;
        }
        let record = record::read(&paths.folder);
        if let Err(error) = &record {
            tracing::warn!(machine = other, %error, "compare volumes with a machine whose record is damaged");
        }
        for volume in volumes {
            let is_used = match &record {
                Ok(record) => record.as_ref().is_some_and(|record| record.volumes.contains(volume)),
                Err(_) => pool.holder(volume).await?.is_some(),
            };
            if is_used {
                return Err(shared(machine, volume, &other));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_claimed_once_until_it_is_given_back() {
        let claims = Claims::default();
        let volumes = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let first = claims.take("a", &volumes(&["v", "w"])).unwrap();
        let error = claims.take("b", &volumes(&["x", "w"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "machine \"b\": expected volumes that no other running machine has, found volume \"w\" of machine \"a\""
        );
        drop(first);
        claims.take("b", &volumes(&["x", "w"])).unwrap();
    }
}
