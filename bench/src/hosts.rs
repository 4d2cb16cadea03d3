//! `cargo xtask bench-hosts`: the cost of a cloud while nothing happens in it.
//!
//! API server, store, controllers and N simulated hosts run in this process; the hosts run the product's own agents over drivers in
//! memory. Once M virtual machines run, the process is left alone and its processor time is measured: of one core at 1,000 hosts and
//! 10,000 machines it may be 5 %. The agents run on threads of their own, so that their share, which other machines have in a real cloud, is
//! shown apart: it includes their requests, from the client to the response.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType};
use evroc_api::iam::{ResourceGroup, ResourceGroupSpec};
use evroc_testkit::objects::{self, HasConditions};
use evroc_testkit::{HostSize, IMAGE, Platform};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams, PostParams};
use tokio::runtime::Handle;

/// Machines in a resource group: its subnet has 252 addresses.
const MACHINES_IN_A_GROUP: usize = 200;
/// Creates at a time.
const CLIENTS: usize = 8;
/// The pause before it is looked again whether all machines run, at least.
const PAUSE: Duration = Duration::from_secs(2);
/// The same in times of what the last look took, which would otherwise be most of the work for many machines.
const PAUSES: u32 = 30;
/// Clock ticks a second in /proc/self/stat; Linux shows all programs 100.
const TICKS: f64 = 100.0;

/// Measures the cost of a cloud at rest.
#[derive(Parser)]
struct Arguments {
    /// Simulated hosts
    #[arg(long, default_value_t = 50)]
    hosts: usize,
    /// Virtual machines on them
    #[arg(long, default_value_t = 500)]
    machines: usize,
    /// How long it is measured at rest
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long the machines may take to run
    #[arg(long, default_value_t = 3600)]
    limit_seconds: u64,
}

/// The names of the agents' threads.
const HOSTS: &str = "hosts";

fn main() -> Result<()> {
    let stack = evroc_testkit::THREAD_STACK_BYTES;
    let runtime = |name| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().thread_name(name).thread_stack_size(stack).build()
    };
    let hosts = runtime(HOSTS).context("start the runtime of the hosts")?;
    let control = runtime("control").context("start the runtime of the platform")?;
    let outcome = control.block_on(measure(hosts.handle().clone()));
    hosts.shutdown_background();
    outcome
}

async fn measure(hosts: Handle) -> Result<()> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    // Each host has room for all machines: the scheduler's spreading is not measured.
    let room_gb = arguments.machines as u64 + 2;
    let size = HostSize { cpus: 64, memory_gb: room_gb, disk_gb: 4 * room_gb };
    let builder = (0..arguments.hosts).fold(Platform::builder().hosts_on(hosts), |builder, n| {
        builder.host(&format!("host-{n}"), &format!("zone-{}", n % 3), size)
    });
    let platform = builder.start().await;
    println!("{} hosts are ready after {:.0} s", arguments.hosts, started.elapsed().as_secs_f64());

    let before = processor_time()?;
    let filled = fill(&platform, &arguments).await?;
    let (seconds, spent, each) = (filled.as_secs_f64(), processor_time()?, 1000.0 / arguments.machines as f64);
    println!(
        "{} virtual machines run after another {seconds:.0} s: {:.1} a second, processor time for each: control {:.1} ms, agents {:.1} ms",
        arguments.machines,
        arguments.machines as f64 / seconds,
        (spent.control - before.control) * each,
        (spent.hosts - before.hosts) * each
    );
    rest(&platform, &arguments).await
}

/// Creates the machines and waits until they run; returns how long it took.
async fn fill(platform: &Platform, arguments: &Arguments) -> Result<Duration> {
    let client = platform.admin();
    let started = Instant::now();
    let groups: Vec<String> =
        (0..arguments.machines.div_ceil(MACHINES_IN_A_GROUP)).map(|n| format!("group-{n}")).collect();
    for group in &groups {
        let spec = ResourceGroupSpec { organization: "local".into(), display_name: None };
        platform.create(&ResourceGroup::new(group, spec)).await;
    }
    for group in &groups {
        platform.until::<ResourceGroup>(group, "Ready", HasConditions::is_ready).await;
    }
    let creates = (0..arguments.machines).map(|n| {
        let (client, group, name) = (client.clone(), &groups[n / MACHINES_IN_A_GROUP], format!("vm-{n}"));
        async move {
            let (disks, machines) = (Api::<Disk>::namespaced(client.clone(), group), Api::namespaced(client, group));
            let how = PostParams::default();
            disks.create(&how, &objects::disk(&name, IMAGE)).await.with_context(|| format!("create disk {name}"))?;
            let machine = objects::virtual_machine(&name, &[&name]);
            machines.create(&how, &machine).await.with_context(|| format!("create {name}")).map(drop)
        }
    });
    futures::stream::iter(creates).buffer_unordered(CLIENTS).try_for_each(|()| async { Ok(()) }).await?;
    let machines = Api::<VirtualMachine>::all(client);
    loop {
        let began = Instant::now();
        let all = machines.list(&ListParams::default()).await.context("list virtual machines")?.items;
        let running = all.iter().filter(|vm| objects::state(vm) == Some(VirtualMachineStatusType::Running)).count();
        if running == arguments.machines {
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(arguments.limit_seconds) {
            let waiting = all.iter().find(|vm| objects::state(vm) != Some(VirtualMachineStatusType::Running));
            let why = waiting.map(|vm| vm.message().to_owned()).unwrap_or_default();
            bail!(
                "{running} of {} virtual machines run, and the time is over; one that does not: {why}",
                arguments.machines
            );
        }
        tokio::time::sleep(PAUSE.max(began.elapsed() * PAUSES)).await;
    }
}

/// Measures while nothing happens.
async fn rest(platform: &Platform, arguments: &Arguments) -> Result<()> {
    // The work that the last start has set off comes to its end.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (commits, busy, since) = (platform.commits(), processor_time()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let (elapsed, now) = (since.elapsed().as_secs_f64(), processor_time()?);
    let share = |before: f64, after: f64| (after - before) / elapsed * 100.0;
    let (control, hosts) = (share(busy.control, now.control), share(busy.hosts, now.hosts));
    let commits = (platform.commits() - commits) as f64 / elapsed;
    println!(
        "at rest: control {control:.2} % of a core, agents {hosts:.2} %, {commits:.2} commits a second, {} MiB",
        memory()?
    );
    Ok(())
}

/// Processor time of this process so far, in seconds.
struct ProcessorTime {
    /// The time of the platform's threads.
    control: f64,
    /// The time of the agents' threads.
    hosts: f64,
}

fn processor_time() -> Result<ProcessorTime> {
    let mut sum = ProcessorTime { control: 0.0, hosts: 0.0 };
    for thread in std::fs::read_dir("/proc/self/task").context("list the threads")? {
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(thread.context("list the threads")?.path().join("stat")) else {
            continue;
        };
        let (name, fields) = stat.rsplit_once(')').context("a thread's stat has no name")?;
        // User and system time are the 12th and 13th field after the name.
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
        let seconds = ticks.sum::<f64>() / TICKS;
        let is_host = name.ends_with(&format!("({HOSTS}"));
        *(if is_host { &mut sum.hosts } else { &mut sum.control }) += seconds;
    }
    Ok(sum)
}

/// Resident memory of this process in MiB.
fn memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(line.context("/proc/self/status has no VmRSS")?.parse::<u64>()? / 1024)
}
