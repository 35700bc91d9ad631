//! The AWS Lambda runtime API's part of the suite: code that brings AWS's own client for Python, as `scripts/setup` has
//! installed it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::toolchain::{fixture, fixture_sources};

/// Puts the client and what starts it beside a case's code.
pub(crate) fn complete(code: &Path) {
    let own = fs::read_dir(fixture_sources("lambda-python")).unwrap().map(|entry| entry.unwrap().file_name());
    let own: Vec<_> = own.filter(|name| name != "bootstrap").collect();
    for entry in fs::read_dir(fixture("lambda-python")).unwrap().map(Result::unwrap) {
        let place = code.join(entry.file_name());
        // The fixture's own functions stay behind, and a case may bring a bootstrap that differs.
        if !own.contains(&entry.file_name()) && !place.exists() {
            symlink(entry.path(), place).unwrap();
        }
    }
}
