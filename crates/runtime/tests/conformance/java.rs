//! Java's part of the suite: where its files are, and the compiling of all cases' code by one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::case::runtimes;

/// What guests find in `/rt/java`, written out once.
pub(crate) fn runtime() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap().keep();
        for (name, content) in dunlin_sandbox::assets::files() {
            if let Some(name) = name.strip_prefix("java/") {
                let path = place.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
        }
        place
    })
}

/// Compiles the Java files in each of the directories, where they are.
pub(crate) fn compile<'p>(directories: impl Iterator<Item = &'p Path>) {
    let mut command = Command::new("java");
    command.arg(runtimes().join("conformance/Compile.java")).arg(runtime().join("fc-java-core.jar")).args(directories);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
