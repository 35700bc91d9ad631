//! Interpreters that are installed on the machine, and which of them serves a runtime's name.
//!
//! The contract's names carry versions of the vendor's choice (`python3.10`); the machine has what its owner installed.
//! [`Interpreters::choose`] is the one rule that brings them together: the version that is named, else the nearest newer
//! one, else the nearest older one. Who is told of a substitution, and where, is for the rooms above.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::runtime_name::{Language, Runtime};

/// Names an interpreter for as long as the platform runs: its place in [`Interpreters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterpreterId(pub u16);

/// What an interpreter says its version is. Java 8 says 1.8 and counts as 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterpreterVersion {
    /// The first number.
    pub major: u32,
    /// The second; 0 where there is none.
    pub minor: u32,
    /// The third; 0 where there is none.
    pub patch: u32,
}

impl InterpreterVersion {
    /// Three numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads one to three numbers with dots between, at the beginning of `text`. What follows them is not looked at.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map_while(|part| part.parse::<u32>().ok());
        Some(Self::new(numbers.next()?, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    }
}

impl fmt::Display for InterpreterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether an interpreter can serve functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "standing")]
pub enum Standing {
    /// It can.
    Usable {
        /// Which one it is.
        version: InterpreterVersion,
    },
    /// It works, and the platform's bootstrap does not work in it.
    Unfit {
        /// Which one it is.
        version: InterpreterVersion,
        /// Why not, to be read after its name.
        why: String,
    },
    /// It does not work, or must not be trusted.
    Broken {
        /// What is wrong, to be read after its name.
        why: String,
    },
}

/// One interpreter of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interpreter {
    /// What it runs.
    pub language: Language,
    /// The absolute path it is started with, on the host and in a guest's root alike.
    pub program: String,
    /// The directory it is installed in, which a guest must see.
    pub home: String,
    /// Whether it serves functions.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Interpreter {
    /// Its version, when it can serve functions.
    #[must_use]
    pub fn usable(&self) -> Option<InterpreterVersion> {
        match self.standing {
            Standing::Usable { version } => Some(version),
            Standing::Unfit { .. } | Standing::Broken { .. } => None,
        }
    }
}

/// The version that a runtime's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of which language.
    pub language: Language,
    /// The first number.
    pub major: u32,
    /// The second, when the name has one. Without it every minor version is as good as any other.
    pub minor: Option<u32>,
}

impl Wanted {
    /// Reads names such as `python3.10`, `nodejs20`, `java11`, `php7.2` or `dotnetcore3.1`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        const PREFIXES: [(&str, Language); 5] = [
            ("python", Language::Python),
            ("nodejs", Language::Node),
            ("java", Language::Java),
            ("php", Language::Php),
            ("dotnetcore", Language::Dotnet),
        ];
        let (rest, language) =
            PREFIXES.into_iter().find_map(|(prefix, language)| Some((name.strip_prefix(prefix)?, language)))?;
        let (major, minor) = match rest.split_once('.') {
            Some((major, minor)) => (major, Some(minor.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { language, major: major.parse().ok()?, minor })
    }

    /// What two versions are compared by: no more than the name says.
    fn key(self, version: InterpreterVersion) -> (u32, u32) {
        (version.major, if self.minor.is_some() { version.minor } else { 0 })
    }
}

/// What serves a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The version that is named.
    Exact(InterpreterId),
    /// The nearest newer version: the one that is named is not here.
    Newer(InterpreterId),
    /// The nearest older version: neither the one that is named nor a newer one is here.
    Older(InterpreterId),
    /// Nothing: the language has no interpreter here that serves.
    Missing,
    /// What runs comes with the code.
    NotNeeded,
}

impl Choice {
    /// The interpreter, if there is one.
    #[must_use]
    pub fn interpreter(self) -> Option<InterpreterId> {
        match self {
            Self::Exact(id) | Self::Newer(id) | Self::Older(id) => Some(id),
            Self::Missing | Self::NotNeeded => None,
        }
    }
}

