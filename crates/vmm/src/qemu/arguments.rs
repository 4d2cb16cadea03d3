//! QEMU's command line as a pure function of the guest.

use std::path::Path;

use serde_json::{Value, json};

use super::hardware;
use crate::config::{Accelerator, DiskConfig, DiskFormat, DiskSource, GuestConfig, NicConfig};

/// PCI slots are fixed so that adding a disk never renames a network interface in a guest. 0 and 1 are the chipset's.
const NIC_SLOT: usize = 2;
const RNG_SLOT: usize = 3;
const SCSI_SLOT: usize = 4;
const FIRST_DISK_SLOT: usize = 5;
/// Cache of translated code in MiB. QEMU's default grows to 1 GiB in each guest, which no memory limit expects; below 64 a Linux
/// guest is translated again and again.
const TCG_CACHE_MIB: u32 = 128;

/// The arguments (without the program's name) for a guest that is valid.
/// `takes_open_kvm`: see [`super::Qemu`].
pub fn arguments(guest: &GuestConfig, takes_open_kvm: bool) -> Vec<String> {
    let mut line = Line::default();
    line.flag("-nodefaults").flag("-no-user-config");
    line.option("-name", format!("guest={},debug-threads=on", guest.name));
    line.option("-uuid", guest.uuid.clone());
    let machine = format!("{},usb=off,vmport=off,dump-guest-core=off,memory-backend=ram", guest.machine_type);
    match guest.accelerator {
        Accelerator::Kvm { fd } => {
            // The guest has kvmclock, and an emulated HPET only costs exits. Under TCG it shortens the boot.
            line.option("-machine", format!("{machine},hpet=off"));
            if takes_open_kvm {
                line.option("-add-fd", format!("fd={fd},set=1,opaque=kvm"));
                line.option("-accel", "kvm,device=/dev/fdset/1".into());
            } else {
                line.option("-accel", "kvm".into());
            }
        }
        Accelerator::Tcg => {
            line.option("-machine", machine);
            line.option("-accel", format!("tcg,thread=multi,tb-size={TCG_CACHE_MIB}"));
        }
    }
    line.option("-cpu", hardware::cpu_argument(&guest.cpu_model));
    // A guest that sleeps answers no request, and no component would wake it.
    line.option("-global", "PIIX4_PM.disable_s3=1".into());
    line.option("-global", "PIIX4_PM.disable_s4=1".into());
    line.option("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", guest.vcpus));
    line.option("-m", format!("size={}M", guest.memory_bytes >> 20));
    line.option("-object", format!("memory-backend-ram,id=ram,size={}M", guest.memory_bytes >> 20));
    line.option("-smbios", format!("type=1,manufacturer=evroc,product=Virtual Machine,uuid={}", guest.uuid));
    line.option("-rtc", "base=utc".into());
    line.option("-boot", "menu=off,strict=on".into());
    line.option("-display", "none".into());
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into());
    line.option("-msg", "timestamp=on".into());

    line.option("-chardev", format!("socket,id=monitor,fd={},server=on,wait=off", guest.monitor_fd));
    line.option("-mon", "chardev=monitor,mode=control".into());
    line.option("-chardev", "stdio,id=serial,signal=off".into());
    line.option("-device", "isa-serial,chardev=serial".into());

    if let Some(nic) = &guest.nic {
        line.nic(nic);
    }
    line.option("-object", "rng-builtin,id=rng".into());
    line.device(json!({ "driver": "virtio-rng-pci", "rng": "rng", "addr": slot(RNG_SLOT) }));
    line.device(json!({ "driver": "virtio-scsi-pci", "id": "scsi", "addr": slot(SCSI_SLOT) }));
    for (index, disk) in guest.disks.iter().enumerate() {
        line.disk(disk, FIRST_DISK_SLOT + index);
    }
    line.0
}

/// The block device of a disk, for `-blockdev` and `blockdev-add`: every layer named, none found by looking into a file.
pub(super) fn block_device(id: &str, source: &DiskSource, is_read_only: bool) -> Value {
    let DiskSource::File { path, format } = source;
    let file =
        |name: &str, path: &Path| json!({ "driver": "file", "filename": path, "node-name": name, "discard": "unmap" });
    let own = format!("{id}-file");
    match format {
        DiskFormat::Raw => json!({
            "driver": "raw", "node-name": id, "read-only": is_read_only, "discard": "unmap", "file": file(&own, path),
        }),
        DiskFormat::Qcow2 { backing } => {
            let backing = backing.as_deref().map(|path| {
                json!({
                    "driver": "qcow2", "node-name": format!("{id}-base"), "read-only": true, "backing": null,
                    "file": { "driver": "file", "filename": path, "read-only": true },
                })
            });
            json!({
                "driver": "qcow2", "node-name": id, "read-only": is_read_only, "discard": "unmap",
                "backing": backing, "file": file(&own, path),
            })
        }
    }
}

