//! Building what .NET guests find in `/rt/dotnet`: `scripts/csharp` compiles it, and `cc` the one
//! native library.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dotnet_assets::{FILES, directory};
use crate::java::run_quietly;

/// Builds the files if one of them is missing.
pub(crate) fn run(root: &Path) -> Result<()> {
    let wanted = directory(root).context("find the place of .NET's files")?;
    if FILES.iter().all(|name| wanted.join(name).is_file()) {
        return Ok(());
    }
    let sources = root.join("runtimes/dotnet");
    let cache = wanted.parent().context("a cached directory has a parent")?;
    // Under a name of its own first, so that nobody sees half of it.
    let partial = cache.join(format!(".dotnet.{}", std::process::id()));
    fs::create_dir_all(partial.join("rehearsal")).with_context(|| format!("make {}", partial.display()))?;
    let built = compile(root, &partial.join("dunlin.dll"), &sources, &["-target:exe"])
        .and_then(|()| compile(root, &partial.join("rehearsal/Sample.dll"), &sources.join("rehearsal"), &[]))
        .and_then(|()| native(&sources.join("native/openssl.c"), &partial.join("libssl.so.dunlin")))
        .and_then(|()| {
            let settings = "dunlin.runtimeconfig.json";
            fs::copy(sources.join(settings), partial.join(settings)).with_context(|| format!("copy {settings}"))?;
            if wanted.exists() {
                fs::remove_dir_all(&wanted).with_context(|| format!("remove {}", wanted.display()))?;
            }
            fs::rename(&partial, &wanted).with_context(|| format!("rename to {}", wanted.display()))
        });
    if built.is_err() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    built
}

/// Compiles every file of the folder, and none below it.
fn compile(root: &Path, target: &Path, folder: &Path, options: &[&str]) -> Result<()> {
    let mut sources: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cs") {
            sources.push(path.into());
        }
    }
    sources.sort();
    let mut command = Command::new(root.join("scripts/csharp"));
    command.arg(target).args(["-optimize", "-warn:4", "-warnaserror"]).args(options).args(sources);
    run_quietly(&mut command).with_context(|| format!("compile {}", folder.display()))
}

/// Links with the libraries by their full names: there need be no headers of theirs.
fn native(source: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-s", "-Wall", "-Wextra", "-Werror", "-o"]).arg(target).arg(source);
    run_quietly(command.args(["-Wl,--no-as-needed", "-l:libssl.so.3", "-l:libcrypto.so.3"]))
}
