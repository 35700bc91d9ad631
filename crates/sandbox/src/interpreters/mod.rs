//! Finds the interpreters of the machine, once, before anything is served.
//!
//! Candidates come from the operator and from a table of places ([`places`]); what each is, it says itself ([`ask`]). A
//! candidate that hangs or talks nonsense is listed as broken and holds nobody up. One that cannot serve is kept too: whoever
//! looks for it wants to read why.
//!
//! # Invariants
//! - Nothing is started that somebody other than root and the invoking user could have put there ([`trust`]).
//! - Each program is asked once, all of them together for no longer than [`Search::patience`].
//! - A program is in the list once, however many names it has.

mod ask;
mod places;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use places::links;

use dunlin_model::{Interpreter, InterpreterVersion, Interpreters, Language, Standing};

/// How many are asked at a time: one that hangs takes a place until its time is over.
const ASKERS: usize = 8;

/// The most interpreters that are looked at, and the longest path of one: what is known of all of them goes through a pipe
/// in one piece. A machine with more has the rest passed over.
const FOUND_MAX: usize = 48;
const PATH_MAX: usize = 200;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Search {
    /// The directory taken for `/`. Another one only in tests.
    root: PathBuf,
    /// Home directories with version managers in them.
    homes: Vec<PathBuf>,
    /// Programs or their directories that the operator named.
    named: Vec<PathBuf>,
    /// Beside root, whose files are trusted.
    owner: Option<u32>,
    /// When whoever has not answered counts as broken.
    patience: Duration,
}

/// Something the operator named is not an interpreter that can serve.
#[derive(Debug, thiserror::Error)]
#[error("{} {why}", path.display())]
pub struct NotAnInterpreter {
    /// What was named.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// What a directory or a file name may stand for.
struct Candidate {
    language: Language,
    /// As it was found.
    path: PathBuf,
    /// Without links.
    real: PathBuf,
}

impl Search {
    /// This machine's usual places, the homes of root and of the user who said `sudo`, and what the operator named.
    #[must_use]
    pub fn of_host(named: Vec<PathBuf>) -> Self {
        let owner = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|uid| *uid != 0);
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let homes = [Some(0), owner].into_iter().flatten().filter_map(|uid| places::home_of(&passwd, uid)).collect();
        Self { root: "/".into(), homes, named, owner, patience: Duration::from_secs(5) }
    }

    /// Looks everywhere and asks everybody.
    ///
    /// # Errors
    /// When something the operator named cannot serve: it was meant to.
    pub fn run(&self) -> Result<Interpreters, NotAnInterpreter> {
        let mut candidates = Vec::new();
        for path in &self.named {
            candidates.push(Self::named(path)?);
        }
        let named = candidates.len();
        for directory in places::directories(&self.root, &self.homes) {
            let here = places::programs(&directory).into_iter();
            candidates.extend(here.filter_map(|(language, path)| Self::candidate(language, path)));
        }
        let mut seen = HashSet::new();
        let mut index = 0;
        candidates.retain(|candidate| {
            index += 1;
            // What was named twice is answered for twice.
            seen.insert(candidate.real.clone()) || index <= named
        });
        candidates.truncate(FOUND_MAX);
        let found = self.ask_all(&candidates);
        for (path, interpreter) in self.named.iter().zip(&found) {
            if let Standing::Unfit { why, .. } | Standing::Broken { why } = &interpreter.standing {
                return Err(NotAnInterpreter { path: path.clone(), why: why.clone() });
            }
        }
        Ok(Interpreters::new(found))
    }

    /// A program of a known name, or a directory with one in its `bin`.
    fn named(path: &Path) -> Result<Candidate, NotAnInterpreter> {
        let refused = |why: String| NotAnInterpreter { path: path.to_owned(), why };
        let absolute = std::path::absolute(path).map_err(|error| refused(format!("cannot be found: {error}")))?;
        let found = std::fs::metadata(&absolute).map_err(|error| refused(format!("cannot be found: {error}")))?;
        let candidate = if found.is_dir() {
            let inside = [absolute.join("bin"), absolute].into_iter().flat_map(|directory| places::programs(&directory)).next();
            inside.and_then(|(language, path)| Self::candidate(language, path))
        } else {
            let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            places::language_of(&name).and_then(|language| Self::candidate(language, absolute))
        };
        candidate.ok_or_else(|| {
            refused(
                "is neither an interpreter (a program called python3, node, java, php or dotnet) nor a directory with one in its bin"
                    .to_owned(),
            )
        })
    }

