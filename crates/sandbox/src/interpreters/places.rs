//! Where interpreters are, on hosts and in guests.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_model::{Interpreters, Language, Runtime, Wanted};

/// Directories with programs, below the root; `*` stands for every name. Those before are preferred to those behind.
const SYSTEM: &[&str] = &[
    "usr/bin",
    "usr/local/bin",
    "usr/local/*/bin",
    "usr/local/lib/nodejs/*/bin",
    "usr/lib/jvm/*/bin",
    "usr/share/dotnet",
    "usr/lib/dotnet",
    "opt/dotnet",
    "opt/*/bin",
    "opt/*/*/bin",
];

/// The same, below a home: pyenv, nvm, SDKMAN, uv.
const HOME: &[&str] =
    &[".pyenv/versions/*/bin", ".nvm/versions/node/*/bin", ".sdkman/candidates/java/*/bin", ".local/share/uv/python/*/bin"];

/// Names without a version come first: what a host calls `python3` is what its owner means by Python 3.
const PLAIN: &[(&str, Language)] = &[
    ("python3", Language::Python),
    ("python", Language::Python),
    ("node", Language::Node),
    ("nodejs", Language::Node),
    ("java", Language::Java),
    ("php", Language::Php),
    ("dotnet", Language::Dotnet),
];

/// Names with one.
const NUMBERED: &[(&str, Language)] = &[("python", Language::Python), ("php", Language::Php)];

/// The most names of one directory that are looked at.
const NAMES_MAX: usize = 10_000;

/// Which language a program of this name runs.
pub(super) fn language_of(name: &str) -> Option<Language> {
    let numbered = |(stem, language): &(&str, Language)| {
        let numbers = name.strip_prefix(stem)?;
        let is_version = numbers.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        is_version.then_some(*language)
    };
    let plain = PLAIN.iter().find(|(plain, _)| *plain == name).map(|(_, language)| *language);
    plain.or_else(|| NUMBERED.iter().find_map(numbered))
}

/// The interpreters in one directory: plain names first, then the newest.
pub(super) fn programs(directory: &Path) -> Vec<(Language, PathBuf)> {
    let mut numbered: Vec<(Language, PathBuf)> = names(directory)
        .filter(|name| PLAIN.iter().all(|(plain, _)| plain != name))
        .filter_map(|name| Some((language_of(&name)?, directory.join(name))))
        .collect();
    numbered.sort_by(|(_, one), (_, other)| newest_first(one, other));
    let plain = PLAIN.iter().map(|(name, language)| (*language, directory.join(name)));
    plain.chain(numbered).filter(|(_, path)| path.is_file()).collect()
}

/// Every directory that may hold interpreters, in order of preference.
pub(super) fn directories(root: &Path, homes: &[PathBuf]) -> Vec<PathBuf> {
    let system = SYSTEM.iter().map(|pattern| (root, *pattern));
    let homes = homes.iter().flat_map(|home| HOME.iter().map(|pattern| (home.as_path(), *pattern)));
    system.chain(homes).flat_map(|(base, pattern)| expand(base, pattern)).collect()
}

/// The directories below `base` that `pattern` stands for, the newest version first.
fn expand(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![base.to_owned()];
    for part in pattern.split('/') {
        let below = found.into_iter().flat_map(|directory| match part {
            "*" => {
                let mut inside: Vec<PathBuf> = names(&directory).map(|name| directory.join(name)).collect();
                inside.sort_by(|one, other| newest_first(one, other));
                inside
            }
            name => vec![directory.join(name)],
        });
        found = below.filter(|path| path.is_dir()).collect();
    }
    found
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.take(NAMES_MAX).filter_map(|entry| entry.file_name().into_string().ok())
}

/// By the numbers in their names, as far as these tell; then by name, so that the order is always the same.
fn newest_first(one: &Path, other: &Path) -> Ordering {
    let numbers = |path: &Path| -> Vec<u64> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(other).cmp(&numbers(one)).then_with(|| one.cmp(other))
}

/// The home directory of `uid`, out of the text of `/etc/passwd`.
pub(super) fn home_of(passwd: &str, uid: u32) -> Option<PathBuf> {
    let home = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).copied())?
    })?;
    Some(PathBuf::from(home)).filter(|home| home.is_absolute())
}

/// Where the vendor's images have their interpreters (contract section 8), below the guest's root.
const LANGUAGES: &str = "var/fc/lang";

/// Names there besides those of the contract's runtimes.
const FURTHER: &[&str] = &["python3.11", "python3.13", "nodejs22", "java17", "java21", "php7.4", "php8.1"];

/// Links in a guest's root, and what they lead to: `/var/fc/lang/python3.10/bin/python3` and the like, for every version
/// that the vendor has, each served by what serves the runtime of that name.
pub(crate) fn links(interpreters: &Interpreters) -> Vec<(PathBuf, PathBuf)> {
    let mut links = Vec::new();
    for name in Runtime::all().map(|(name, _)| name).chain(FURTHER.iter().copied()) {
        let chosen = Wanted::parse(name).and_then(|wanted| interpreters.choose(wanted).interpreter());
        let Some(found) = chosen.and_then(|id| interpreters.get(id)) else { continue };
        let directory = Path::new(LANGUAGES).join(name);
        let beside = Path::new(&found.program).parent().unwrap_or(Path::new("/"));
        let (own, others): (&[&str], &[&str]) = match found.language {
            // A `JAVA_HOME`, whole.
            Language::Java => {
                links.push((directory, PathBuf::from(&found.home)));
                continue;
            }
            Language::Python => (&["python", "python3", name], &["pip", "pip3"]),
            Language::Node => (&["node"], &["npm", "npx", "corepack"]),
            Language::Dotnet => (&["dotnet"], &[]),
            _ => (&["php"], &[]),
        };
        let mut link = |program: &str, target: PathBuf| {
            let link = directory.join("bin").join(program);
            if links.iter().all(|(there, _)| *there != link) {
                links.push((link, target));
            }
        };
        own.iter().for_each(|program| link(program, PathBuf::from(&found.program)));
        for program in others {
            let target = beside.join(program);
            if target.is_file() {
                link(program, target);
            }
        }
    }
    links
}
