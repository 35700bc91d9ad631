//! A document of either format as a tree, every value with the place it was written at.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

/// Longest file, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Most values of one document, aliases and variables put in.
pub(crate) const NODES_MAX: usize = 50_000;
/// Most bytes of text in one document, aliases and variables put in.
pub(crate) const TEXT_BYTES_MAX: usize = 16 << 20;
/// How deep values may lie in each other.
pub(crate) const DEPTH_MAX: usize = 64;

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    /// Counted from 1; 0 is the file as a whole.
    pub line: usize,
}

impl Place {
    /// The file as a whole.
    #[must_use]
    pub fn of_file(file: &Path) -> Self {
        Self { file: file.to_string_lossy().into(), line: 0 }
    }

    /// A line of the same file.
    #[must_use]
    pub fn at(&self, line: usize) -> Self {
        Self { file: Arc::clone(&self.file), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One thing that is wrong, or that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to write instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong with a file; never empty.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A single problem.
    #[must_use]
    pub fn one(place: Place, what: impl Into<String>) -> Self {
        Self(vec![Problem { place, what: what.into() }])
    }
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// What.
    pub content: Content,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// One word or text.
    Scalar(Scalar),
    /// Several, in order.
    List(Vec<Node>),
    /// Several by name, in the order they are written in.
    Members(Vec<Member>),
}

/// A named value.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The name.
    pub name: String,
    /// Where the name is written.
    pub place: Place,
    /// The value.
    pub value: Node,
    /// Whether it came with another mapping (`<<` of YAML), so that one of its own may take its place.
    pub(crate) merged: bool,
}

/// A scalar as it is written, and what it can be taken for.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// How it came about.
    pub style: Style,
}

/// How a scalar came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: a number, a truth value or text, as is asked for.
    Plain,
    /// In quotes: text.
    Quoted,
    /// It refers to the result of a resource that is not there yet, and fits everywhere.
    Waiting,
}

impl Node {
    pub(crate) fn scalar(place: Place, text: impl Into<String>, style: Style) -> Self {
        Self { place, content: Content::Scalar(Scalar { text: text.into(), style }) }
    }

    /// The member `name`, when this has members and it is one of them.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Content::Members(members) = &self.content else { return None };
        members.iter().find(|member| member.name == name).map(|member| &member.value)
    }

    /// The members, or none.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match &self.content {
            Content::Members(members) => members,
            Content::Scalar(_) | Content::List(_) => &[],
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(scalar) if !self.is_null() => Some(&scalar.text),
            Content::Scalar(_) | Content::List(_) | Content::Members(_) => None,
        }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar)
            if scalar.style == Style::Plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for a person.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar(_) if self.is_null() => "nothing",
            Content::Scalar(scalar) if scalar.integer().is_some() => "a whole number",
            Content::Scalar(scalar) if scalar.number().is_some() => "a number",
            Content::Scalar(scalar) if scalar.boolean().is_some() => "true or false",
            Content::Scalar(_) => "text",
            Content::List(_) => "a list",
            Content::Members(_) => "a set of members",
        }
    }

    /// As JSON, each plain scalar as what it looks like.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(_) if self.is_null() => Value::Null,
            Content::Scalar(scalar) => scalar.to_json(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Members(members) => {
                Value::Object(members.iter().map(|member| (member.name.clone(), member.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// JSON as a document, all of it at `place`.
    #[must_use]
    pub fn from_json(place: &Place, value: &Value) -> Self {
        let content = match value {
            Value::Null => return Self::scalar(place.clone(), "", Style::Plain),
            Value::Bool(_) | Value::Number(_) => return Self::scalar(place.clone(), value.to_string(), Style::Plain),
            Value::String(text) => return Self::scalar(place.clone(), text.clone(), Style::Quoted),
            Value::Array(items) => Content::List(items.iter().map(|item| Self::from_json(place, item)).collect()),
            Value::Object(members) => Content::Members(
                members
                    .iter()
                    .map(|(name, value)| Member {
                        name: name.clone(),
                        place: place.clone(),
                        value: Self::from_json(place, value),
                        merged: false,
                    })
                    .collect(),
            ),
        };
        Self { place: place.clone(), content }
    }

    /// `over` laid over this: members are joined, everything else is replaced, lists as well.
    #[must_use]
    pub(crate) fn merged(self, over: Self) -> Self {
        match (self.content, over.content) {
            (Content::Members(mut members), Content::Members(others)) => {
                for other in others {
                    match members.iter().position(|member| member.name == other.name) {
                        Some(index) => {
                            let below = members[index].value.clone();
                            members[index] = Member { value: below.merged(other.value), ..other };
                        }
                        None => members.push(other),
                    }
                }
                Self { place: over.place, content: Content::Members(members) }
            }
            (_, content) => Self { place: over.place, content },
        }
    }
}

impl Scalar {
    /// The whole number it is.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        if self.style == Style::Plain { self.text.parse().ok() } else { None }
    }

    /// The number it is.
    #[must_use]
    pub fn number(&self) -> Option<Number> {
        if self.style != Style::Plain || !self.text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
            return None;
        }
        self.integer().map(Number::from).or_else(|| self.text.parse().ok().and_then(Number::from_f64))
    }

    /// The truth value it is.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match (self.style, self.text.as_str()) {
            (Style::Plain, "true" | "True" | "TRUE") => Some(true),
            (Style::Plain, "false" | "False" | "FALSE") => Some(false),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let boolean = self.boolean().map(Value::Bool);
        boolean.or_else(|| self.number().map(Value::Number)).unwrap_or_else(|| self.text.clone().into())
    }
}
