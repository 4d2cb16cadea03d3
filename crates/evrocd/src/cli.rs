//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use evroc_store::etcd::Address;

use crate::instance::InstanceName;
use crate::roles::EtcdSettings;
use crate::supervisor::UpOptions;

/// The server of the evroc cloud.
#[derive(Debug, Parser)]
#[command(name = "evrocd", version, about, max_term_width = 120)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the cloud, or take over what an earlier start left running.
    Up(Box<UpArgs>),
    /// Stop guests and containers gracefully, then the cloud.
    Down(DownArgs),
    /// Show the processes, their addresses and the machine's free resources.
    Status(ReportArgs),
    /// Show live what the cloud does: processes, API, hosts, services.
    Top(TopArgs),
    /// Check this machine and report missing requirements.
    Doctor(DoctorArgs),
    /// Disk images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// The state: backups, and where it is kept.
    #[command(subcommand)]
    Store(StoreCommand),
    /// The certificate authority and what it has signed.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Make a credential for a monitoring system, which reads the metrics and nothing else, and a configuration of Prometheus.
    MonitoringConfig {
        #[command(flatten)]
        instance: InstanceArg,
        /// The folder for the files, which belong to the calling user.
        folder: PathBuf,
    },
    /// Show the version.
    Version,
    /// Started by the supervisor.
    #[command(hide = true)]
    Control(RoleArgs),
    /// Started by the supervisor.
    #[command(hide = true)]
    Edge(RoleArgs),
    /// Started by the supervisor.
    #[command(hide = true)]
    Node(RoleArgs),
    /// Started by the node: unpacks one image layer.
    #[command(hide = true)]
    Unpack(UnpackArgs),
    /// Started by the node: parent of one guest or container.
    #[command(hide = true)]
    Shim(ShimArgs),
    /// Started by the supervisor as the calling user.
    #[command(hide = true)]
    UserFiles,
}

/// The instance.
#[derive(Debug, Clone, Args)]
pub struct InstanceArg {
    /// Name of the instance; several can run side by side.
    #[arg(long, value_name = "NAME", default_value = "evroc", env = "EVROC_INSTANCE")]
    pub instance: InstanceName,
}

/// `evrocd up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub instance: InstanceArg,
    /// Folder that holds the state folder, which has the instance's name [default: /var/lib].
    #[arg(long, value_name = "DIR")]
    pub state_dir_root: Option<PathBuf>,
    /// Port of the API on loopback; 0 takes any free one. Remembered [default: 6443, else 16443].
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Port of the HTTPS gateway on loopback; 0 takes any free one. Remembered [default: 443, else 8443].
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<u16>,
    /// Domain of the fixed names and of services. Remembered [default: evroc.localhost].
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub domain: Option<String>,
    /// Start in the background, wait until everything is ready, print how to go on, and return.
    #[arg(long, alias = "background", short = 'd')]
    pub detach: bool,
    /// Leave /etc/hosts alone. Remembered.
    #[arg(long, conflicts_with = "hosts_block")]
    pub no_hosts_block: bool,
    /// Write the fixed names to /etc/hosts again, after --no-hosts-block.
    #[arg(long)]
    pub hosts_block: bool,
    /// Import the disk images in DIR (one folder each, or DIR itself) that do not exist yet. Remembered.
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Also serve the kinds of the CustomResourceDefinitions (apiextensions.k8s.io/v1) in DIR's YAML and JSON files; `none` forgets
    /// them, and leaves their objects in the store. Read at every start. Remembered.
    #[arg(long, value_name = "DIR")]
    pub crd_dir: Option<PathBuf>,
    /// How long a service without requests keeps its last container. Remembered [default: 15].
    #[arg(long, value_name = "SECONDS")]
    pub scale_to_zero_seconds: Option<u64>,
    /// The way out of private networks: none, host (through this machine), or netns:PATH. Remembered [default: host].
    #[arg(long, value_name = "UPLINK")]
    pub uplink: Option<String>,
    /// Life of the certificates of the cloud's processes, which are renewed while it runs; for tests. Remembered [default: 30 days].
    #[arg(long, hide = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=31_536_000))]
    pub leaf_life_seconds: Option<u64>,
    /// Send traces of requests and reconciliations to this collector, as OTLP over HTTP: http://HOST:PORT; `none` sends none any more.
    /// Remembered.
    #[arg(long, value_name = "URL", value_parser = parse_collector)]
    pub otlp_endpoint: Option<String>,
    /// The zone of this host; the zones of a cloud are those of its hosts. Cannot be changed once the cloud has run. Remembered [default: a].
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub zone: Option<String>,
    #[command(flatten)]
    pub store: StoreChoice,
    /// Internal: this is the background process.
    #[arg(long, hide = true)]
    pub detached_child: bool,
    /// Internal: the options as JSON, in the place of all other flags.
    #[arg(long, hide = true, value_name = "JSON")]
    pub options_json: Option<String>,
}

