//! The platform: store, API server, controllers, hosts and a gateway in the process of a test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::conditions;
use evroc_api::infra::Host;
use evroc_apiserver::ApiServer;
use evroc_control::access::RoleAuthorizer;
use evroc_control::controllers::Controllers;
use evroc_control::registry::images::{Groups, RegistryImages};
use evroc_control::streams::Streams;
use evroc_control::tokens::{self, Issuer};
use evroc_control::views::Endpoints;
use evroc_control::{kinds, seed};
use evroc_controller::Context;
use evroc_iam::{Identity, TokenKey};
use evroc_network::ForgetGroup;
use evroc_registry::Registry;
use evroc_run::Settings;
use evroc_run::image::Images;
use evroc_store::EmbeddedStore;
use evroc_store::clock::SystemClock;
use evroc_store::compaction::{Retention, compact_continuously};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{ApiOf, describe};
use crate::clock::TestClock;
use crate::endpoint::Endpoint;
use crate::fault::{Fault, Faults, Faulty};
use crate::gateway::SimGateway;
use crate::host::{HostSize, SimHost};
use crate::images::SimImages;
use crate::objects::HasConditions;
use crate::snapshot;
use crate::wait::eventually;

/// The resource group that tests work in, and its namespace.
pub const GROUP: &str = "demo";
/// The domain of services and registry.
pub const DOMAIN: &str = "evroc.localhost";

/// The settings of a platform.
pub struct Builder {
    hosts: Vec<(String, String, HostSize)>,
    fault: Option<Fault>,
    idle: Duration,
    has_registry: bool,
    host_runtime: Option<Handle>,
    controllers: usize,
}

impl Builder {
    /// Another host, in a zone.
    #[must_use]
    pub fn host(mut self, name: &str, zone: &str, size: HostSize) -> Self {
        self.hosts.push((name.into(), zone.into(), size));
        self
    }

    /// Runs the hosts' agents on a runtime of their own, so that their threads can be distinguished from those of the platform.
    #[must_use]
    pub fn hosts_on(mut self, runtime: Handle) -> Self {
        self.host_runtime = Some(runtime);
        self
    }

    /// How many sets of controllers run beside each other and do not know of each other.
    #[must_use]
    pub fn controllers(mut self, count: usize) -> Self {
        self.controllers = count;
        self
    }

    /// One write of the controllers that goes wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The real registry for the controllers, in place of the simulated one: see [`Platform::registry`].
    #[must_use]
    pub fn registry(mut self) -> Self {
        self.has_registry = true;
        self
    }

    /// How long a service keeps its last replica without requests.
    #[must_use]
    pub fn scale_to_zero_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Starts everything and waits until the resource group and the hosts are ready.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(self) -> Platform {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(EmbeddedStore::open(dir.path().join("store")).await.expect("a store"));
        let (key, _) = TokenKey::open_or_create(&dir.path().join("token.key"), None).expect("a key for tokens");
        let issuer =
            Arc::new(Issuer::new(format!("https://iam.{DOMAIN}"), key, Arc::new(k8s_openapi::jiff::Timestamp::now)));
        let mut builder = ApiServer::builder(store.clone())
            .authorizer(Arc::new(RoleAuthorizer))
            .views(Arc::new(Endpoints))
            .authenticator(tokens::authenticator(&issuer))
            .kind(tokens::kind(&issuer));
        for kind in kinds::all().expect("the kinds") {
            builder = builder.kind(kind);
        }
        let streams = Streams::new(CancellationToken::new());
        let server = streams.register(builder).start().await.expect("an API server");
        let client = |identity: Identity| server.client_as(identity, GROUP);
        streams.begin(client(Identity::controller("streams")));
        seed::ensure(client(Identity::controller("seed"))).await.expect("the seed");

        let (clock, images) = (TestClock::default(), SimImages::default());
        let groups = Groups::default();
        groups.begin(client(Identity::controller("registry")));
        let registry = Registry::open(dir.path().join("registry"), Arc::new(groups)).await.expect("a registry");
        let (facts, forget): (Arc<dyn Images>, Arc<dyn ForgetGroup>) = if self.has_registry {
            (Arc::new(RegistryImages(registry.clone())), Arc::new(RegistryImages(registry.clone())))
        } else {
            (Arc::new(images.clone()), Arc::new(images.clone()))
        };
        let context = |identity: Identity| Context { client: client(identity), clock: clock.as_clock() };
        let host = |name: &str, zone: &str, size: HostSize| {
            let api = server.service_as(Identity::node(name));
            let runtime = self.host_runtime.clone().unwrap_or_else(Handle::current);
            SimHost::start(name, zone, size, (api, streams.tunnels().clone()), clock.as_clock(), &runtime)
        };
        let mut hosts = self.hosts;
        if hosts.is_empty() {
            hosts.push(("host-1".into(), "a".into(), HostSize::default()));
        }
        let mut platform = Platform {
            admin: client(Identity::operator()),
            hosts: hosts.iter().map(|(name, zone, size)| host(name, zone, *size)).collect(),
            gateway: SimGateway::start(context(Identity::edge())),
            controllers: Controllers {
                clock: clock.as_clock(),
                settings: Settings { domain: DOMAIN.into(), https_port: 8443, scale_to_zero_after: self.idle },
                images: facts,
                forget,
            },
            images,
            registry,
            clock,
            sets: self.controllers,
            faults: Faults::new(self.fault),
            running: None,
            server,
            issuer,
            // As the control process does it: else a long run keeps all of its past.
            compaction: tokio::spawn(compact_continuously(
                store.clone(),
                Arc::new(SystemClock::default()),
                Retention::default(),
            )),
            store,
            dir,
        };
        platform.start_controllers();
        for host in platform.hosts.iter().map(SimHost::name) {
            let is_ready =
                |h: &Host| h.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY));
            platform.until::<Host>(host, "Ready", is_ready).await;
        }
        platform.until::<evroc_api::iam::ResourceGroup>(GROUP, "Ready", HasConditions::is_ready).await;
        platform
    }
}