    fn candidate(language: Language, path: PathBuf) -> Option<Candidate> {
        let real = path.canonicalize().ok()?;
        // Paths travel as text: to the server, and to programs inside.
        let fits = |path: &Path| path.to_str().is_some_and(|text| text.len() <= PATH_MAX);
        (fits(&path) && fits(&real)).then_some(Candidate { language, path, real })
    }

    fn ask_all(&self, candidates: &[Candidate]) -> Vec<Interpreter> {
        let deadline = Instant::now() + self.patience;
        let next = AtomicUsize::new(0);
        let answers: Vec<Mutex<Option<Interpreter>>> = candidates.iter().map(|_| Mutex::new(None)).collect();
        thread::scope(|scope| {
            for _ in 0..ASKERS.min(candidates.len()) {
                scope.spawn(|| {
                    while let Some((candidate, answer)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        candidates.get(index).zip(answers.get(index))
                    } {
                        *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.interpreter(candidate, deadline));
                    }
                });
            }
        });
        let taken = answers.into_iter().map(|answer| answer.into_inner().unwrap_or_else(PoisonError::into_inner));
        taken.flatten().collect()
    }

    fn interpreter(&self, candidate: &Candidate, deadline: Instant) -> Interpreter {
        let Candidate { language, path, real } = candidate;
        let in_usr = real.starts_with(self.root.join("usr"));
        // Links below /usr lead on for guests as well; others need not.
        let program = if in_usr && path.starts_with(self.root.join("usr")) { path } else { real };
        let beside = real.parent().unwrap_or(Path::new("/"));
        // A .NET has everything beside it; others are in the `bin` of theirs.
        let home = if *language == Language::Dotnet { beside } else { beside.parent().unwrap_or(Path::new("/")) };
        let checked = self.check(real, home, in_usr).and_then(|()| ask::version(*language, real, home, deadline));
        let standing = match checked {
            Ok(version) => match oldest(*language) {
                least if version >= least => Standing::Usable { version },
                InterpreterVersion { major, minor, .. } => {
                    let least = if minor == 0 { major.to_string() } else { format!("{major}.{minor}") };
                    Standing::Unfit { version, why: format!("is older than {least}, the oldest that serves functions") }
                }
            },
            Err(why) => Standing::Broken { why },
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Interpreter { language: *language, program: text(program), home: text(home), standing }
    }

    /// Whether it may be started, and guests may see it.
    fn check(&self, real: &Path, home: &Path, in_usr: bool) -> Result<(), String> {
        trust::check(real, self.owner)?;
        if in_usr { Ok(()) } else { trust::can_be_shown(&self.root, home, &self.homes) }
    }
}

/// The oldest version in which the platform's bootstrap works.
fn oldest(language: Language) -> InterpreterVersion {
    match language {
        Language::Python => InterpreterVersion::new(3, 8, 0),
        Language::Node => InterpreterVersion::new(16, 0, 0),
        Language::Java => InterpreterVersion::new(8, 0, 0),
        Language::Dotnet => InterpreterVersion::new(3, 1, 0),
        _ => InterpreterVersion::new(8, 1, 0),
    }
}

/// The directories that guests must see besides `/usr` for `interpreters` to work in them; none lies inside another.
#[must_use]
pub(crate) fn shown(interpreters: &Interpreters) -> Vec<PathBuf> {
    let usable = interpreters.all().iter().filter(|found| found.usable().is_some());
    let mut homes: Vec<PathBuf> =
        usable.map(|found| PathBuf::from(&found.home)).filter(|home| !home.starts_with("/usr")).collect();
    homes.sort();
    let mut shown: Vec<PathBuf> = Vec::new();
    for home in homes {
        if !shown.last().is_some_and(|last| home.starts_with(last)) {
            shown.push(home);
        }
    }
    shown
}
