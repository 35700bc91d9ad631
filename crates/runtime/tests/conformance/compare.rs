//! What came out, beside what a case expects.

use dunlin_sandbox::{Ended, Exit};
use serde_json::Value;

use crate::case::{Language, bytes_of};

#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Vec<u8>),
    Error { kind: String, body: Vec<u8> },
}

impl Outcome {
    pub(crate) fn error(kind: &str, body: Vec<u8>) -> Self {
        Self::Error { kind: kind.to_owned(), body }
    }

    pub(crate) fn named(kind: &str) -> Self {
        Self::error(kind, Vec::new())
    }

    pub(crate) fn exited(ended: &Ended) -> Self {
        match ended.exit {
            Exit::Code(code) => Self::named(&format!("Exited({code})")),
            _ => Self::named("Exited"),
        }
    }
}

/// Everything a caller and an operator see of one call.
pub(crate) struct Seen<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) lines: Vec<String>,
    pub(crate) spent: bool,
    pub(crate) code: &'a str,
    pub(crate) request: &'a str,
}

impl Seen<'_> {
    /// Members for the language win over common ones.
    pub(crate) fn check(&self, expected: &Value, language: Language) -> Result<(), String> {
        let own = expected.get(language.name());
        let member = |name: &str| own.and_then(|own| own.get(name)).or_else(|| expected.get(name));
        let bytes = |name: &str| own.and_then(|own| bytes_of(own, name)).or_else(|| bytes_of(expected, name));
        let log =
            || format!("; the last of {} log lines: {:?}", self.lines.len(), &self.lines[self.lines.len().saturating_sub(40)..]);
        match (&self.outcome, member("error").and_then(Value::as_str)) {
            (Outcome::Answer(_), Some(error)) => {
                return Err(format!("expected {error}, got {:?}{}", short(&self.outcome), log()));
            }
            (Outcome::Error { .. }, None) => return Err(format!("{}{}", short(&self.outcome), log())),
            (Outcome::Error { kind, body }, Some(error)) => {
                if kind != error && !(error == "Exited" && kind.starts_with("Exited")) {
                    return Err(format!("expected {error}, got {}{}", short(&self.outcome), log()));
                }
                if let Some(wanted) = member("errorBody").and_then(Value::as_object) {
                    let body: Value = serde_json::from_slice(body).map_err(|error| format!("the error's body: {error}"))?;
                    for (name, wanted) in wanted {
                        self.alike(wanted, &body[name]).map_err(|problem| format!("{name}: {problem}"))?;
                    }
                }
            }
            (Outcome::Answer(answer), None) => {
                if let Some(wanted) = bytes("body")
                    && *answer != wanted
                {
                    return Err(format!("expected {} bytes, got {}{}", wanted.len(), short(&self.outcome), log()));
                }
                if let Some(wanted) = member("json") {
                    let answer: Value = serde_json::from_slice(answer).map_err(|error| format!("the answer: {error}"))?;
                    self.alike(wanted, &answer)?;
                }
            }
        }
        if let Some(spent) = member("spent").and_then(Value::as_bool)
            && spent != self.spent
        {
            return Err(format!("expected spent {spent}, got {}", self.spent));
        }
        let mut lines = self.lines.iter();
        for wanted in member("log").and_then(Value::as_array).into_iter().flatten() {
            let wanted = self.filled(wanted.as_str().unwrap());
            if !lines.any(|line| matches(&wanted, line)) {
                return Err(format!("no line {wanted:?} in order{}", log()));
            }
        }
        for unwanted in member("noLog").and_then(Value::as_array).into_iter().flatten() {
            let unwanted = self.filled(unwanted.as_str().unwrap());
            if self.lines.iter().any(|line| matches(&unwanted, line)) {
                return Err(format!("a line {unwanted:?}{}", log()));
            }
        }
        Ok(())
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{code}", self.code).replace("{rid}", self.request)
    }

    fn alike(&self, wanted: &Value, seen: &Value) -> Result<(), String> {
        let same = match (wanted, seen) {
            (Value::String(wanted), Value::String(seen)) => matches(&self.filled(wanted), seen),
            (Value::Array(wanted), Value::Array(seen)) => {
                wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(wanted, seen)| self.alike(wanted, seen).is_ok())
            }
            (Value::Object(wanted), Value::Object(seen)) => {
                wanted.len() == seen.len()
                    && wanted.iter().all(|(name, wanted)| seen.get(name).is_some_and(|seen| self.alike(wanted, seen).is_ok()))
            }
            _ => wanted == seen,
        };
        if same { Ok(()) } else { Err(format!("expected {wanted}, got {seen}")) }
    }
}

fn short(outcome: &Outcome) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
    match outcome {
        Outcome::Answer(answer) => format!("an answer of {} bytes {:?}", answer.len(), text(answer)),
        Outcome::Error { kind, body } => format!("{kind} {}", text(body)),
    }
}

/// `*` is anything, `?` any one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == text[t] || pattern[p] == '?') {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
