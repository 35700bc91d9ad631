//! What Java guests find in `/rt/java`, and where it is kept between builds.
//!
//! `cargo xtask assets` compiles our own part and fetches the libraries; `build.rs` embeds the lot. Both include this file:
//! the place is named after a hash of our sources and of this list, so what is embedded is never older than they are.

use std::io;
use std::path::{Path, PathBuf};

use super::shared_object;

/// What it is built from, below the workspace's root.
const SOURCES: [&str; 2] = ["crates/sandbox/java_assets.rs", "runtimes/java"];

/// Directories of sources, below the workspace's root, that `build.rs` watches.
#[allow(dead_code, reason = "xtask has no use for it")]
pub(crate) const WATCHED: [&str; 2] = SOURCES;

/// A library as Maven Central has it.
pub(crate) struct Library {
    /// The file's name for guests.
    pub(crate) name: &'static str,
    /// Its path in the repository.
    #[allow(dead_code, reason = "build.rs has no use for it")]
    pub(crate) path: &'static str,
    /// The SHA-256 of its content.
    #[allow(dead_code, reason = "build.rs has no use for it")]
    pub(crate) sha256: &'static str,
}

/// The vendor's interfaces, and the library that turns users' objects into JSON and back.
pub(crate) const LIBRARIES: [Library; 3] = [
    Library {
        name: "fc-java-core.jar",
        path: "com/aliyun/fc/runtime/fc-java-core/1.4.1/fc-java-core-1.4.1.jar",
        sha256: "f7c27f7c1a4486d3d40d8bfd720a232fccf8f396fea93f905281d40707697154",
    },
    Library {
        name: "jackson-core.jar",
        path: "com/fasterxml/jackson/core/jackson-core/2.22.4/jackson-core-2.22.4.jar",
        sha256: "2d30c375cddea9657a1e1ef97547a2694b663b355facb4de53a097782b312d1a",
    },
    Library {
        name: "jackson-jr-objects.jar",
        path: "com/fasterxml/jackson/jr/jackson-jr-objects/2.22.4/jackson-jr-objects-2.22.4.jar",
        sha256: "70b093d2023eb687109bea31cfc7033306b398640086e7b0cc7dbe3752727cca",
    },
];

/// What is compiled from `runtimes/java`.
pub(crate) const BUILT: [&str; 5] = [
    "dunlin.jar",
    "libdunlin_java.so",
    "rehearsal/dunlin/rehearsal/Idioms.class",
    "rehearsal/dunlin/rehearsal/Stream.class",
    "rehearsal/lib/bean.jar",
];

/// The directory that belongs to the sources below `root`, whether it has been built yet or not.
pub(crate) fn directory(root: &Path) -> io::Result<PathBuf> {
    Ok(shared_object::cache()?.join("assets").join(shared_object::key(root, &SOURCES)?))
}

/// Every file in it.
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    LIBRARIES.iter().map(|library| library.name).chain(BUILT)
}