/// Every interpreter that was found, those preferred among equals first. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Interpreter>", into = "Vec<Interpreter>")]
pub struct Interpreters(Arc<[Interpreter]>);

impl Interpreters {
    /// These, in this order of preference. Those beyond the 65,536th have no name and serve nothing.
    #[must_use]
    pub fn new(found: Vec<Interpreter>) -> Self {
        Self(found.into())
    }

    /// What Debian 12 has in its usual places, taken for granted: for tests and tools that do not look. The first is Python.
    #[must_use]
    pub fn usual() -> Self {
        let usual = [
            (Language::Python, "/usr/bin/python3", InterpreterVersion::new(3, 11, 2)),
            (Language::Node, "/usr/bin/node", InterpreterVersion::new(20, 0, 0)),
            (Language::Java, "/usr/bin/java", InterpreterVersion::new(17, 0, 0)),
            (Language::Php, "/usr/bin/php", InterpreterVersion::new(8, 2, 0)),
        ];
        let standing = |version| Standing::Usable { version };
        let interpreter = |(language, program, version)| Interpreter {
            language,
            program: String::from(program),
            home: "/usr".to_owned(),
            standing: standing(version),
        };
        Self::new(usual.map(interpreter).to_vec())
    }

    /// All of them, also those that serve nothing.
    #[must_use]
    pub fn all(&self) -> &[Interpreter] {
        &self.0
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, id: InterpreterId) -> Option<&Interpreter> {
        self.0.get(usize::from(id.0))
    }

    /// Those of `language` that can serve, with their names and versions.
    pub fn usable(&self, language: Language) -> impl Iterator<Item = (InterpreterId, &Interpreter, InterpreterVersion)> {
        let named = (0..=u16::MAX).map(InterpreterId).zip(&*self.0);
        named.filter(move |(_, found)| found.language == language).filter_map(|(id, found)| Some((id, found, found.usable()?)))
    }

    /// What serves `wanted`: that version, else the nearest newer one, else the nearest older one. Among equals the one
    /// that comes first.
    #[must_use]
    pub fn choose(&self, wanted: Wanted) -> Choice {
        let named = (wanted.major, wanted.minor.unwrap_or(0));
        let candidates = || self.usable(wanted.language).map(|(id, _, version)| (wanted.key(version), id));
        // Of equals `min_by_key` takes the first.
        if let Some((key, id)) = candidates().filter(|(key, _)| *key >= named).min_by_key(|(key, _)| *key) {
            return if key == named { Choice::Exact(id) } else { Choice::Newer(id) };
        }
        let older = candidates().map(|(key, _)| key).max();
        match candidates().find(|(key, _)| Some(*key) == older) {
            Some((_, id)) => Choice::Older(id),
            None => Choice::Missing,
        }
    }

    /// What serves a runtime's name.
    #[must_use]
    pub fn choose_for(&self, runtime: &Runtime) -> Choice {
        match Wanted::parse(runtime.as_str()) {
            Some(wanted) if runtime.language().has_interpreter() => self.choose(wanted),
            _ => Choice::NotNeeded,
        }
    }

    /// A sentence for whoever uses `runtime`, when another version than the one it names serves it.
    #[must_use]
    pub fn substitution(&self, runtime: &Runtime) -> Option<String> {
        let (id, nearest) = match self.choose_for(runtime) {
            Choice::Newer(id) => (id, "newer"),
            Choice::Older(id) => (id, "older"),
            Choice::Exact(_) | Choice::Missing | Choice::NotNeeded => return None,
        };
        let version = self.get(id)?.usable()?;
        let language = runtime.language().title();
        Some(format!("{} is not installed: {language} {version} serves it, the nearest {nearest} version", runtime.as_str()))
    }

    /// Why nothing serves `runtime` and what to do about it, when that is so.
    #[must_use]
    pub fn missing(&self, runtime: &Runtime) -> Option<String> {
        (self.choose_for(runtime) == Choice::Missing).then(|| self.how_to_get(runtime.language()))
    }

