//! Removes what `evroc registry login` left in its user's home: without the cloud the credential is useless, and the CA
//! is obsolete.

use std::fs;
use std::io;
use std::path::Path;

use evroc_iam::files;
use serde_json::Value;

/// The folder below the home folder in which container tools look for a registry's CA: see `evroc registry login`.
const CERTIFICATES: [&str; 2] = [".config/containers/certs.d", ".config/docker/certs.d"];

/// Takes the registry's CA and credential out of the home folder; folders go when that empties them.
pub fn forget(home: &Path, registry: &str) -> io::Result<()> {
    for folder in CERTIFICATES {
        let own = home.join(folder).join(registry);
        absent(fs::remove_file(own.join("ca.crt")))?;
        // Up to the home folder, as long as nothing else is in them.
        own.ancestors().take_while(|folder| *folder != home).try_for_each(|folder| fs::remove_dir(folder).ok());
    }
    forget_credential(&home.join(".docker/config.json"), registry)
}

fn forget_credential(file: &Path, registry: &str) -> io::Result<()> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    // Not ours to repair: the tools that use it report its faults.
    let Ok(mut content) = serde_json::from_slice::<Value>(&bytes) else { return Ok(()) };
    let Some(auths) = content.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(()) };
    if auths.remove(registry).is_none() {
        return Ok(());
    }
    let is_empty = auths.is_empty() && content.as_object().is_some_and(|all| all.len() == 1);
    if is_empty {
        fs::remove_file(file)?;
        let _ = file.parent().map(fs::remove_dir);
        return Ok(());
    }
    let text = serde_json::to_vec_pretty(&content)?;
    files::write_atomic(file, &text, 0o600, None)
        .map_err(|error| io::Error::new(error.source.kind(), error.to_string()))
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = "registry.evroc.localhost:8443";

    #[test]
    fn only_the_files_of_a_login_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        for folder in CERTIFICATES {
            fs::create_dir_all(path(folder).join(OURS)).unwrap();
            fs::write(path(folder).join(OURS).join("ca.crt"), "x").unwrap();
        }
        fs::create_dir_all(path(".config/containers/certs.d/other")).unwrap();
        fs::create_dir(path(".docker")).unwrap();
        let config = path(".docker/config.json");
        fs::write(&config, json!({"auths": {OURS: {"auth": "x"}, "other": {}}, "credsStore": "y"}).to_string())
            .unwrap();
        forget(home.path(), OURS).unwrap();
        assert!(
            !path(".config/containers/certs.d").join(OURS).exists()
                && path(".config/containers/certs.d/other").exists()
        );
        assert!(!path(".config/docker").exists());
        let left: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        assert_eq!(left, json!({"auths": {"other": {}}, "credsStore": "y"}));
        forget(home.path(), "other").unwrap();
        assert!(config.exists(), "a setting of the user's is left");
        forget(home.path(), "nobody's").unwrap();
    }

    #[test]
    fn a_home_that_had_nothing_has_nothing() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".docker")).unwrap();
        fs::write(home.path().join(".docker/config.json"), json!({"auths": {OURS: {}}}).to_string()).unwrap();
        forget(home.path(), OURS).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