/// A running platform. Dropping it ends everything.
pub struct Platform {
    admin: Client,
    hosts: Vec<SimHost>,
    gateway: SimGateway,
    images: SimImages,
    registry: Registry,
    clock: TestClock,
    controllers: Controllers,
    sets: usize,
    faults: Faults,
    running: Option<JoinHandle<()>>,
    server: ApiServer,
    issuer: Arc<Issuer>,
    compaction: JoinHandle<()>,
    store: Arc<EmbeddedStore>,
    dir: TempDir,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.stop_controllers();
        self.compaction.abort();
        self.server.shut_down();
    }
}

impl Platform {
    /// A platform with one host of the default size.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Begins to describe a platform.
    pub fn builder() -> Builder {
        Builder {
            hosts: vec![],
            fault: None,
            idle: Duration::from_secs(15),
            has_registry: false,
            host_runtime: None,
            controllers: 1,
        }
    }

    /// The only host, or the first.
    pub fn host(&self) -> &SimHost {
        &self.hosts[0]
    }

    /// All hosts, in the order in which they were described.
    pub fn hosts(&self) -> &[SimHost] {
        &self.hosts
    }

    /// The gateway.
    pub fn gateway(&self) -> &SimGateway {
        &self.gateway
    }

    /// The real registry; controllers use it if the platform was described with [`Builder::registry`].
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The simulated registry.
    pub fn images(&self) -> &SimImages {
        &self.images
    }

    /// The issuer of tokens.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The API on a socket, for clients in other processes.
    pub async fn listen(&self) -> Endpoint {
        Endpoint::open(self.server.clone()).await
    }

    /// Returns a client of another user, in the test's resource group.
    pub fn client_as(&self, identity: Identity) -> Client {
        self.server.client_as(identity, GROUP)
    }

    /// The operator's client for a kind.
    pub fn api<K: ApiOf>(&self) -> Api<K> {
        K::api(self.admin.clone())
    }

    /// The operator's client, in the test's resource group.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The same in another resource group.
    pub fn admin_in(&self, group: &str) -> Client {
        self.server.client_as(Identity::operator(), group)
    }

    /// The store, and the folder that it is in.
    pub(crate) fn store(&self) -> (&EmbeddedStore, std::path::PathBuf) {
        (&self.store, self.dir.path().join("store"))
    }

    /// How many transactions the store has committed.
    pub fn commits(&self) -> u64 {
        self.store.stats().commits
    }

    /// Kills all controllers.
    pub fn stop_controllers(&mut self) {
        if let Some(task) = self.running.take() {
            task.abort();
        }
    }

    /// Starts all controllers; those that are killed by a fault are started again.
    pub fn start_controllers(&mut self) {
        let (server, faults, controllers) = (&self.server, &self.faults, &self.controllers);
        let sets = (0..self.sets).map(|_| {
            let (server, faults, controllers) = (server.clone(), faults.clone(), controllers.clone());
            async move {
                loop {
                    let client = |name: &str| {
                        let inner = server.service_as(Identity::controller(name));
                        Client::new(Faulty { inner, faults: faults.clone() }, GROUP)
                    };
                    tokio::select! {
                        () = controllers.clone().run(client) => return,
                        () = faults.killed() => {}
                    }
                }
            }
        });
        let sets: Vec<_> = sets.collect();
        self.running = Some(tokio::spawn(async move {
            futures::future::join_all(sets).await;
        }));
    }

