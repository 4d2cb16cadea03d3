//! Outside truth: the abilities of the machine and the images, shown with QEMU and runc by hand and without a line of the product.
//!
//! When one of these fails, no test of the product can pass, and the machine or the image is to blame. Needs root, as the product
//! does. Each test makes a network namespace and a folder with a random name and removes them however it ends.

mod container;
mod guest;
mod image;
mod sandbox;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evroc_tests::process::eventually;

use container::Container;
use guest::{Guest, Key, Seed};
use sandbox::{Folder, Namespace};

/// An emulated processor on a machine whose cores are busy with other tests: some thirty times what it takes on an idle one.
const BOOT: Duration = Duration::from_secs(150);
/// The same for a guest with systemd and cloud-init: 40 s on an idle machine.
const BOOT_DEBIAN: Duration = Duration::from_secs(400);
/// From the power button to the end of QEMU; three seconds on an idle machine.
const STOP: Duration = Duration::from_secs(60);
/// A container's start or stop.
const CONTAINER: Duration = Duration::from_secs(30);

#[test]
fn a_guest_boots_from_its_own_disk_and_keeps_its_data() -> Result<()> {
    let disk_image = image::folder("tiny.1-0.1")?.join("disk.qcow2");
    let folder = Folder::new()?;
    let namespace = Namespace::new()?;
    namespace.add_tap("tap0", "10.0.0.1/24")?;
    let dhcp = namespace.dhcp_server(&folder, "tap0", "10.0.0.1", "10.0.0.3")?;
    let key = Key::new(&folder)?;
    let disk = guest::overlay(&folder, &disk_image, "1G")?;

    let seed = Seed { instance: "first", hostname: "one", key: &key }.write(&folder)?;
    let mut first = Guest::boot(&namespace, &folder, &disk, &seed, "tap0")?;
    first.wait_for_serial("evroc-guest: ready hostname=one address=10.0.0.3/24", BOOT)?;
    first.wait_for_serial("one login:", BOOT)?;
    dhcp.wait_for("leased 10.0.0.3 to 52:54:00:00:00:03", BOOT)?;
    let system = key.ssh(&namespace, "10.0.0.3", "uname -sm; hostname; id -un", BOOT)?;
    ensure!(system == "Linux x86_64\none\nevroc-user\n", "found: {system}");
    key.ssh(&namespace, "10.0.0.3", "echo written by the first guest >marker", BOOT)?;
    // The image is half a gigabyte; its file system has grown to the disk.
    let kilobytes = key.ssh(&namespace, "10.0.0.3", "df -P -k / | awk 'NR == 2 { print $2 }'", BOOT)?;
    ensure!(kilobytes.trim().parse::<u64>().context("the size of /")? > 900_000, "/ has {kilobytes} KB of 1 GB");
    first.power_button()?;
    first.wait_for_end(STOP)?;

    let seed = Seed { instance: "second", hostname: "two", key: &key }.write(&folder)?;
    let mut second = Guest::boot(&namespace, &folder, &disk, &seed, "tap0")?;
    second.wait_for_serial("two login:", BOOT)?;
    let found = key.ssh(&namespace, "10.0.0.3", "cat marker; hostname", BOOT)?;
    ensure!(found == "written by the first guest\ntwo\n", "found: {found}");
    second.power_button()?;
    second.wait_for_end(STOP)
}

#[test]
fn a_full_debian_boots_from_its_own_disk_and_follows_its_seed() -> Result<()> {
    let disk_image = image::folder("debian.12-0.1")?.join("disk.qcow2");
    let folder = Folder::new()?;
    let namespace = Namespace::new()?;
    namespace.add_tap("tap0", "10.0.0.1/24")?;
    let _dhcp = namespace.dhcp_server(&folder, "tap0", "10.0.0.1", "10.0.0.3")?;
    let key = Key::new(&folder)?;
    let disk = guest::overlay(&folder, &disk_image, "6G")?;

    let seed = Seed { instance: "first", hostname: "full", key: &key }.write(&folder)?;
    let mut guest = Guest::boot(&namespace, &folder, &disk, &seed, "tap0")?;
    guest.wait_for_serial("full login:", BOOT_DEBIAN)?;
    guest.wait_for_serial("evroc-guest: ready", BOOT_DEBIAN)?;
    let status = key.ssh(&namespace, "10.0.0.3", "cloud-init status; hostname; id -un", BOOT_DEBIAN)?;
    ensure!(status == "status: done\nfull\nevroc-user\n", "found: {status}");
    let kilobytes = key.ssh(&namespace, "10.0.0.3", "df -k --output=size / | tail -n 1", BOOT_DEBIAN)?;
    ensure!(kilobytes.trim().parse::<u64>().context("the size of /")? > 5_500_000, "/ has {kilobytes} KB of 6 GB");
    guest.power_button()?;
    guest.wait_for_end(STOP)
}

#[test]
fn a_container_without_root_answers_in_its_own_network_and_stops_on_request() -> Result<()> {
    let layout = image::Layout::open(&image::folder("hello")?)?;
    let folder = Folder::new()?;
    let namespace = Namespace::new()?;
    let image = layout.image("latest")?;
    ensure!(image.user() == Some("65532:65532"), "the user of hello:latest is {:?}", image.user());
    ensure!(layout.image("root")?.user().is_none(), "hello:root must have no user: it exists to be refused");

    let mut container =
        Container::start(&folder, &namespace, &image, &[("PORT", "9000"), ("GREETING", "Good morning")])?;
    let mut answer = String::new();
    let answered = eventually(CONTAINER, || {
        namespace.output(&["curl", "-sS", "--max-time", "5", "http://127.0.0.1:9000/?a=1"]).is_ok_and(|text| {
            answer = text;
            true
        })
    });
    ensure!(answered, "no answer; the container's log: {}", container.log());
    ensure!(answer.starts_with("Good morning\nmethod: GET\nuri: /?a=1\n"), "found: {answer}");
    ensure!(answer.contains("user: 65532:65532"), "found: {answer}");
    container.wait_for_log("GET /?a=1 200", CONTAINER)?;

    let status = container.process_status()?;
    for expected in ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        ensure!(status.contains(expected), "expected `{expected}` in the process's status, found: {status}");
    }
    // Its only link is its own loopback.
    let links = namespace.output(&["ip", "-o", "link", "show"])?;
    ensure!(links.lines().count() == 1 && links.contains(" lo: "), "links: {links}");

    container.signal("TERM")?;
    let code = container.wait_for_end(CONTAINER)?;
    ensure!(code == Some(0), "exit code {code:?}; log: {}", container.log());
    Ok(())
}
