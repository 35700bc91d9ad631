//! Rules about the text of the sources that no compiler knows.
//!
//! - `AccountScope::verified` is how a caller becomes somebody. Only `auth` and tests say so.
//! - `unsafe` stands only where system calls are made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const VERIFIED: &str = "AccountScope::verified(";
const UNSAFE_ROOMS: &[&str] = &["crates/sandbox/src/sys", "crates/walls/src/sys", "crates/wasm/src/sys.rs"];

/// Checks every Rust file of the workspace, adds what is wrong to `wrong` and says how many files were read.
pub(crate) fn check_tree(root: &Path, wrong: &mut Vec<String>) -> Result<usize> {
    let mut files = Vec::new();
    for top in ["crates", "tests", "xtask"] {
        collect(&root.join(top), &mut files)?;
    }
    files.sort();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
        check_file(&name, &text, wrong);
    }
    Ok(files.len())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Checks one file, named by its path below the root.
fn check_file(name: &str, text: &str, wrong: &mut Vec<String>) {
    let may_be_unsafe = UNSAFE_ROOMS.iter().any(|room| name.starts_with(room));
    let may_verify = name.starts_with("crates/auth/") || name.starts_with("crates/testkit/") || is_test_file(name);
    let mut in_tests = false;
    for (number, line) in (1..).zip(text.lines()) {
        // By custom the tests are the last part of a file.
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        let code = without_text(line);
        if !may_be_unsafe && has_word(&code, "unsafe") {
            wrong.push(format!("{name}:{number}: `unsafe` outside of {}", UNSAFE_ROOMS.join(" and ")));
        }
        if !may_verify && !in_tests && code.contains(VERIFIED) {
            wrong.push(format!("{name}:{number}: only auth may call {VERIFIED}…)"));
        }
    }
}

fn is_test_file(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("tests/") || name.contains("/tests/") || matches!(file, "tests.rs" | "testing.rs" | "contract.rs")
}

/// The line without comments and without what stands between double quotes on one line.
fn without_text(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if quoted => {
                characters.next();
            }
            // `'"'` is a character, not the start of a text.
            '"' if !(code.ends_with('\'') && characters.peek() == Some(&'\'')) => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(c),
        }
    }
    code
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|token| token == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(name: &str, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        check_file(name, text, &mut wrong);
        wrong
    }

    #[test]
    fn nobody_but_auth_and_tests_makes_a_verified_scope() {
        let call = ["let scope = AccountScope::", "verified(account);"].concat();
        assert_eq!(broken("crates/api/src/route.rs", &call).len(), 1);
        assert!(broken("crates/auth/src/acs3.rs", &call).is_empty());
        assert!(broken("crates/api/tests/front.rs", &call).is_empty());
        assert!(broken("crates/api/src/route.rs", &format!("#[cfg(test)]\nmod tests {{\n{call}\n}}")).is_empty());
        assert!(broken("crates/api/src/route.rs", &format!("/// Like `{call}`")).is_empty());
    }

    #[test]
    fn unsafe_code_lives_in_the_sys_rooms_only() {
        let block = ["un", "safe { call() }"].concat();
        assert_eq!(broken("crates/walls/src/mount.rs", &block).len(), 1);
        assert!(broken("crates/walls/src/sys/mount.rs", &block).is_empty());
        assert!(broken("crates/walls/src/mount.rs", "#![deny(unsafe_code)] // unsafe is for sys").is_empty());
        let quoted = ["print(\"un", "safe \\\" un", "safe\")"].concat();
        assert!(broken("crates/walls/src/mount.rs", &quoted).is_empty(), "{quoted}");
    }
}
