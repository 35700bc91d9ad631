//! What .NET guests find in `/rt/dotnet`, and where it is kept between builds.
//!
//! `cargo xtask assets` compiles it; `build.rs` embeds it. Both include this file: the place is named after a hash of the
//! sources, so what is embedded is never older than they are.

use std::io;
use std::path::{Path, PathBuf};

use super::shared_object;

/// What it is built from, below the workspace's root.
pub(crate) const SOURCES: [&str; 3] = ["crates/sandbox/dotnet_assets.rs", "runtimes/dotnet", "scripts/csharp"];

/// Every file.
pub(crate) const FILES: [&str; 4] = ["dunlin.dll", "dunlin.runtimeconfig.json", "libssl.so.dunlin", "rehearsal/Sample.dll"];

/// The directory that belongs to the sources below `root`, whether it has been built yet or not.
pub(crate) fn directory(root: &Path) -> io::Result<PathBuf> {
    Ok(shared_object::cache()?.join("assets").join(shared_object::key(root, &SOURCES)?))
}
