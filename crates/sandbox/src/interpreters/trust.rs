//! Whom a program belongs to, and what showing it to guests would show.
//!
//! The supervisor is root, asks interpreters for their version and starts zygotes of them: whoever can replace one is root
//! as well.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const STICKY: u32 = 0o1000;
const WRITE_OTHERS: u32 = 0o002;
const READ_AND_ENTER_OTHERS: u32 = 0o005;

/// Whether nobody but root and `owner` can change the file at `real` or put another one in its place. The path has no
/// links.
pub(super) fn check(real: &Path, owner: Option<u32>) -> Result<(), String> {
    for path in real.ancestors() {
        let found = fs::symlink_metadata(path).map_err(|error| format!("cannot be looked at: {error}"))?;
        let what = || if path == real { String::new() } else { format!(" ({} does)", path.display()) };
        if found.uid() != 0 && Some(found.uid()) != owner {
            return Err(format!("belongs to user {}, who would be root{}", found.uid(), what()));
        }
        if found.mode() & WRITE_OTHERS != 0 && !(found.is_dir() && found.mode() & STICKY != 0) {
            return Err(format!("can be changed by every user, who would be root{}", what().replace("does", "can")));
        }
    }
    Ok(())
}

/// What functions have of their own, or never see, at the top of their root.
const RESERVED: [&str; 14] =
    ["bin", "boot", "code", "dev", "etc", "lib", "lib64", "proc", "rt", "run", "sbin", "sys", "tmp", "w"];

/// Whether `home`, the directory an interpreter is installed in, may be shown to guests whole, and can be read by them.
pub(super) fn can_be_shown(root: &Path, home: &Path, homes: &[PathBuf]) -> Result<(), String> {
    let below = home.strip_prefix(root).unwrap_or(home);
    let top = below.iter().next().unwrap_or_default();
    if RESERVED.iter().any(|reserved| top == *reserved) || below.starts_with("var/tmp") || below.starts_with("var/run") {
        let top = Path::new("/").join(top);
        return Err(format!("is below {}, of which functions have their own; install it elsewhere", top.display()));
    }
    let depth = below.components().count();
    let is_a_users = |path: &Path| homes.iter().any(|known| known == path) || path.parent() == Some(&root.join("home"));
    if depth < 2 || is_a_users(home) || home.file_name().is_some_and(|name| name == ".local") {
        let home = home.display();
        return Err(format!("is not in a directory of its own: functions would see everything in {home}; install it elsewhere"));
    }
    for path in [home, &home.join("bin")].into_iter().filter(|path| path.exists()) {
        let found = fs::metadata(path).map_err(|error| format!("cannot be looked at: {error}"))?;
        if found.mode() & READ_AND_ENTER_OTHERS != READ_AND_ENTER_OTHERS {
            return Err(format!("cannot be read by functions, which are other users: chmod -R o+rX {}", home.display()));
        }
    }
    Ok(())
}
