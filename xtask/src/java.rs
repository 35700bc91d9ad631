//! Building what Java guests find in `/rt/java`: our own jar, compiled here, and the libraries it stands on, fetched from
//! Maven Central by digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::java_assets::{BUILT, LIBRARIES, Library, directory, files};

const REPOSITORY: &str = "https://repo1.maven.org/maven2";

/// What every class file and every entry of a jar is dated, so that the same sources give the same bytes.
const DATE: &str = "1980-01-01T00:00:02Z";

/// The oldest Java whose virtual machine can load what is compiled here.
const RELEASE: &str = "8";

/// What users compile for as a rule: newer virtual machines then build lambdas and joined text by other means, which are
/// rehearsed too.
const MODERN: &str = "11";

/// Builds the files if one of them is missing.
pub(crate) fn run(root: &Path) -> Result<()> {
    let wanted = directory(root).context("find the place of Java's files")?;
    if files().all(|name| wanted.join(name).is_file()) {
        return Ok(());
    }
    let cache = wanted.parent().context("a cached directory has a parent")?;
    fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
    // Under a name of its own first, so that nobody sees half of it.
    let partial = cache.join(format!(".java.{}", std::process::id()));
    remove(&partial)?;
    let built = build(root, &partial, cache);
    let work = partial.join("work");
    if built.is_ok() {
        remove(&work)?;
        remove(&wanted)?;
        fs::rename(&partial, &wanted).with_context(|| format!("rename to {}", wanted.display()))?;
    } else {
        remove(&partial)?;
    }
    built
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn build(root: &Path, target: &Path, cache: &Path) -> Result<()> {
    let sources = root.join("runtimes/java");
    let classes = target.join("work/classes");
    let beans = target.join("work/beans");
    let rehearsal = target.join("rehearsal");
    for made in [&classes, &beans, &rehearsal.join("lib")] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    for library in &LIBRARIES {
        fs::write(target.join(library.name), fetch(library, cache)?).with_context(|| format!("write {}", library.name))?;
    }
    let path = target.join("*");
    compile(&sources.join("src"), RELEASE, &path, &classes)?;
    jar(&target.join("dunlin.jar"), Some(&sources.join("manifest.mf")), &classes)?;
    // One sample lies in the code itself, as in an uploaded jar, one in a library.
    compile(&sources.join("rehearsal/code"), RELEASE, &path, &rehearsal)?;
    compile(&sources.join("rehearsal/modern"), MODERN, &path, &rehearsal)?;
    compile(&sources.join("rehearsal/lib"), RELEASE, &path, &beans)?;
    jar(&rehearsal.join("lib/bean.jar"), None, &beans)?;
    native(&sources.join("native/process.c"), &target.join("libdunlin_java.so"))?;
    for name in BUILT {
        ensure!(target.join(name).is_file(), "runtimes/java did not give {name}");
    }
    Ok(())
}

/// A library's bytes, from the cache or from the repository.
fn fetch(library: &Library, cache: &Path) -> Result<Vec<u8>> {
    let kept = cache.join(format!("maven-{}.jar", library.sha256));
    if let Ok(bytes) = fs::read(&kept)
        && digest(&bytes) == library.sha256
    {
        return Ok(bytes);
    }
    let url = format!("{REPOSITORY}/{}", library.path);
    let output = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--retry", "3", "--max-time", "120", &url])
        .output()
        .context("start curl")?;
    ensure!(output.status.success(), "cannot fetch {url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let found = digest(&output.stdout);
    ensure!(found == library.sha256, "{url} is not what it was: SHA-256 {found}, expected {}", library.sha256);
    let partial = cache.join(format!(".maven.{}", std::process::id()));
    fs::write(&partial, &output.stdout).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, &kept).with_context(|| format!("rename to {}", kept.display()))?;
    Ok(output.stdout)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compile(sources: &Path, release: &str, class_path: &Path, target: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(sources, &mut files)?;
    files.sort();
    let mut command = Command::new("javac");
    command.args(["--release", release, "-encoding", "UTF-8", "-Xlint:all,-options", "-Werror", "-g:source,lines", "-cp"]);
    command.arg(class_path).arg("-d").arg(target).args(files);
    run_quietly(&mut command)
}

fn jar(file: &Path, manifest: Option<&Path>, classes: &Path) -> Result<()> {
    let mut command = Command::new("jar");
    command.args(["--create", "--no-compress", "--date", DATE, "--file"]).arg(file);
    if let Some(manifest) = manifest {
        command.arg("--manifest").arg(manifest);
    }
    run_quietly(command.arg("-C").arg(classes).arg("."))
}

fn native(source: &Path, target: &Path) -> Result<()> {
    let include = java_home()?.join("include");
    let mut command = Command::new("cc");
    command.args(["-O2", "-shared", "-fPIC", "-s", "-Wall", "-Wextra", "-Werror"]);
    command.arg("-I").arg(&include).arg("-I").arg(include.join("linux")).arg("-o").arg(target).arg(source);
    run_quietly(&mut command)
}

/// Where the JDK is whose compiler is used.
fn java_home() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("javac"))
        .find_map(|program| fs::canonicalize(program).ok())
        .and_then(|program| Some(program.parent()?.parent()?.to_owned()))
        .context("there is no javac: install a JDK (apt-get install openjdk-17-jdk-headless)")
}

pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{program} failed:\n{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "java") {
            files.push(path);
        }
    }
    Ok(())
}
