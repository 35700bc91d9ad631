//! What this host offers, wall by wall.

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// The platform runs, with less.
    Degraded,
    /// Not there.
    Missing,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it, if anything.
    pub fix: Option<String>,
}

/// Looks at everything the platform needs from this host. Changes nothing.
#[must_use]
pub fn report() -> Vec<Check> {
    Vec::new()
}