impl UpArgs {
    /// The options for the supervisor.
    pub fn options(&self) -> anyhow::Result<UpOptions> {
        if let Some(json) = &self.options_json {
            return serde_json::from_str(json).context("--options-json");
        }
        // The supervisor may have another working folder.
        let absolute = |flag, path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose().context(flag);
        let forgets_kinds = self.crd_dir.as_ref().is_some_and(|dir| dir.as_os_str() == "none");
        Ok(UpOptions {
            state_root: absolute("--state-dir-root", &self.state_dir_root)?,
            api_port: self.api_port,
            https_port: self.https_port,
            domain: self.domain.clone(),
            hosts_block: match (self.hosts_block, self.no_hosts_block) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            image_dir: absolute("--image-dir", &self.image_dir)?,
            crd_dir: if forgets_kinds { self.crd_dir.clone() } else { absolute("--crd-dir", &self.crd_dir)? },
            scale_to_zero_seconds: self.scale_to_zero_seconds,
            uplink: self.uplink.clone(),
            leaf_life_seconds: self.leaf_life_seconds,
            otlp_endpoint: self.otlp_endpoint.clone(),
            zone: self.zone.clone(),
            store: self.store.settings()?,
        })
    }
}

/// A zone's name: a label.
fn zone(text: &str) -> Result<String, String> {
    match evroc_api::names::NameRule::label(63, "objects name the zone").problem(text) {
        None => Ok(text.to_owned()),
        Some(problem) => Err(problem),
    }
}

/// The store of the state.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreChoice {
    /// The store of the state: embedded, or an etcd (3.4 or newer) as etcd://HOST:PORT[,HOST:PORT…][/PREFIX]. Remembered [default:
    /// embedded].
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub store: Option<String>,
    /// Certificate of the authority that signed those of the etcd's members; turns TLS on. Remembered.
    #[arg(long, value_name = "FILE", requires = "store")]
    pub store_ca: Option<PathBuf>,
    /// Certificate to show to the etcd's members. Remembered.
    #[arg(long, value_name = "FILE", requires = "store_ca", requires = "store_key")]
    pub store_cert: Option<PathBuf>,
    /// Key of that certificate. Remembered.
    #[arg(long, value_name = "FILE", requires = "store_cert")]
    pub store_key: Option<PathBuf>,
    /// Connect to an etcd on other machines without TLS: all hosts of the network between can read and change the whole state, secrets included.
    #[arg(long, requires = "store", conflicts_with = "store_ca")]
    pub store_without_tls: bool,
}

/// The word for the store that needs nothing else.
const EMBEDDED: &str = "embedded";

impl StoreChoice {
    /// The choice: none, the embedded store (`Some(None)`), or an etcd.
    pub fn settings(&self) -> anyhow::Result<Option<Option<EtcdSettings>>> {
        let Some(store) = &self.store else { return Ok(None) };
        if store == EMBEDDED {
            anyhow::ensure!(
                self.store_ca.is_none(),
                "--store-ca: expected an etcd, found --store embedded; leave it out"
            );
            return Ok(Some(None));
        }
        let address: Address = store.parse()?;
        anyhow::ensure!(
            self.store_ca.is_some() || self.store_without_tls || address.is_loopback(),
            "--store {address}: expected --store-ca, because the etcd is not on this machine and the state has secrets in plain text; \
             pass --store-without-tls if the network between them is yours alone"
        );
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        Ok(Some(Some(EtcdSettings {
            address: address.to_string(),
            ca: absolute(&self.store_ca)?,
            certificate: absolute(&self.store_cert)?,
            key: absolute(&self.store_key)?,
        })))
    }
}

/// `evrocd store …`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Write a copy of the whole state to a new file; the cloud may run meanwhile.
    Backup {
        #[command(flatten)]
        instance: InstanceArg,
        /// The file to write.
        file: PathBuf,
    },
    /// Restore the state from a backup; the cloud must be stopped.
    Restore {
        #[command(flatten)]
        instance: InstanceArg,
        /// The backup.
        file: PathBuf,
        /// Replace existing state: an embedded store is moved aside, one in an etcd is removed.
        #[arg(long)]
        replace: bool,
    },
    /// Copy the state to another store, compare the two, and use that one from now on; the cloud must be stopped.
    Migrate {
        #[command(flatten)]
        instance: InstanceArg,
        #[command(flatten)]
        to: StoreChoice,
    },
}

/// `evrocd pki …`.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Show the authority, the certificates and until when each is good.
    Status(ReportArgs),
    /// Replace the authority and the token key by new ones, and every certificate with them, while the cloud runs. An interrupted rotation
    /// goes on where it was.
    Rotate {
        #[command(flatten)]
        instance: InstanceArg,
        /// How many days certificates of the old authority are still accepted; 0: no longer than the rotation takes.
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3650))]
        overlap_days: u32,
        /// Only have both authorities trusted, so that clients on other machines can get the new list; `rotate` without it goes on.
        #[arg(long)]
        prepare: bool,
    },
}

