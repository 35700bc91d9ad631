//! Java's part of the suite: where its files are, and the compiling of all cases' code by one process.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::case::{assets, runtimes};

/// What guests find in `/rt/java`.
fn runtime() -> PathBuf {
    assets().join("java")
}

/// Compiles the Java files in each of the directories, where they are.
pub(crate) fn compile<'p>(directories: impl Iterator<Item = &'p Path>) {
    let mut command = Command::new("java");
    command.arg(runtimes().join("conformance/Compile.java")).arg(runtime().join("fc-java-core.jar")).args(directories);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
