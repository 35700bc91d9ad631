//! The files that guests find in `/rt`: the runtimes' bootstraps, and the shared object of `walls` that the Python zygote
//! loads. They are embedded when the binary is built (`build.rs`), so one file is all there is to install.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Name below `/rt`, and content.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Every embedded file: its name below `/rt`, and its content.
pub fn files() -> &'static [(&'static str, &'static [u8])] {
    FILES
}

/// Writes the files to `dir/rt`, which becomes `/rt` in guests, and returns that directory. Whatever an earlier version
/// of the platform left there goes. The caller holds the lock on `dir` and has no guests yet.
pub(crate) fn install(dir: &Path) -> io::Result<PathBuf> {
    let target = dir.join("rt");
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for (name, content) in FILES {
        let path = target.join(name);
        let parent = path.parent().expect("a file below a directory has a parent");
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?.write_all(content)?;
        // Whatever the umask says: a guest has to be able to read it.
        fs::set_permissions(&path, Permissions::from_mode(0o444))?;
        for directory in parent.ancestors().take_while(|directory| directory.starts_with(&target)) {
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bootstraps_need_is_embedded() {
        let names: Vec<&str> = files().iter().map(|(name, _)| *name).collect();
        let python = ["python/libdunlin_walls.so", "python/zygote.py", "python/bootstrap.py"];
        let others = ["java/dunlin.jar", "java/libdunlin_java.so", "php/bootstrap.php", "php/php.ini", "dotnet/dunlin.dll"];
        for name in python.into_iter().chain(others) {
            assert!(names.contains(&name), "{name} is missing from {names:?}");
        }
        assert!(files().iter().all(|(_, content)| !content.is_empty()));
    }

    #[test]
    fn installing_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rt")).unwrap();
        fs::write(dir.path().join("rt/stale.py"), "old").unwrap();
        for _ in 0..2 {
            let rt = install(dir.path()).unwrap();
            assert!(!rt.join("stale.py").exists());
            for (name, content) in files() {
                assert_eq!(fs::read(rt.join(name)).unwrap(), *content);
                assert_eq!(fs::metadata(rt.join(name)).unwrap().permissions().mode() & 0o777, 0o444);
            }
        }
    }
}