/// `evrocd down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub instance: InstanceArg,
    /// Also remove the instance's state, files, ports and its block in /etc/hosts.
    #[arg(long)]
    pub purge: bool,
    /// How many seconds guests get to shut down before they are killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `evrocd status`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub instance: InstanceArg,
    /// How the report is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// `evrocd top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub instance: InstanceArg,
    /// Print one reading, of one second, and exit.
    #[arg(long)]
    pub once: bool,
    /// Seconds between readings.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}

/// `evrocd doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How the report is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Folder whose disk is checked for free space.
    #[arg(long, value_name = "DIR", default_value = crate::instance::STATE_ROOT)]
    pub state_dir_root: PathBuf,
}

/// `evrocd image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Take over an image that was built (a folder with disk.qcow2 and image.json), all of it or nothing.
    Import {
        #[command(flatten)]
        instance: InstanceArg,
        /// The folder, or a folder of such folders.
        dir: PathBuf,
    },
}

/// A role's arguments.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The role's settings.
    #[arg(long)]
    pub config: PathBuf,
}

/// The arguments of the process that unpacks an image layer.
#[derive(Debug, Args)]
pub struct UnpackArgs {
    /// The job, as JSON.
    #[arg(long)]
    pub job: String,
}

/// The shim's arguments.
#[derive(Debug, Args)]
pub struct ShimArgs {
    /// The shim's folder.
    #[arg(long)]
    pub dir: PathBuf,
}

fn parse_store(text: &str) -> Result<String, String> {
    if text == EMBEDDED {
        return Ok(text.to_owned());
    }
    match text.parse::<Address>() {
        Ok(address) => Ok(address.to_string()),
        Err(error) => Err(format!("{error}, or embedded")),
    }
}

/// The address of a collector of traces, or `none`.
fn parse_collector(text: &str) -> Result<String, String> {
    if text == "none" {
        return Ok(text.to_owned());
    }
    crate::traces::endpoint(text).map_err(|error| error.to_string())
}

/// A domain: labels of small letters, digits and dashes.
fn parse_domain(text: &str) -> Result<String, String> {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 200 && text.contains('.') && text.split('.').all(label_fits) {
        Ok(text.to_owned())
    } else {
        Err("expected a domain of at least two labels of small letters, digits and dashes, like evroc.localhost".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_options_reach_the_background_process() {
        use clap::Parser;
        let options = |line: &[&str]| {
            let Command::Up(arguments) = Cli::try_parse_from(["evrocd", "up"].iter().chain(line)).unwrap().command
            else {
                panic!("another command");
            };
            arguments.options().unwrap()
        };
        for line in [
            &[][..],
            &["--api-port", "0", "--no-hosts-block", "--crd-dir", "none", "--store", "embedded"],
            &[
                "--state-dir-root",
                "here",
                "--image-dir",
                "there",
                "--store",
                "etcd://127.0.0.1:1/x",
                "--uplink",
                "none",
                "--leaf-life-seconds",
                "20",
                "--otlp-endpoint",
                "http://127.0.0.1:4318",
                "--zone",
                "b",
            ],
        ] {
            let wanted = options(line);
            let json = serde_json::to_string(&wanted).unwrap();
            assert_eq!(options(&["--options-json", &json]), wanted, "{json}");
            assert!(wanted.state_root.is_none_or(|path| path.is_absolute()));
        }
        assert_eq!(options(&["--store", "embedded"]).store, Some(None));
    }

    #[test]
    fn an_etcd_elsewhere_needs_tls() {
        for (arguments, is_fine) in [
            (&["--store", "embedded"][..], true),
            (&["--store", "etcd://127.0.0.1:2379"], true),
            (&["--store", "etcd://10.0.0.1:2379"], false),
            (&["--store", "etcd://127.0.0.1:2379,10.0.0.1:2379"], false),
            (&["--store", "etcd://10.0.0.1:2379", "--store-ca", "ca.crt"], true),
            (&["--store", "etcd://10.0.0.1:2379", "--store-without-tls"], true),
        ] {
            #[derive(clap::Parser)]
            struct Only {
                #[command(flatten)]
                store: StoreChoice,
            }
            let parsed = <Only as clap::Parser>::parse_from(["it"].iter().chain(arguments));
            assert_eq!(parsed.store.settings().is_ok(), is_fine, "{arguments:?}");
        }
    }

    #[test]
    fn domains_are_checked() {
        for (domain, want) in [
            ("evroc.localhost", true),
            ("a.b-c.example", true),
            ("localhost", false),
            ("", false),
            ("a..b", false),
            (".a.b", false),
            ("A.b", false),
            ("a b.c", false),
            ("-a.b", false),
        ] {
            assert_eq!(parse_domain(domain).is_ok(), want, "{domain:?}");
        }
    }
}
