//! Finds the program of a container in its root folder, before a runtime executes it.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

/// The reason why the container's command leads to no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// There is no such file, or not in any folder of PATH.
    #[error("cannot be started: it has no program {0:?}")]
    Missing(String),
    /// A file of that name exists, but no user may execute it.
    #[error("cannot be started: {0:?} is not an executable file: add `RUN chmod +x`")]
    NotExecutable(String),
}

/// Checks that `program` names an executable file, as `execvp` would find it in the container.
pub fn find_program(rootfs: &Path, cwd: &str, program: &str, env: &[String]) -> Result<(), ProgramError> {
    let missing = || ProgramError::Missing(program.to_owned());
    if program.contains('/') {
        return match look(rootfs, &Path::new("/").join(cwd).join(program)) {
            Some(true) => Ok(()),
            Some(false) => Err(ProgramError::NotExecutable(program.to_owned())),
            None => Err(missing()),
        };
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    let found = path.split(':').filter_map(|folder| look(rootfs, &Path::new("/").join(cwd).join(folder).join(program)));
    match found.max() {
        Some(true) => Ok(()),
        Some(false) => Err(ProgramError::NotExecutable(program.to_owned())),
        None => Err(missing()),
    }
}

/// Whether the file is executable; `None` if there is none.
fn look(rootfs: &Path, path: &Path) -> Option<bool> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, rootfs, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).ok()?;
    let stat = fstat(file).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        for (name, mode) in [("run", 0o755), ("text", 0o644)] {
            let path = root.path().join("usr/bin").join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("usr/bin", root.path().join("bin")).unwrap();
        symlink("/usr/bin/run", root.path().join("entry")).unwrap();
        symlink("/etc/passwd", root.path().join("outside")).unwrap();
        let env = ["A=1".to_owned(), "PATH=/sbin:/bin".to_owned()];
        let find = |cwd: &str, program: &str| find_program(root.path(), cwd, program, &env);
        for (cwd, program) in
            [("", "run"), ("", "/bin/run"), ("/usr", "bin/run"), ("", "/entry"), ("/usr/bin", "./run")]
        {
            assert_eq!(find(cwd, program), Ok(()), "{cwd} {program}");
        }
        for program in ["nope", "/nope", "/outside", "./run"] {
            assert_eq!(find("", program), Err(ProgramError::Missing(program.into())), "{program}");
        }
        for program in ["text", "/usr/bin/text", "/usr"] {
            assert_eq!(find("", program), Err(ProgramError::NotExecutable(program.into())), "{program}");
        }
    }
}