    /// What is missing for functions in `language`, and the fix.
    #[must_use]
    pub fn how_to_get(&self, language: Language) -> String {
        let found: Vec<String> = self
            .all()
            .iter()
            .filter(|found| found.language == language)
            .map(|found| match &found.standing {
                Standing::Unfit { why, .. } | Standing::Broken { why } => format!("{} {why}", found.program),
                Standing::Usable { .. } => found.program.clone(),
            })
            .collect();
        let here = if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) };
        let title = language.title();
        format!(
            "no {title} that can serve functions is installed here{here}; install one ({}) or name one with \
             'dunlin up --interpreter PATH', and start the platform again",
            language.package()
        )
    }
}

impl From<Vec<Interpreter>> for Interpreters {
    fn from(found: Vec<Interpreter>) -> Self {
        Self::new(found)
    }
}

impl From<Interpreters> for Vec<Interpreter> {
    fn from(interpreters: Interpreters) -> Self {
        interpreters.0.to_vec()
    }
}

impl Default for Interpreters {
    /// None.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> Standing {
        match text.strip_suffix('!') {
            Some(version) => {
                Standing::Unfit { version: InterpreterVersion::parse(version).expect("a version"), why: "is too old".to_owned() }
            }
            None if text == "broken" => Standing::Broken { why: "says nothing".to_owned() },
            None => Standing::Usable { version: InterpreterVersion::parse(text).expect("a version") },
        }
    }

    /// Interpreters written as `python:3.11.2 node:20.1.0`; with `!` one the bootstrap does not work in.
    fn installed(text: &str) -> Interpreters {
        let interpreter = |word: &str| {
            let (language, version) = word.split_once(':').expect("language:version");
            let language = match language {
                "python" => Language::Python,
                "node" => Language::Node,
                "java" => Language::Java,
                "php" => Language::Php,
                "dotnet" => Language::Dotnet,
                other => panic!("{other}"),
            };
            let (program, home) = (format!("/x/{word}/bin/p"), format!("/x/{word}"));
            Interpreter { language, program, home, standing: standing(version) }
        };
        Interpreters::new(text.split_whitespace().map(interpreter).collect())
    }

    fn chosen(name: &str, installed: &Interpreters) -> String {
        let runtime = Runtime::parse(name).expect("a runtime that is served");
        let choice = installed.choose_for(&runtime);
        let version = || choice.interpreter().and_then(|id| installed.get(id)?.usable()).expect("a usable one").to_string();
        match choice {
            Choice::Exact(_) => format!("exact {}", version()),
            Choice::Newer(_) => format!("newer {}", version()),
            Choice::Older(_) => format!("older {}", version()),
            Choice::Missing => "missing".to_owned(),
            Choice::NotNeeded => "not needed".to_owned(),
        }
    }

    #[test]
    fn the_named_version_serves_else_the_nearest_newer_else_the_nearest_older() {
        let many = "python:3.11.2 python:3.13.0 python:3.8.18 python:3.10.13 python:3.9.1";
        for (name, here, expected) in [
            ("python3.10", many, "exact 3.10.13"),
            ("python3.9", many, "exact 3.9.1"),
            // 3.13 is newer, and nothing between it and 3.11 is here.
            ("python3.12", many, "newer 3.13.0"),
            ("python3.10", "python:3.13.0 python:3.11.2 python:3.9.1", "newer 3.11.2"),
            ("python3.12", "python:3.8.18 python:3.11.2 python:3.9.1", "older 3.11.2"),
            ("python3.9", "python:3.8.18", "older 3.8.18"),
            // 3.9 and 3.10 are numbers, not text.
            ("python3.9", "python:3.10.0 python:3.8.0", "newer 3.10.0"),
            // Without a minor version in its name, the first of that major version.
            ("python3", many, "exact 3.11.2"),
            ("nodejs8", "node:22.1.0 node:20.2.0", "newer 20.2.0"),
            ("nodejs18", "node:16.20.0 node:22.1.0", "newer 22.1.0"),
            ("nodejs20", "node:18.0.0 node:16.20.0", "older 18.0.0"),
            ("nodejs20", "node:20.2.0 node:20.19.0", "exact 20.2.0"),
            ("java8", "java:17.0.1 java:11.0.2", "newer 11.0.2"),
            ("java11", "java:8.0.392", "older 8.0.392"),
            ("java8", "java:8.0.392 java:11.0.2", "exact 8.0.392"),
        ] {
            assert_eq!(chosen(name, &installed(here)), expected, "{name} of {here}");
        }
    }

    #[test]
    fn old_dotnet_runs_on_the_nearest_newer_one() {
        let here = installed("dotnet:8.0.1 dotnet:3.1.23 dotnet:2.1.30!");
        assert_eq!(chosen("dotnetcore3.1", &here), "exact 3.1.23");
        assert_eq!(chosen("dotnetcore2.1", &here), "newer 3.1.23");
    }

    #[test]
    fn php_compares_by_both_numbers() {
        let wanted = Wanted::parse("php7.2").expect("a version");
        let here = installed("php:8.2.7 php:7.4.33");
        assert_eq!(here.choose(wanted), Choice::Newer(InterpreterId(1)));
        assert_eq!(installed("php:7.1.0").choose(wanted), Choice::Older(InterpreterId(0)));
    }

    #[test]
    fn what_cannot_serve_and_other_languages_do_not_count() {
        for here in ["", "node:20.0.0", "python:3.7.1!", "python:broken"] {
            assert_eq!(chosen("python3.9", &installed(here)), "missing", "{here}");
        }
        assert_eq!(chosen("python3.9", &installed("python:3.9.2! python:broken python:3.12.1")), "newer 3.12.1");
        for name in ["custom.debian12", "custom", "go1", "provided.al2"] {
            assert_eq!(chosen(name, &installed("python:3.9.2")), "not needed");
        }
    }

    #[test]
    fn a_substitution_is_said_and_an_exact_version_is_not() {
        let runtime = |name| Runtime::parse(name).expect("a runtime that is served");
        let here = installed("python:3.11.2 python:3.7.1! node:20.0.0");
        assert_eq!(
            here.substitution(&runtime("python3.9")).as_deref(),
            Some("python3.9 is not installed: Python 3.11.2 serves it, the nearest newer version")
        );
        for name in ["python3", "nodejs20", "java11", "custom"] {
            assert_eq!(here.substitution(&runtime(name)), None);
        }
        assert_eq!(here.missing(&runtime("nodejs8")), None);
        let missing = here.missing(&runtime("java8")).expect("no Java");
        assert!(missing.contains("no Java") && missing.contains("default-jre-headless"), "{missing}");
        let unfit = installed("python:3.7.1!").missing(&runtime("python3")).expect("no usable Python");
        assert!(unfit.contains("(/x/python:3.7.1!/bin/p is too old)"), "{unfit}");
    }

    #[test]
    fn versions_and_names_are_read_strictly() {
        assert_eq!(InterpreterVersion::parse("3.10.13"), Some(InterpreterVersion::new(3, 10, 13)));
        assert_eq!(InterpreterVersion::parse("21-ea"), Some(InterpreterVersion::new(21, 0, 0)));
        assert_eq!(InterpreterVersion::parse("8.2.7-1+deb12u1 (cli)"), Some(InterpreterVersion::new(8, 2, 7)));
        for bad in ["", "v20", ".1", "99999999999.1", "three"] {
            assert_eq!(InterpreterVersion::parse(bad), None, "{bad}");
        }
        assert_eq!(Wanted::parse("python3.10"), Some(Wanted { language: Language::Python, major: 3, minor: Some(10) }));
        assert_eq!(Wanted::parse("nodejs20"), Some(Wanted { language: Language::Node, major: 20, minor: None }));
        for bad in ["python", "python3.x", "nodejs20.", "custom", "go1", "java11lts", "ruby3"] {
            assert_eq!(Wanted::parse(bad), None, "{bad}");
        }
    }
}
