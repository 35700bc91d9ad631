//! From a path to a zip, and what the zip seems to be.

use std::fs;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::failure::Failure;

/// Never of use to a function.
const NEVER: &[&str] = &[".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", ".DS_Store", ".dunlinignore", "dunlin-data/"];
/// The contract's limit for packages sent inline.
const ZIP_BYTES_MAX: usize = 100 << 20;

/// Code, ready to be sent.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) zip: Vec<u8>,
    /// What the code looks like, when it looks like something.
    pub(crate) guess: Option<Guess>,
}

/// A runtime and a handler that fit the files at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) runtime: &'static str,
    pub(crate) handler: &'static str,
}

/// Reads a zip file or packs a folder, leaving out what `.dunlinignore` (in gitignore's syntax) says.
pub(crate) fn read(path: &Path) -> Result<Package, Failure> {
    let what = format!("cannot pack {}", path.display());
    let metadata = fs::metadata(path).map_err(|error| Failure::of(&what, &error).next("give a folder or a zip file"))?;
    let (zip, guess) = if metadata.is_dir() {
        let rules = rules(path).map_err(|error| Failure::of(&what, &error))?;
        let zip = dunlin_unpack::pack(path, |file, is_folder| !rules.matched(file, is_folder).is_ignore());
        (zip.map_err(|error| Failure::of(&what, &error))?, guess(path))
    } else {
        let zip = fs::read(path).map_err(|error| Failure::of(&what, &error))?;
        if !zip.starts_with(b"PK") {
            return Err(Failure::usage(what, "it is neither a folder nor a zip file").next("give the folder it is in"));
        }
        (zip, None)
    };
    if zip.len() > ZIP_BYTES_MAX {
        let why = format!("the zip has {} MB, and {} MB is the most", zip.len() >> 20, ZIP_BYTES_MAX >> 20);
        return Err(Failure::usage(what, why).next("name what is not needed in .dunlinignore"));
    }
    Ok(Package { zip, guess })
}

fn rules(folder: &Path) -> Result<Gitignore, ignore::Error> {
    let mut rules = GitignoreBuilder::new("");
    for line in NEVER {
        rules.add_line(None, line)?;
    }
    let file = folder.join(".dunlinignore");
    if file.exists() {
        let text = fs::read_to_string(&file).map_err(ignore::Error::Io)?;
        for line in text.lines() {
            rules.add_line(None, line)?;
        }
    }
    rules.build()
}

fn guess(folder: &Path) -> Option<Guess> {
    let has = |file: &str| folder.join(file).is_file();
    match () {
        () if has("bootstrap") => Some(Guess { runtime: "custom.debian12", handler: "index.handler" }),
        () if has("index.py") => Some(Guess { runtime: "python3.10", handler: "index.handler" }),
        () if has("index.js") || has("index.mjs") || has("index.cjs") => {
            Some(Guess { runtime: "nodejs20", handler: "index.handler" })
        }
        () if has("main.wasm") => Some(Guess { runtime: "wasm", handler: "main.wasm" }),
        () => None,
    }
}