    /// The writes of the controllers so far: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.faults.writes()
    }

    /// Moves the time forward, and has the controllers look at one object again: pauses are timed by the machine's clock, which
    /// cannot be moved.
    pub async fn advance<K: ApiOf>(&self, by: Duration, name: &str) {
        self.clock.advance(by);
        let time = self.clock.now().to_string();
        self.patch::<K>(name, json!({"metadata": {"annotations": {"test.evroclabs.net/looked-at": time}}})).await;
    }

    /// Creates an object and expects success.
    ///
    /// # Panics
    /// With the refusal.
    pub async fn create<K: ApiOf>(&self, object: &K) -> K {
        self.try_create(object).await.unwrap_or_else(|error| panic!("create {}: {error}", object.name_any()))
    }

    /// Creates an object.
    pub async fn try_create<K: ApiOf>(&self, object: &K) -> kube::Result<K> {
        self.api::<K>().create(&PostParams::default(), object).await
    }

    /// Changes an object by a merge patch and expects success.
    ///
    /// # Panics
    /// With the refusal.
    pub async fn patch<K: ApiOf>(&self, name: &str, patch: Value) -> K {
        self.try_patch(name, patch).await.unwrap_or_else(|error| panic!("patch {name}: {error}"))
    }

    /// Changes an object by a merge patch.
    pub async fn try_patch<K: ApiOf>(&self, name: &str, patch: Value) -> kube::Result<K> {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Deletes an object; its removal may take some time.
    ///
    /// # Panics
    /// With the refusal.
    pub async fn delete<K: ApiOf>(&self, name: &str) {
        let deleted = self.api::<K>().delete(name, &DeleteParams::default()).await;
        deleted.map(drop).unwrap_or_else(|error| panic!("delete {name}: {error}"));
    }

    /// Reads an object.
    ///
    /// # Panics
    /// If there is none.
    pub async fn get<K: ApiOf>(&self, name: &str) -> K {
        self.api::<K>().get(name).await.unwrap_or_else(|error| panic!("get {name}: {error}"))
    }

    /// Waits until an object satisfies a condition, and returns it.
    ///
    /// # Panics
    /// With the object's last state, if it does not before the deadline.
    pub async fn until<K: ApiOf>(&self, name: &str, what: &str, is_so: impl Fn(&K) -> bool) -> K {
        let (api, is_so) = (self.api::<K>(), &is_so);
        eventually(&format!("{} \"{name}\" {what}", K::kind(&())), || {
            let api = api.clone();
            async move {
                match api.get(name).await {
                    Ok(object) if is_so(&object) => Ok(object),
                    Ok(object) => Err(describe(&object)),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await
    }

    /// Waits until an object is removed.
    ///
    /// # Panics
    /// With the object's last state, if it is not removed before the deadline.
    pub async fn gone<K: ApiOf>(&self, name: &str) {
        let api = self.api::<K>();
        eventually(&format!("{} \"{name}\" gone", K::kind(&())), || {
            let api = api.clone();
            async move { api.get_opt(name).await.map_err(|e| e.to_string())?.map_or(Ok(()), |o| Err(describe(&o))) }
        })
        .await;
    }

    /// Waits until nothing has been written for a while: all controllers have done all that they want to do.
    ///
    /// # Panics
    /// With the last writes, if it does not come to rest: some controllers undo each other's work.
    pub async fn at_rest(&self) {
        /// Longer than any reaction takes, shorter than the pauses after which controllers look again by themselves.
        const STILL: Duration = Duration::from_millis(400);
        let mut seen = (0, tokio::time::Instant::now());
        eventually("nothing is written any more", || {
            let commits = self.store.stats().commits;
            if commits != seen.0 {
                seen = (commits, tokio::time::Instant::now());
            }
            let (still, last) = (seen.1.elapsed() >= STILL, self.writes());
            async move { if still { Ok(()) } else { Err(last[last.len().saturating_sub(20)..].join("\n")) } }
        })
        .await;
    }

    /// Returns all objects, by kind and name, without the fields that are new in every run.
    pub async fn snapshot(&self) -> BTreeMap<String, Value> {
        snapshot::take(&self.admin).await
    }
}
