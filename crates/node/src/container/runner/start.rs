//! Makes the pieces of a container and starts it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Container, ContainerError, ContainerRunner, ContainerSpec, FoundContainer, STARTED, blocking, file};
use crate::container::bundle::{BundleInput, config_json, process_args, process_env};
use crate::container::program::find_program;
use crate::container::rootfs::{has_folder, mount_rootfs};
use crate::container::runtime::{Runtime, RuntimeError};
use crate::container::stop_signal::stop_signal;
use crate::container::user;
use crate::net::netns::Netns;
use crate::shim::{CONTAINER_OOM_SCORE, ChosenUser, SpawnError, Spec};

/// How long a container that lost its shim gets to end by itself: its output goes nowhere any more.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);

impl ContainerRunner {
    /// Returns the running container; started if there is none. What an ended one left is removed first, but for its log, which goes
    /// on. A start that has begun goes on to its end also when the future is dropped; [`ContainerRunner::remove`] waits for that.
    pub async fn start(&self, spec: &ContainerSpec) -> Result<Container, ContainerError> {
        let slot = self.slot(&spec.uid);
        let only = slot.work.clone().lock_owned().await;
        let (this, spec) = (self.clone(), spec.clone());
        let work = tokio::spawn(async move {
            let _only = only;
            this.start_alone(&spec, slot.removals.subscribe()).await
        });
        work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn start_alone(
        &self,
        spec: &ContainerSpec,
        removals: watch::Receiver<()>,
    ) -> Result<Container, ContainerError> {
        match self.find(&spec.uid).await? {
            FoundContainer::Running(container) => return Ok(container),
            // One that was not completely created cannot be started, and is made again.
            FoundContainer::Created(container) => match self.runtime.start(&self.names(&spec.uid).id).await {
                Ok(()) => return self.started(&spec.uid).map(|()| container),
                Err(error) => tracing::info!(uid = spec.uid, %error, "go on with a container that was being created"),
            },
            FoundContainer::Orphaned(orphan) => drop(self.end_orphan(&spec.uid, *orphan, ORPHAN_GRACE).await?),
            FoundContainer::Unreachable | FoundContainer::Ended(_) | FoundContainer::Absent => {}
        }
        self.remove_all_but_log(&spec.uid).await?;
        let has_log = self.shim_dir(&spec.uid).exists();
        let result = self.start_new(spec, removals).await;
        if result.is_err() {
            // One that never ran has nothing to say; why it did not start is the error.
            let removed = match has_log {
                true => self.remove_all_but_log(&spec.uid).await,
                false => self.remove_alone(&spec.uid).await,
            };
            if let Err(error) = removed {
                tracing::warn!(uid = spec.uid, %error, "remove the pieces of a container that did not start");
            }
        }
        result
    }

    async fn start_new(
        &self,
        spec: &ContainerSpec,
        mut removals: watch::Receiver<()>,
    ) -> Result<Container, ContainerError> {
        let names = self.names(&spec.uid);
        let (this, owned) = (self.clone(), spec.clone());
        let netns = blocking(move || this.prepare(&owned)).await?;
        let pid_file = names.bundle.join("pid");
        let log = names.bundle.join("runtime.log");
        let argv = self.runtime.create_argv(&names.id, &names.bundle, &pid_file, &log);
        let mut shim_spec = Spec::new(&names.id, argv, &names.shim_socket);
        shim_spec.env.insert("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        shim_spec.pid_file = Some(pid_file);
        // The container's first process inherits it from the runtime.
        shim_spec.oom_score_adj = Some(CONTAINER_OOM_SCORE);
        shim_spec.oom_cgroups = self.cgroups.memory_folders(&names.group);
        let shim_user = self.config.shim_users.as_ref().map(|users| users.choose(&names.id)).transpose();
        let shim_user = shim_user.map_err(file("choose a user for the shim in", &names.shim_dir))?;
        shim_spec.shim_user = shim_user.as_ref().map(ChosenUser::user);
        shim_spec.shim_cgroups = self.config.shim_cgroups.clone();
        let spawned = self.config.shim.spawn(&names.shim_dir, &shim_spec);
        let spawned = tokio::time::timeout(self.config.create_deadline, spawned)
            .await
            .unwrap_or_else(|_| Err(SpawnError::Late { id: names.id.clone() }));
        let shim = match spawned {
            Ok(shim) => shim,
            Err(error) => {
                let Some(message) = Runtime::complaint(&log) else { return Err(error.into()) };
                let program = self.config.runtime.to_string_lossy().into_owned();
                return Err(RuntimeError::Refused { program, command: "create", id: names.id, message }.into());
            }
        };
        tokio::select! {
            started = self.runtime.start(&names.id) => started?,
            Ok(()) = removals.changed() => return Err(ContainerError::GivenUp { id: names.id }),
        }
        self.started(&spec.uid)?;
        let stop_signal = stop_signal(&spec.image.config.config.stop_signal);
        Ok(Container { shim, netns: Arc::new(netns), dialer: self.dialer.clone(), stop_signal })
    }

    /// Records that the runtime has let the container execute its program, so that an observation need not query the runtime.
    fn started(&self, uid: &str) -> Result<(), ContainerError> {
        let path = self.names(uid).bundle.join(STARTED);
        fs::write(&path, "").map_err(file("write", &path))
    }

    /// Makes everything that the runtime needs, and refuses what cannot run.
    fn prepare(&self, spec: &ContainerSpec) -> Result<Netns, ContainerError> {
        let names = self.names(&spec.uid);
        let image = &spec.image;
        let unfit = |problem: String| ContainerError::Unfit { image: image.written.clone(), problem };
        self.cgroups.create(&names.group)?;
        let netns = Netns::ensure(&names.netns)?;
        let rootfs = mount_rootfs(&names.bundle, &image.layers, &spec.workload.hostname)?;
        let path = names.bundle.join("layers.json");
        let layers = serde_json::to_vec(&image.layers).unwrap_or_default();
        fs::write(&path, layers).map_err(file("write", &path))?;
        let run = &image.config.config;
        let user = user::resolve(&run.user, &rootfs).map_err(|error| unfit(error.to_string()))?;
        if !run.working_dir.is_empty() && !has_folder(&rootfs, &run.working_dir) {
            return Err(unfit(format!("has WORKDIR {:?}, but no such folder: add `RUN mkdir`", run.working_dir)));
        }
        let args = process_args(&spec.workload, run).map_err(|error| unfit(error.to_string()))?;
        let env = process_env(&spec.workload, run, &user);
        find_program(&rootfs, &run.working_dir, args.first().map_or("", String::as_str), &env)
            .map_err(|error| unfit(error.to_string()))?;
        let config = config_json(&BundleInput {
            workload: &spec.workload,
            image: run,
            user: &user,
            cgroup: &names.group,
            netns: &names.netns.to_string_lossy(),
            can_limit_swap: self.cgroups.can_limit_swap(),
        })
        .map_err(|error| unfit(error.to_string()))?;
        let path = names.bundle.join("config.json");
        fs::write(&path, config.to_string()).map_err(file("write", &path))?;
        Ok(netns)
    }
}
