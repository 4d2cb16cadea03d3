//! The files that QEMU needs while it runs. Pure.

use std::path::{Path, PathBuf};

use crate::config::{DiskConfig, DiskFormat, DiskSource};
use crate::driver::{Access, NeededFile};

/// Its libraries, firmware and the loader's settings, as Debian's packages place them.
const INSTALLED: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/etc/ld.so.cache",
    // Libraries of which several versions are installed are links into this folder.
    "/etc/alternatives",
    "/dev/null",
];

/// The program's own files, and the guest's disks with the images below them.
pub(super) fn needed(program: &Path, disks: &[DiskConfig], opens_kvm: bool) -> Vec<NeededFile> {
    let read = |path: &Path| NeededFile { path: path.to_owned(), access: Access::Read };
    let device = |path: &str| NeededFile { path: PathBuf::from(path), access: Access::Device };
    let mut all = vec![read(program)];
    all.extend(INSTALLED.iter().map(|path| match path.starts_with("/dev/") {
        true => device(path),
        false => read(Path::new(path)),
    }));
    all.extend(opens_kvm.then(|| device("/dev/kvm")));
    for disk in disks {
        let DiskSource::File { path, format } = &disk.source;
        let access = if disk.is_read_only { Access::Read } else { Access::Write };
        all.push(NeededFile { path: path.clone(), access });
        if let DiskFormat::Qcow2 { backing: Some(backing) } = format {
            all.push(read(backing));
        }
    }
    // Disks that were cloned from one image have it in common.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|file| seen.insert(file.path.clone()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guests_own_disks_can_be_written() {
        let disk = |id: &str, is_read_only, format| DiskConfig {
            id: id.into(),
            source: DiskSource::File { path: format!("/volumes/{id}").into(), format },
            serial: id.into(),
            boot_index: None,
            is_read_only,
        };
        let clone = || DiskFormat::Qcow2 { backing: Some("/images/base".into()) };
        let disks = [disk("a", false, clone()), disk("b", false, clone()), disk("seed", true, DiskFormat::Raw)];
        let files = needed(Path::new("/usr/bin/qemu-system-x86_64"), &disks, true);
        let with = |access| -> Vec<&str> {
            files.iter().filter(|it| it.access == access).filter_map(|it| it.path.to_str()).collect()
        };
        assert_eq!(with(Access::Write), ["/volumes/a", "/volumes/b"]);
        assert_eq!(with(Access::Device), ["/dev/null", "/dev/kvm"]);
        let read = with(Access::Read);
        assert!(read.contains(&"/usr/bin/qemu-system-x86_64") && read.contains(&"/volumes/seed"), "{read:?}");
        assert_eq!(read.iter().filter(|path| **path == "/images/base").count(), 1);
    }
}
