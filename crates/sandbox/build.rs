//! Finds the files that are embedded for guests and writes their list for `src/assets.rs`.

mod dotnet_assets;
mod java_assets;
#[path = "../walls/shared_object.rs"]
mod shared_object;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The runtimes whose bootstraps are embedded: directory and extensions.
const RUNTIMES: [(&str, &[&str]); 3] = [("python", &["py"]), ("node", &["js"]), ("php", &["php", "ini"])];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    for source in shared_object::SOURCES {
        watch(&root.join(source));
    }
    println!("cargo::rerun-if-env-changed=DUNLIN_CACHE");
    println!("cargo::rerun-if-env-changed=HOME");

    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let object = shared_object::path(&root)?;
    watch(&object);
    if !object.is_file() {
        println!(
            "cargo::error=the shared object that the Python runtime needs has not been built from these sources \
             (looked for {}): run `cargo xtask assets` first",
            object.display()
        );
        return Ok(());
    }
    files.push((format!("python/{}", shared_object::NAME), object));
    for source in java_assets::WATCHED {
        watch(&root.join(source));
    }
    let java = java_assets::directory(&root)?;
    watch(&java);
    for name in java_assets::files() {
        let path = java.join(name);
        if !path.is_file() {
            println!(
                "cargo::error=what the Java runtime needs has not been built from these sources (looked for {}): \
                 run `cargo xtask assets` first",
                path.display()
            );
            return Ok(());
        }
        files.push((format!("java/{name}"), path));
    }
    for source in dotnet_assets::SOURCES {
        watch(&root.join(source));
    }
    let dotnet = dotnet_assets::directory(&root)?;
    watch(&dotnet);
    for name in dotnet_assets::FILES {
        let path = dotnet.join(name);
        if !path.is_file() {
            println!(
                "cargo::error=what the .NET runtime needs has not been built from these sources (looked for {}): \
                 run `cargo xtask assets` first",
                path.display()
            );
            return Ok(());
        }
        files.push((format!("dotnet/{name}"), path));
    }
    for (runtime, extensions) in RUNTIMES {
        let directory = root.join("runtimes").join(runtime);
        watch(&directory);
        collect(&directory, Path::new(runtime), extensions, &mut files)?;
    }
    files.sort();

    let mut list = String::from("&[\n");
    for (name, path) in files {
        writeln!(list, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())?;
    }
    list.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("assets.rs"), list)?;
    Ok(())
}

/// Every file of the runtime but its tests.
fn collect(directory: &Path, name: &Path, extensions: &[&str], files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(own_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if own_name.starts_with(['.', '_']) || own_name.starts_with("test") {
            continue;
        }
        let name = name.join(own_name);
        if path.is_dir() {
            collect(&path, &name, extensions, files)?;
        } else if path.extension().is_some_and(|found| extensions.iter().any(|own| found == *own)) && !own_name.contains("_test.")
        {
            files.push((name.display().to_string(), path));
        }
    }
    Ok(())
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
