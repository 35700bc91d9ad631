//! `${…}`: values from elsewhere in the places that name them.
//!
//! Serverless Devs' forms, in both formats: `${env('NAME', 'default')}`, `${file('path')}`, `${json(…)}`, `${path('…')}`,
//! `${config('AccountID')}`, `${vars.…}`, `${this.…}`, `${resources.NAME.props.…}` and `${resources.NAME.output.…}`. A text
//! that is nothing but one of them becomes what it names, of whatever kind; within other text it must be one word.
//!
//! # Invariants
//! - A result that is not there yet leaves its text as it is, marked [`Style::Waiting`]; whose it is is remembered.
//! - What refers to itself is refused with the way it took.

mod expression;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::node::{Content, Member, NODES_MAX, Node, Place, Problem, Scalar, Style, TEXT_BYTES_MAX};
use crate::shape::nearest;
use expression::{Expression, Step};

/// How deep values may lie in each other, variables put in.
const DEPTH_MAX: usize = 100;

/// What lies outside of the file.
pub trait World {
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;
    /// A member of the account's configuration: `AccountID`, `AccessKeyID`, `AccessKeySecret`, …
    fn config(&self, name: &str) -> Option<String>;
    /// A file's text.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The results of resources that are deployed, by the resources' names.
pub type Outputs = BTreeMap<String, Value>;

/// Puts values in the places of variables, in one document.
pub(crate) struct Resolver<'a> {
    /// What `vars` are.
    pub(crate) vars: Option<&'a Node>,
    /// Each resource, with `name`, `component`, `access` and `props`.
    pub(crate) resources: &'a [Member],
    /// What paths are relative to.
    pub(crate) folder: &'a Path,
    pub(crate) world: &'a dyn World,
    pub(crate) outputs: &'a Outputs,
    /// Resources whose results were asked for since this was last taken, and where.
    pub(crate) needs: BTreeMap<String, Place>,
    pub(crate) problems: Vec<Problem>,
    /// The variables that are being looked up, the outermost first.
    chain: Vec<String>,
    depth: usize,
    nodes: usize,
    bytes: usize,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        vars: Option<&'a Node>,
        resources: &'a [Member],
        folder: &'a Path,
        world: &'a dyn World,
        outputs: &'a Outputs,
    ) -> Self {
        Self {
            vars,
            resources,
            folder,
            world,
            outputs,
            needs: BTreeMap::new(),
            problems: Vec::new(),
            chain: Vec::new(),
            depth: 0,
            nodes: 0,
            bytes: 0,
        }
    }

    /// `node` with its variables put in; `this` is the resource it belongs to.
    pub(crate) fn resolve(&mut self, node: &Node, this: Option<&str>) -> Node {
        self.nodes += 1;
        if self.depth >= DEPTH_MAX {
            return self.refuse(&node.place, format!("lies deeper than {DEPTH_MAX} levels, variables put in"));
        }
        if self.nodes > NODES_MAX || self.bytes > TEXT_BYTES_MAX {
            // Said once: everything after it is too much as well.
            if self.problems.last().is_some_and(|last| last.what.starts_with("more than")) {
                return Node::scalar(node.place.clone(), "", Style::Waiting);
            }
            return self.refuse(&node.place, format!("more than {NODES_MAX} values or {TEXT_BYTES_MAX} bytes, variables put in"));
        }
        self.depth += 1;
        let resolved = match &node.content {
            Content::Scalar(scalar) => self.scalar(scalar, &node.place, this),
            Content::List(items) => {
                let items = items.iter().map(|item| self.resolve(item, this)).collect();
                Node { place: node.place.clone(), content: Content::List(items) }
            }
            Content::Members(members) => {
                let members =
                    members.iter().map(|member| Member { value: self.resolve(&member.value, this), ..member.clone() }).collect();
                Node { place: node.place.clone(), content: Content::Members(members) }
            }
        };
        self.depth -= 1;
        resolved
    }

    fn refuse(&mut self, place: &Place, what: impl Into<String>) -> Node {
        self.problems.push(Problem { place: place.clone(), what: what.into() });
        // Fits everywhere, so that one mistake is said once.
        Node::scalar(place.clone(), "", Style::Waiting)
    }

    fn scalar(&mut self, scalar: &Scalar, place: &Place, this: Option<&str>) -> Node {
        self.bytes += scalar.text.len();
        if !scalar.text.contains("${") {
            return Node { place: place.clone(), content: Content::Scalar(scalar.clone()) };
        }
        let parts = match expression::split(&scalar.text) {
            Ok(parts) => parts,
            Err(problem) => return self.refuse(place, problem),
        };
        if let [expression::Part::Variable(text, expression)] = parts.as_slice() {
            let found = self.evaluate(expression, text, place, this);
            return Node { place: place.clone(), ..found };
        }
        let (mut whole, mut style) = (String::new(), scalar.style);
        for part in &parts {
            match part {
                expression::Part::Text(text) => whole.push_str(text),
                expression::Part::Variable(text, expression) => {
                    let found = self.evaluate(expression, text, place, this);
                    match &found.content {
                        Content::Scalar(found) => {
                            whole.push_str(&found.text);
                            if found.style == Style::Waiting {
                                style = Style::Waiting;
                            }
                        }
                        Content::List(_) | Content::Members(_) => {
                            let what = format!("{text} is {}, and within other text it must be one word", found.kind());
                            return self.refuse(place, what);
                        }
                    }
                }
            }
        }
        self.bytes += whole.len();
        Node::scalar(place.clone(), whole, style)
    }

    /// What `expression` names; `text` is how it is written.
    fn evaluate(&mut self, expression: &Expression, text: &str, place: &Place, this: Option<&str>) -> Node {
        match expression {
            Expression::Text(text) => Node::scalar(place.clone(), text.clone(), Style::Quoted),
            Expression::Path(steps) => self.path(steps, text, place, this),
            Expression::Call { name, arguments } => {
                let mut words = Vec::new();
                for argument in arguments {
                    let argument = self.evaluate(argument, text, place, this);
                    match argument.content {
                        Content::Scalar(scalar) if scalar.style == Style::Waiting => {
                            return Node::scalar(place.clone(), text, Style::Waiting);
                        }
                        Content::Scalar(scalar) => words.push(scalar.text),
                        Content::List(_) | Content::Members(_) => {
                            return self.refuse(place, format!("{text}: what {name} is given must be text"));
                        }
                    }
                }
                self.call(name, &words, text, place)
            }
        }
    }

    fn call(&mut self, name: &str, arguments: &[String], text: &str, place: &Place) -> Node {
        let world = self.world;
        match (name, arguments) {
            ("env", [variable]) => match world.env(variable) {
                Some(value) => Node::scalar(place.clone(), value, Style::Plain),
                None => self.refuse(
                    place,
                    format!("the environment has no variable {variable}; set it, or write ${{env('{variable}', 'a default')}}"),
                ),
            },
            ("env", [variable, default]) => {
                Node::scalar(place.clone(), world.env(variable).unwrap_or_else(|| default.clone()), Style::Plain)
            }
            ("config", [member]) => match world.config(member) {
                Some(value) => Node::scalar(place.clone(), value, Style::Quoted),
                None => self.refuse(place, format!("{text}: the account's configuration has no member '{member}'")),
            },
            ("path", [path]) => Node::scalar(place.clone(), self.folder.join(path).to_string_lossy().into_owned(), Style::Quoted),
            ("file", [path]) => match world.read(&self.folder.join(path)) {
                Ok(text) => {
                    self.bytes += text.len();
                    Node::scalar(place.clone(), text.trim_end_matches(['\r', '\n']), Style::Quoted)
                }
                Err(error) => self.refuse(place, format!("{text}: cannot read {}: {error}", self.folder.join(path).display())),
            },
            ("json", [json]) => match serde_json::from_str::<Value>(json) {
                Ok(value) => Node::from_json(place, &value),
                Err(error) => self.refuse(place, format!("{text}: it is not JSON: {error}")),
            },
            ("env" | "config" | "path" | "file" | "json", _) => self
                .refuse(place, format!("{text}: {name} takes {}", if name == "env" { "one or two words" } else { "one word" })),
            _ => self.refuse(place, format!("{text}: '{name}' is unknown; known are env, file, json, path and config")),
        }
    }

    fn path(&mut self, steps: &[Step], text: &str, place: &Place, this: Option<&str>) -> Node {
        let names: Vec<&str> = steps.iter().map(Step::name).collect();
        match (names.as_slice(), this) {
            (["vars", ..], _) => match self.vars {
                Some(vars) => self.lookup(vars, &steps[1..], "vars", text, place, this),
                None => self.refuse(place, format!("{text}: the file has no vars")),
            },
            (["this" | "that", ..], Some(this)) => self.resource(this, &steps[1..], text, place),
            (["this" | "that", ..], None) => self.refuse(place, format!("{text}: this belongs to no resource")),
            (["resources", name, "output", ..], _) => self.output(name, &steps[3..], text, place),
            (["resources", name, ..], _) => self.resource(name, &steps[2..], text, place),
            _ => {
                let what = "write env('…'), file('…'), path('…'), config('…'), vars.…, this.… or resources.NAME.props|output.…";
                self.refuse(place, format!("{text} is unknown; {what}"))
            }
        }
    }

    /// Something that is said about a resource.
    fn resource(&mut self, name: &str, steps: &[Step], text: &str, place: &Place) -> Node {
        let resources = self.resources;
        match resources.iter().find(|member| member.name == name) {
            Some(found) => self.lookup(&found.value, steps, &format!("resources.{name}"), text, place, Some(name)),
            None => self.unknown(name, text, place),
        }
    }

    fn unknown(&mut self, name: &str, text: &str, place: &Place) -> Node {
        let near = nearest(name, self.resources.iter().map(|member| member.name.as_str()));
        let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        self.refuse(place, format!("{text}: there is no resource '{name}'{near}"))
    }

    /// What a resource's deployment results in.
    fn output(&mut self, name: &str, steps: &[Step], text: &str, place: &Place) -> Node {
        if !self.resources.iter().any(|member| member.name == name) {
            return self.unknown(name, text, place);
        }
        self.needs.entry(name.to_owned()).or_insert_with(|| place.clone());
        let Some(mut value) = self.outputs.get(name) else { return Node::scalar(place.clone(), text, Style::Waiting) };
        for step in steps {
            let next = match step {
                Step::Name(name) => value.get(name),
                Step::Index(index) => value.get(index),
            };
            match next {
                Some(next) => value = next,
                None => {
                    let known = value.as_object().into_iter().flat_map(|members| members.keys().map(String::as_str));
                    let known = known.collect::<Vec<_>>().join(", ");
                    return self.refuse(place, format!("{text}: there is no '{}'; there are {known}", step.name()));
                }
            }
        }
        Node::from_json(place, value)
    }

    /// The value at `steps` below `from`, its own variables put in.
    fn lookup(&mut self, from: &Node, steps: &[Step], path: &str, text: &str, place: &Place, this: Option<&str>) -> Node {
        let (mut node, mut key) = (from, path.to_owned());
        for (index, step) in steps.iter().enumerate() {
            if node.text().is_some_and(|text| text.contains("${")) {
                // A variable on the way: what it names is looked into.
                let between = self.within(&key, place, |resolver| resolver.resolve(node, this));
                let waiting = matches!(&between.content, Content::Scalar(Scalar { style: Style::Waiting, .. }));
                return if waiting {
                    Node::scalar(place.clone(), text, Style::Waiting)
                } else {
                    self.lookup(&between, &steps[index..], &key, text, place, this)
                };
            }
            let next = match (step, &node.content) {
                (Step::Index(index), Content::List(items)) => items.get(*index),
                (step, Content::Members(_)) => node.member(step.name()),
                _ => None,
            };
            let Some(next) = next else {
                let near = nearest(step.name(), node.members().iter().map(|member| member.name.as_str()));
                let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                return self.refuse(place, format!("{text}: {key} has no '{}'{near}", step.name()));
            };
            node = next;
            key = format!("{key}.{}", step.name());
        }
        self.within(&key, place, |resolver| resolver.resolve(node, this))
    }

    fn within(&mut self, key: &str, place: &Place, work: impl FnOnce(&mut Self) -> Node) -> Node {
        if let Some(begin) = self.chain.iter().position(|other| other == key) {
            let way = self.chain[begin..].join(" -> ");
            return self.refuse(place, format!("{key} refers to itself: {way} -> {key}"));
        }
        self.chain.push(key.to_owned());
        let found = work(self);
        self.chain.pop();
        found
    }
}
