//! Building what the binary embeds and Cargo does not build along the way: the shared object of `walls`, which the
//! Python zygote loads, Java's jar and .NET's assemblies. The other bootstraps are embedded from `runtimes/` as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{dotnet, java, shared_object};

/// Builds every embedded artefact that is missing or out of date.
pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    java::run(&root)?;
    dotnet::run(&root)?;
    let wanted = shared_object::path(&root).context("find the place of the shared object")?;
    if wanted.is_file() {
        return Ok(());
    }
    let built = build(&root)?;
    // Under a name of its own first, so that nobody sees half a file.
    let directory = wanted.parent().context("a cached file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let partial = directory.join(format!(".{}.{}", shared_object::NAME, std::process::id()));
    fs::copy(&built, &partial).with_context(|| format!("copy {}", built.display()))?;
    fs::rename(&partial, &wanted).with_context(|| format!("rename to {}", wanted.display()))
}

/// Builds the crate once more, as a shared object; returns where it is.
fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root)
        .args(["rustc", "--quiet", "--package", "dunlin-walls", "--lib", "--crate-type", "cdylib"])
        .args(["--message-format", "json-render-diagnostics", "--", "-C", "strip=symbols"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("cargo could not build the shared object of dunlin-walls");
    }
    let messages = String::from_utf8(output.stdout).context("read what cargo says")?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(message.get("filenames")?.as_array()?.clone()))
        .flatten()
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == shared_object::NAME))
        .context("cargo built no shared object")
}
