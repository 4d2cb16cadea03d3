//! `control`: store, API, controllers and registry, on the API port over TLS.

pub mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use evroc_apiserver::ApiServer;
use evroc_apiserver::audit::{AuditLimits, FileAudit};
use evroc_apiserver::authn::Identity;
use evroc_apiserver::mount::Mount;
use evroc_apiserver::serve::ServeOptions;
use evroc_control::access::RoleAuthorizer;
use evroc_control::controllers::Controllers;
use evroc_control::registry::access::{self as registry_users, Access};
use evroc_control::registry::credentials;
use evroc_control::registry::images::{Groups, RegistryImages};
use evroc_control::streams::Streams;
use evroc_control::tokens::{self, Issuer};
use evroc_control::views::Endpoints;
use evroc_control::{kinds, seed};
use evroc_iam::rotation;
use evroc_iam::token::TokenKey;
use evroc_registry::{GarbageReport, Registry};
use evroc_store::Store;
use evroc_store::clock::SystemClock;
use evroc_store::compaction::{Retention, compact_continuously};

use super::{Reloads, RoleConfig, RoleContext, tls};

/// How often the registry removes unreferenced blobs. The first time comes soon after the start, so that a process that is often started
/// again collects too.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);
const COLLECT_FIRST: Duration = Duration::from_secs(120);
/// How old an unreferenced blob must be to be removed: older than the longest push.
const COLLECT_AGE: Duration = Duration::from_secs(24 * 3600);

/// Runs until SIGTERM.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let config = context.config.clone();
    let opener = store::Opener { instance: &config.instance, control: &config.role_dir };
    let store: Arc<dyn Store> = store::open(config.etcd.as_ref(), opener).await?;
    tokio::spawn(compact_continuously(store.clone(), Arc::new(SystemClock::default()), Retention::default()));
    let groups = Groups::default();
    let registry = Registry::open(config.role_dir.join("registry"), Arc::new(groups.clone())).await;
    let registry = registry.context("cannot open the registry")?;
    let access = Arc::new(registry_access(&config, &context.reloads)?);

    let mut builder = ApiServer::builder(store.clone());
    for kind in kinds::all().context("a definition of our own is not valid")? {
        builder = builder.kind(kind);
    }
    if config.definitions.exists() {
        builder = builder.crd_dir(&config.definitions).context("a definition from --crd-dir cannot be served")?;
    }
    let router = registry.router(access.clone());
    let audit = FileAudit::open(&config.role_dir.join("audit.jsonl"), AuditLimits::default());
    let audit = audit.context("cannot open the audit log")?;
    let streams = Streams::new(context.stop.clone());
    let server = streams
        .register(builder)
        .kind(credentials::kind(&access))
        .kind(tokens::kind(&access.issuer))
        .authenticator(tokens::authenticator(&access.issuer))
        .authorizer(Arc::new(RoleAuthorizer))
        .views(Arc::new(Endpoints))
        .audit(Arc::new(audit))
        .metrics(evroc_metrics::Registry::process().clone())
        .mount(
            Mount::new("", "/v2", router)
                .with_own_challenge()
                .authenticated_by(registry_users::authenticator(&access.issuer)),
        )
        .allow_origin(&console(&config))
        .start()
        .await
        .context("cannot start the API server")?;

    let listeners = std::mem::take(&mut context.api_listeners);
    let serving = {
        let own = config.clone();
        let tls = context.reloads.keep(move || tls::api(&own))?;
        let (server, stop) = (server.clone(), context.stop.clone());
        tokio::spawn(async move { server.serve(listeners, tls, ServeOptions::default(), stop).await })
    };
    let client = |name: &str| server.client_as(Identity::controller(name), "default");
    streams.begin(client("streams"));
    groups.begin(client("registry"));
    seed::ensure(client("seed")).await.context("cannot write what every cloud starts with")?;
    let controllers = controllers(&config, &registry, client);
    context.ready().await;

    let outcome = tokio::select! {
        served = serving => served.context("the API server stopped")?.context("the API port cannot be served"),
        () = controllers => Err(anyhow::anyhow!("the controllers stopped")),
    };
    server.shut_down();
    store.close().await;
    outcome
}

/// The host of the console, whose pages may open WebSockets.
fn console(config: &RoleConfig) -> String {
    match config.https_port {
        443 => format!("console.{}", config.domain),
        port => format!("console.{}:{port}", config.domain),
    }
}

fn registry_access(config: &RoleConfig, reloads: &Reloads) -> anyhow::Result<Access> {
    let path = config.token_key.clone().context("no token key in the settings")?;
    let open = move || anyhow::Ok(TokenKey::open_or_create(&path, None).context("cannot use the token key")?.0);
    let issuer = Arc::new(Issuer::new(
        format!("https://iam.{}", config.domain),
        open()?,
        Arc::new(k8s_openapi::jiff::Timestamp::now),
    ));
    let (own, former) = (issuer.clone(), config.retired_token_keys.clone());
    reloads.keep(move || {
        let former = match &former {
            Some(path) => rotation::read_retired_keys(path).context("cannot read the former token keys")?,
            None => Vec::new(),
        };
        own.replace_key(open()?, &former);
        Ok(())
    })?;
    let path = config.ca_certificate.clone();
    let ca = reloads
        .keep(move || std::fs::read_to_string(&path).context("cannot read the certificates of the authorities"))?;
    let registry = match config.https_port {
        443 => format!("registry.{}", config.domain),
        port => format!("registry.{}:{port}", config.domain),
    };
    Ok(Access { issuer, registry, ca })
}

/// Runs all controllers; ends only if they do.
async fn controllers(config: &RoleConfig, registry: &Registry, client: impl Fn(&str) -> kube::Client) {
    let controllers = Controllers {
        clock: Arc::new(k8s_openapi::jiff::Timestamp::now),
        settings: evroc_run::Settings {
            domain: config.domain.clone(),
            https_port: config.https_port,
            scale_to_zero_after: Duration::from_secs(config.scale_to_zero_seconds),
        },
        images: Arc::new(RegistryImages(registry.clone())),
        forget: Arc::new(RegistryImages(registry.clone())),
    };
    tokio::join!(controllers.run(client), collect(registry));
}

async fn collect(registry: &Registry) {
    let mut pause = COLLECT_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        match registry.collect_garbage(COLLECT_AGE).await {
            Ok(report) if report == GarbageReport::default() => {}
            Ok(report) => tracing::info!(?report, "registry collected garbage"),
            Err(error) => tracing::warn!(%error, "cannot remove what the registry no longer needs"),
        }
        pause = COLLECT_INTERVAL;
    }
}
