//! Where the shared object of this crate is kept between builds.
//!
//! It is built by `cargo xtask assets` and embedded by `crates/sandbox`. Both have to agree on which build belongs to
//! the sources at hand, so both include this file: the place is named after a hash of the sources. What is embedded
//! is therefore never older than they are.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The file's name, in the cache and in the guest.
pub(crate) const NAME: &str = "libdunlin_walls.so";

/// What it is built from, below the workspace's root. The versions of its dependencies are left out on purpose: they
/// change with every other crate's, and nothing crosses between the two builds but the C interface.
pub(crate) const SOURCES: [&str; 2] = ["crates/walls/Cargo.toml", "crates/walls/src"];

/// The file that belongs to the sources below `root`, whether it has been built yet or not.
pub(crate) fn path(root: &Path) -> io::Result<PathBuf> {
    Ok(cache()?.join("assets").join(key(root, &SOURCES)?).join(NAME))
}

/// `$DUNLIN_CACHE`, or `~/.cache/dunlin`.
pub(crate) fn cache() -> io::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DUNLIN_CACHE")
        .or_else(|| set("HOME").map(|home| home.join(".cache/dunlin")))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "neither DUNLIN_CACHE nor HOME is set"))
}

/// A hash of the names and contents of `sources` below `root`.
pub(crate) fn key(root: &Path, sources: &[&str]) -> io::Result<String> {
    let mut files = Vec::new();
    for source in sources {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let bytes = std::fs::read(&file)?;
        hash.update(format!("{}\0{}\0", name.display(), bytes.len()));
        hash.update(&bytes);
    }
    hash.update(std::env::consts::ARCH);
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
