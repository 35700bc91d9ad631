//! .NET's part of the suite: what its functions run on, and the compiling of the cases' code.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::case::runtimes;
use crate::toolchain;

/// The runtime that `scripts/setup` installs.
pub(crate) fn program() -> PathBuf {
    toolchain::cache().join("dotnet/dotnetcore2/bin/dotnet")
}

/// Compiles the C# files of the directory to `Index.dll`, those of a folder in it to a library of the folder's name first.
pub(crate) fn compile(directory: &Path) {
    let mut options = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for folder in entries.into_iter().filter(|path| path.is_dir()) {
        let library = folder.with_extension("dll");
        csharp(&library, &folder, &[]);
        options.push(format!("-r:{}", library.display()));
    }
    csharp(&directory.join("Index.dll"), directory, &options);
}

fn csharp(target: &Path, folder: &Path, options: &[String]) {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|extension| extension == "cs")).collect();
    let mut command = Command::new(runtimes().join("../scripts/csharp"));
    let output = command.arg(target).args(options).args(sources).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
