//! What a language's cases need from this machine beside the checkout.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::case::{Language, runtimes};

/// What of it is not there.
pub(crate) fn missing(language: Language) -> Option<String> {
    match language {
        Language::Python | Language::Custom => no_program("python3", &["--version"]),
        Language::Node => no_program("node", &["--version"]),
        Language::Java => no_program("javac", &["-version"]),
        Language::Php => no_program("php", &["-v"]),
        Language::Dotnet => no_program("mcs", &["--version"])
            .or_else(|| (!crate::dotnet::program().is_file()).then(|| ".NET Core's runtime".to_owned())),
        Language::Go => no_program("go", &["version"]).or_else(|| {
            // The vendor's library is part of the fixture that stands on it.
            (!fixture("go-fc").join("main").exists()).then(|| "the vendor's Go library".to_owned())
        }),
        Language::Provided => {
            (!fixture("lambda-python").join("bootstrap").exists()).then(|| "AWS Lambda's client for Python".to_owned())
        }
    }
}

fn no_program(program: &str, arguments: &[&str]) -> Option<String> {
    let started = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_err().then(|| program.to_owned())
}

/// Says that a language's cases were not run, past what captures the output of tests, and counts them for `xtask test`.
pub(crate) fn skip(language: Language, cases: usize, missing: &str) {
    let report = format!(
        "\nconformance: {} is skipped, for this machine lacks {missing}; run scripts/setup\n0 passed, 0 failed, {cases} skipped\n",
        language.name()
    );
    std::io::stderr().write_all(report.as_bytes()).expect("somebody listens");
}

/// The sources of a fixture.
pub(crate) fn fixture_sources(name: &str) -> PathBuf {
    runtimes().join("../tests/fixtures").join(name)
}

/// What `scripts/setup` made of them.
pub(crate) fn fixture(name: &str) -> PathBuf {
    cache().join("fixtures").join(name)
}

/// Where `scripts/setup` puts what it installs.
pub(crate) fn cache() -> PathBuf {
    let cache = std::env::var_os("DUNLIN_CACHE").map(PathBuf::from);
    cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/dunlin"))).unwrap_or_default()
}
