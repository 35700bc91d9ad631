//! What a document may look like: one table says which members there are, of which kind, and what they mean.
//!
//! The same table checks a document, reads it as JSON in the API's spelling, and makes the schema that editors read.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::node::{Content, Node, Place, Problem, Scalar, Style};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text; a number or a truth value counts as what it is spelled as.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list of one kind.
    List(&'static Shape),
    /// Names of one's own with values of one kind.
    Map(&'static Shape),
    /// These members and no others.
    Members(&'static [Field]),
    /// A word, or the other one; the first is for scalars.
    Either(&'static Shape, &'static Shape),
    /// Whatever it is, it is handed on.
    Any,
}

/// A member that there may be.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// What it means, in a sentence for people who write one.
    pub about: &'static str,
    /// What becomes of it, when that is not what it asks for.
    pub fate: Fate,
}

/// What becomes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has its effect.
    Used,
    /// It is sent and given back, without an effect: why.
    Kept(&'static str),
    /// It is left out: why.
    Dropped(&'static str),
    /// It cannot be done: what to do instead.
    Refused(&'static str),
}

impl Field {
    /// A member that may be there and has its effect.
    #[must_use]
    pub const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, required: false, about, fate: Fate::Used }
    }

    /// The same, which must be there.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same with another fate.
    #[must_use]
    pub const fn fate(self, fate: Fate) -> Self {
        Self { fate, ..self }
    }
}

/// What is found while a document is read.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What has no effect.
    pub warnings: Vec<Problem>,
}

impl Findings {
    pub(crate) fn wrong(&mut self, place: &Place, what: impl Into<String>) {
        self.problems.push(Problem { place: place.clone(), what: what.into() });
    }

    pub(crate) fn warn(&mut self, place: &Place, what: impl Into<String>) {
        self.warnings.push(Problem { place: place.clone(), what: what.into() });
    }

    /// Reads `node` as members of the table, leaving out those that are dropped. `path` is what they are members of.
    pub fn members(&mut self, node: &Node, fields: &[Field], path: &str) -> Map<String, Value> {
        let mut read = Map::new();
        let Content::Members(members) = &node.content else {
            if !node.is_null() {
                self.wrong(&node.place, format!("{} must be a set of members, and is {}", or_root(path), node.kind()));
            }
            return read;
        };
        for member in members {
            let Some(field) = fields.iter().find(|field| field.name == member.name) else {
                self.unknown(&member.place, &member.name, fields.iter().map(|field| field.name), path);
                continue;
            };
            if member.value.is_null() {
                continue;
            }
            let path = join(path, field.name);
            match field.fate {
                Fate::Used => {}
                Fate::Kept(why) => self.warn(&member.place, format!("{path} has no effect: {why}")),
                Fate::Dropped(why) => {
                    self.warn(&member.place, format!("{path} is left out: {why}"));
                    continue;
                }
                Fate::Refused(instead) => {
                    self.wrong(&member.place, format!("{path} cannot be done here: {instead}"));
                    continue;
                }
            }
            if let Some(value) = self.value(&member.value, &field.shape, &path) {
                read.insert(field.name.to_owned(), value);
            }
        }
        for field in fields.iter().filter(|field| field.required) {
            if node.member(field.name).is_none_or(Node::is_null) {
                self.wrong(&node.place, format!("{} is required", join(path, field.name)));
            }
        }
        read
    }

