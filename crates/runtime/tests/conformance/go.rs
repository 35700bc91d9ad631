//! Go's part of the suite: the programs of all cases, each on the vendor's library, made by one `go build`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::case::{Case, Language};
use crate::toolchain::fixture_sources;

/// Builds the programs and puts each where its case's handler says. Programs are kept from run to run: only what changed is
/// built again.
pub(crate) fn build(cases: &[(Case, TempDir)]) {
    let module = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-go");
    fs::create_dir_all(module.join("out")).unwrap();
    for file in ["go.mod", "go.sum"] {
        fs::copy(fixture_sources("go-fc").join(file), module.join(file)).unwrap();
    }
    let mut known = HashSet::from([PathBuf::from("out"), "go.mod".into(), "go.sum".into()]);
    let mut programs = Vec::new();
    for (case, code) in cases {
        let name: String = case.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let package = module.join(&name);
        // Files of an earlier run go first: a case may have fewer now.
        let sources: Vec<_> = case.files(Language::Go).unwrap().keys().filter(|file| file.ends_with(".go")).collect();
        for entry in fs::read_dir(&package).into_iter().flatten().map(Result::unwrap) {
            if !sources.iter().any(|file| entry.file_name() == file.as_str()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for file in &sources {
            fs::create_dir_all(&package).unwrap();
            write_changed(&package.join(file), &fs::read(code.path().join(file)).unwrap());
        }
        if !sources.is_empty() {
            programs.push((module.join("out").join(&name), code.path().join(case.handler(Language::Go))));
        }
        known.insert(name.into());
    }
    // What a case that is no more has left.
    for entry in fs::read_dir(&module).unwrap().map(Result::unwrap) {
        if !known.contains(Path::new(&entry.file_name())) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let mut go = Command::new("go");
    // Without debugging information a program is linked in half the time. Nothing is fetched: setup has done that.
    go.args(["build", "-trimpath", "-ldflags=-s -w", "-o", "out/", "./..."]);
    go.env("CGO_ENABLED", "0").env("GOPROXY", "off").env("GOFLAGS", "").current_dir(&module);
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (program, place) in programs {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(program, place).unwrap();
    }
}

/// What has not changed keeps its date.
fn write_changed(path: &Path, content: &[u8]) {
    if fs::read(path).ok().as_deref() != Some(content) {
        fs::write(path, content).unwrap();
    }
}
