//! A guest in QEMU: booted by its firmware from the bytes of its disk, on an emulated processor.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::process::eventually;
use serde_json::{Value, json};

use super::sandbox::{Folder, Namespace, Process, run, text};

/// A running QEMU.
pub struct Guest {
    process: Process,
    serial: PathBuf,
    monitor: PathBuf,
}

impl Guest {
    /// Starts QEMU in the namespace with a disk, a seed and a tap.
    pub fn boot(namespace: &Namespace, folder: &Folder, disk: &Path, seed: &Path, tap: &str) -> Result<Guest> {
        let (serial, monitor) = (folder.join("serial.log"), folder.join("monitor.sock"));
        for old in [&serial, &monitor] {
            let _ = fs::remove_file(old);
        }
        let path = |path: &Path| path.display().to_string();
        let arguments = [
            "qemu-system-x86_64".to_owned(),
            "-nodefaults".to_owned(),
            "-no-user-config".to_owned(),
            "-no-reboot".to_owned(),
            "-display".to_owned(),
            "none".to_owned(),
            "-machine".to_owned(),
            "q35".to_owned(),
            "-accel".to_owned(),
            "tcg".to_owned(),
            "-cpu".to_owned(),
            "max".to_owned(),
            "-smp".to_owned(),
            "1".to_owned(),
            "-m".to_owned(),
            "512".to_owned(),
            "-blockdev".to_owned(),
            json!({"driver": "qcow2", "node-name": "boot", "discard": "unmap", "file": {"driver": "file", "filename": path(disk)}}).to_string(),
            "-device".to_owned(),
            "virtio-blk-pci,drive=boot,bootindex=1".to_owned(),
            "-blockdev".to_owned(),
            json!({"driver": "raw", "node-name": "seed", "read-only": true, "file": {"driver": "file", "filename": path(seed)}}).to_string(),
            "-device".to_owned(),
            "virtio-blk-pci,drive=seed".to_owned(),
            "-netdev".to_owned(),
            format!("tap,id=net,ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            "virtio-net-pci,netdev=net,mac=52:54:00:00:00:03,romfile=".to_owned(),
            "-device".to_owned(),
            "virtio-rng-pci".to_owned(),
            "-chardev".to_owned(),
            format!("file,id=serial,path={}", path(&serial)),
            "-serial".to_owned(),
            "chardev:serial".to_owned(),
            "-qmp".to_owned(),
            format!("unix:{},server=on,wait=off", path(&monitor)),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(&mut namespace.command(&arguments), folder.join("qemu.log"))?;
        Ok(Guest { process, serial, monitor })
    }

    /// Waits until the serial console has shown the text.
    pub fn wait_for_serial(&mut self, arguments: &str, within: Duration) -> Result<()> {
        let mut ended = None;
        let seen = eventually(within, || {
            ended = self.process.ended().ok().flatten();
            ended.is_some() || text(&self.serial).contains(arguments)
        });
        let shown = text(&self.serial);
        if let Some(status) = ended {
            bail!("QEMU ended ({status}) before `{arguments}`: {}; serial console: {shown}", self.process.log());
        }
        ensure!(seen, "expected `{arguments}` on the serial console within {} s, found: {shown}", within.as_secs());
        Ok(())
    }

    /// Presses the power button.
    pub fn power_button(&self) -> Result<()> {
        let stream = UnixStream::connect(&self.monitor).context("connect to QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().context("QEMU's monitor is silent")??;
        for command in ["qmp_capabilities", "system_powerdown"] {
            writeln!(&stream, "{}", json!({"execute": command}))?;
            // Events may come in between.
            loop {
                let answer: Value = serde_json::from_str(&lines.next().context("QEMU's monitor closed")??)?;
                ensure!(answer.get("error").is_none(), "{command}: {answer}");
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits until the guest has switched itself off.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<()> {
        let ending = self.process.wait_for_end(within);
        let status =
            ending.with_context(|| format!("stop by the power button; serial console: {}", text(&self.serial)))?;
        ensure!(status.success(), "QEMU: {status}: {}", self.process.log());
        Ok(())
    }
}

/// A disk of its own over the bytes of an image.
pub fn overlay(folder: &Folder, image: &Path, size: &str) -> Result<PathBuf> {
    let disk = folder.join("disk.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(image)
        .arg(&disk)
        .arg(size))?;
    Ok(disk)
}

/// An ssh key pair.
pub struct Key {
    private: PathBuf,
    public: String,
}

impl Key {
    /// A new one, in the folder.
    pub fn new(folder: &Folder) -> Result<Key> {
        let private = folder.join("id_ed25519");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "by-hand", "-f"]).arg(&private))?;
        let public = fs::read_to_string(private.with_extension("pub"))?.trim().to_owned();
        Ok(Key { private, public })
    }

    /// Returns the output of a command in the guest; retried until the guest's ssh server answers.
    pub fn ssh(&self, namespace: &Namespace, address: &str, command: &str, within: Duration) -> Result<String> {
        let key = self.private.display().to_string();
        let target = format!("evroc-user@{address}");
        // The last three options turn a guest that does not answer yet into a quick error instead of a prompt.
        let arguments = [
            "ssh",
            "-F",
            "none",
            "-i",
            &key,
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            &target,
            command,
        ];
        let mut last = None;
        eventually(within, || {
            let result = namespace.output(&arguments);
            let again = result.as_ref().is_err_and(|error| format!("{error:#}").contains("exit status: 255"));
            last = Some(result);
            !again
        });
        last.context("not tried")?.with_context(|| format!("run `{command}` in the guest"))
    }
}

/// The content of a guest's NoCloud seed.
pub struct Seed<'a> {
    /// Another instance than the last means a first boot.
    pub instance: &'a str,
    /// The guest's name.
    pub hostname: &'a str,
    /// The keys that may log in.
    pub key: &'a Key,
}

impl Seed<'_> {
    /// Writes it as a FAT file system in a file.
    pub fn write(&self, folder: &Folder) -> Result<PathBuf> {
        let (seed, meta, user) = (folder.join("seed.img"), folder.join("meta-data"), folder.join("user-data"));
        let key = &self.key.public;
        fs::write(
            &meta,
            json!({"instance-id": self.instance, "local-hostname": self.hostname, "public-keys": [key]}).to_string(),
        )?;
        let account = format!("#cloud-config\nusers:\n  - name: evroc-user\n    ssh_authorized_keys:\n      - {key}\n");
        fs::write(&user, account)?;
        fs::File::create(&seed)?.set_len(1 << 20)?;
        run(Command::new("mformat")
            .arg("-i")
            .arg(&seed)
            .args(["-v", "CIDATA", "-T", "2048", "-h", "16", "-s", "32", "::"]))?;
        run(Command::new("mcopy").arg("-i").arg(&seed).args([&meta, &user]).arg("::"))?;
        Ok(seed)
    }
}