    /// Reads `node` as `shape` says; nothing when it is something else, which is a finding then.
    pub fn value(&mut self, node: &Node, shape: &Shape, path: &str) -> Option<Value> {
        if let Content::Scalar(Scalar { text, style: Style::Waiting }) = &node.content {
            return Some(text.clone().into());
        }
        let read = match (shape, &node.content) {
            (Shape::Any, _) => Some(node.to_json()),
            (Shape::Text, Content::Scalar(_)) => node.text().map(Value::from),
            (Shape::Word(words), Content::Scalar(scalar)) if words.contains(&scalar.text.as_str()) => {
                Some(scalar.text.clone().into())
            }
            (Shape::Word(words), Content::Scalar(scalar)) => {
                let near = nearest(&scalar.text, words.iter().copied()).map(|near| format!(" (did you mean '{near}'?)"));
                let near = near.unwrap_or_default();
                self.wrong(&node.place, format!("{path} must be one of {}, and is '{}'{near}", words.join(", "), scalar.text));
                return None;
            }
            (Shape::Integer, Content::Scalar(scalar)) => scalar.integer().map(Value::from),
            (Shape::Number, Content::Scalar(scalar)) => scalar.number().map(Value::Number),
            (Shape::Boolean, Content::Scalar(scalar)) => scalar.boolean().map(Value::Bool),
            (Shape::List(of), Content::List(items)) => {
                let items = items.iter().enumerate();
                return Some(items.filter_map(|(index, item)| self.value(item, of, &format!("{path}[{index}]"))).collect());
            }
            (Shape::Map(of), Content::Members(members)) => {
                let members = members.iter();
                let read = members
                    .filter_map(|member| Some((member.name.clone(), self.value(&member.value, of, &join(path, &member.name))?)));
                return Some(Value::Object(read.collect()));
            }
            (Shape::Members(fields), Content::Members(_)) => return Some(Value::Object(self.members(node, fields, path))),
            (Shape::Either(word, _), Content::Scalar(_)) => return self.value(node, word, path),
            (Shape::Either(_, other), _) => return self.value(node, other, path),
            _ => None,
        };
        if read.is_none() {
            let hint = match (&node.content, shape) {
                (Content::Scalar(Scalar { text, style: Style::Quoted }), Shape::Integer | Shape::Number | Shape::Boolean)
                    if (Scalar { text: text.clone(), style: Style::Plain }).number().is_some()
                        || matches!(text.as_str(), "true" | "false") =>
                {
                    "; leave out the quotes"
                }
                _ => "",
            };
            self.wrong(&node.place, format!("{path} must be {}, and is {}{hint}", shape.name(), node.kind()));
        }
        read
    }

    /// A member that there is not, with the nearest that there is.
    pub(crate) fn unknown<'a>(&mut self, place: &Place, name: &str, known: impl Iterator<Item = &'a str> + Clone, path: &str) {
        let within = if path.is_empty() { String::new() } else { format!(" in {path}") };
        let what = match nearest(name, known.clone()) {
            Some(near) => format!("'{name}' is unknown{within}; did you mean '{near}'?"),
            None => {
                let known: BTreeSet<&str> = known.collect();
                format!("'{name}' is unknown{within}; known are {}", known.into_iter().collect::<Vec<_>>().join(", "))
            }
        };
        self.wrong(place, what);
    }
}

/// The name that `name` was most likely meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let best = known.map(|known| (likeness(known), known)).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness > 0.8).map(|(_, known)| known)
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn or_root(path: &str) -> &str {
    if path.is_empty() { "the file" } else { path }
}

impl Shape {
    fn name(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Integer => "a whole number".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) | Self::Members(_) => "a set of members".to_owned(),
            Self::Either(word, other) => format!("{} or {}", word.name(), other.name()),
            Self::Any => "anything".to_owned(),
        }
    }

    /// This as JSON Schema. Where a number or a truth value is asked for, a variable may stand.
    #[must_use]
    pub fn to_schema(self) -> Value {
        let or_variable = |of: &str| json!({ "anyOf": [{ "type": of }, { "type": "string", "pattern": "\\$\\{.+\\}" }] });
        match self {
            Self::Text => json!({ "type": ["string", "number", "boolean"] }),
            Self::Word(words) => json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": "\\$\\{.+\\}" }] }),
            Self::Integer => or_variable("integer"),
            Self::Number => or_variable("number"),
            Self::Boolean => or_variable("boolean"),
            Self::List(of) => json!({ "type": "array", "items": of.to_schema() }),
            Self::Map(of) => json!({ "type": "object", "additionalProperties": of.to_schema() }),
            Self::Members(fields) => members_schema(fields),
            Self::Either(word, other) => json!({ "anyOf": [word.to_schema(), other.to_schema()] }),
            Self::Any => json!({}),
        }
    }
}

/// A set of members as JSON Schema.
#[must_use]
pub fn members_schema(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let mut schema = field.shape.to_schema();
            schema["description"] = field.about.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}