fn slot(number: usize) -> String {
    format!("0x{number:x}")
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: String) {
        self.0.extend([name.to_owned(), value]);
    }

    /// Options as JSON cannot be broken out of by a comma in a value.
    fn device(&mut self, device: Value) {
        self.option("-device", device.to_string());
    }

    fn nic(&mut self, nic: &NicConfig) {
        self.option("-netdev", format!("tap,id=net,fd={},vhost=off", nic.tap_fd));
        let mut device = json!({
            "driver": "virtio-net-pci", "netdev": "net", "mac": nic.mac, "romfile": "", "addr": slot(NIC_SLOT),
        });
        if let Some(mtu) = nic.mtu {
            device["host_mtu"] = mtu.into();
        }
        self.device(device);
    }

    fn disk(&mut self, disk: &DiskConfig, number: usize) {
        self.option("-blockdev", block_device(&disk.id, &disk.source, disk.is_read_only).to_string());
        let mut device = json!({
            "driver": "virtio-blk-pci", "id": format!("{}-device", disk.id), "drive": disk.id, "serial": disk.serial,
            "addr": slot(number),
        });
        if let Some(index) = disk.boot_index {
            device["bootindex"] = index.into();
        }
        self.device(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Hypervisor as _;
    use crate::qemu::Qemu;

    fn file(path: &str, format: DiskFormat) -> DiskSource {
        DiskSource::File { path: path.into(), format }
    }

    fn disk(id: &str, boot_index: Option<u32>, backing: Option<&str>) -> DiskConfig {
        let format = DiskFormat::Qcow2 { backing: backing.map(Into::into) };
        DiskConfig {
            id: id.into(),
            source: file(&format!("/var/lib/evroc/node/volumes/{id}/disk.qcow2"), format),
            serial: format!("serial-{id}"),
            boot_index,
            is_read_only: false,
        }
    }

    fn guest() -> GuestConfig {
        GuestConfig {
            name: "hello".into(),
            uuid: "3f0c6c5e-6a9f-4a55-8a0e-000000000001".into(),
            vcpus: 2,
            memory_bytes: 512 << 20,
            accelerator: Accelerator::Tcg,
            machine_type: "pc-i440fx-7.2".into(),
            cpu_model: "x86-64-v3".into(),
            disks: vec![
                disk("disk0", Some(0), Some("/var/lib/evroc/node/images/tiny/disk.qcow2")),
                DiskConfig {
                    id: "seed".into(),
                    source: file("/var/lib/evroc/node/machines/m/seed.img", DiskFormat::Raw),
                    serial: "cidata".into(),
                    boot_index: None,
                    is_read_only: true,
                },
                disk("disk1", None, None),
            ],
            nic: Some(NicConfig { tap_fd: 21, mac: "02:00:00:00:00:05".into(), mtu: Some(1400) }),
            monitor_fd: 20,
        }
    }

    /// One option a line.
    fn page(arguments: &[String]) -> String {
        arguments.iter().fold(String::new(), |page, part| match part.strip_prefix('-') {
            Some(_) if page.is_empty() => part.clone(),
            Some(_) => format!("{page}\n{part}"),
            None => format!("{page} {part}"),
        })
    }

    #[test]
    fn command_line_of_a_typical_guest() {
        insta::assert_snapshot!("typical", page(&arguments(&guest(), true)));
    }

    #[test]
    fn command_line_with_hardware() {
        let guest =
            GuestConfig { accelerator: Accelerator::Kvm { fd: 22 }, cpu_model: "host".into(), nic: None, ..guest() };
        insta::assert_snapshot!("hardware", page(&arguments(&guest, true)));
        assert_eq!(Qemu::default().command(&guest).unwrap().fds, [20, 22]);
        let old = arguments(&guest, false).join(" ");
        assert!(old.contains("-accel kvm -cpu host") && !old.contains("fdset"), "{old}");
    }

    #[test]
    fn what_must_be_absent() {
        let line = arguments(&guest(), true).join(" ");
        for forbidden in ["-kernel", "-initrd", "user,id", "-netdev user", "vhost=on", "-daemonize", "-snapshot"] {
            assert!(!line.contains(forbidden), "{forbidden} in {line}");
        }
    }

    #[test]
    fn texts_cannot_become_options() {
        let with = |change: fn(&mut GuestConfig)| {
            let mut guest = guest();
            change(&mut guest);
            Qemu::default().command(&guest).unwrap_err().to_string()
        };
        let cases = [
            (with(|guest| guest.name = "a,b=c".into()), "name"),
            (with(|guest| guest.machine_type = "pc,x=y".into()), "machineType"),
            (with(|guest| guest.cpu_model = "max,+x".into()), "cpuModel"),
            (with(|guest| guest.uuid = "1,manufacturer=x".into()), "uuid"),
            (with(|guest| guest.disks[0].serial = "x,y".into()), "disks[0].serial"),
            (with(|guest| guest.disks[0].serial = "a-serial-that-is-far-too-long".into()), "disks[0].serial"),
            (with(|guest| guest.disks[2].id = "disk0".into()), "disks[2].id"),
            (with(|guest| guest.disks.iter_mut().for_each(|disk| disk.boot_index = None)), "disks"),
            (with(|guest| guest.memory_bytes += 1), "memoryBytes"),
            (with(|guest| guest.vcpus = 0), "vcpus"),
            (with(|guest| guest.nic.as_mut().unwrap().mac = "01:00:00:00:00:05".into()), "nic.mac"),
        ];
        for (error, field) in cases {
            assert!(error.starts_with(&format!("{field}: expected ")), "{error}");
        }
    }
}
