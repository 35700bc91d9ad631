//! What a project is, whichever format it was written in.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::node::{Place, Problem};

/// Everything a file asks for.
#[derive(Clone, Debug)]
pub struct Project {
    /// What it is called, if it is called anything.
    pub name: Option<String>,
    /// In the order they are deployed in: nothing needs what comes after it.
    pub resources: Vec<Resource>,
    /// What runs around the deployment of all of them.
    pub actions: Vec<Action>,
    /// What is written but has no effect here.
    pub warnings: Vec<Problem>,
}

/// One thing a platform shall have.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name in the file.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Resources of the same file that come first.
    pub needs: Vec<String>,
    /// Those of them whose results are not known yet: their places hold `${…}`.
    pub waits_for: Vec<String>,
    /// What runs around its deployment.
    pub actions: Vec<Action>,
    /// What it is.
    pub content: Content,
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A package that functions share.
    Layer(Layer),
    /// A function with all that belongs to it.
    Function(Box<Function>),
    /// A custom domain.
    Domain(Domain),
}

/// A layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name on the platform.
    pub name: String,
    /// A folder or a zip.
    pub code: PathBuf,
    /// `description` and `compatibleRuntime`, in the API's spelling.
    pub config: Map<String, Value>,
}

/// A function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name on the platform.
    pub name: String,
    /// A folder or a zip; absent for a container.
    pub code: Option<PathBuf>,
    /// What the API's `CreateFunction` is told besides, `layers` as resource names.
    pub config: Map<String, Value>,
    /// Its aliases, when the file says which there are.
    pub aliases: Option<Vec<Alias>>,
    /// All of its triggers.
    pub triggers: Vec<Trigger>,
    /// How many instances are set aside for it.
    pub reserved_concurrency: Option<Value>,
    /// What is said about it or one of its aliases.
    pub keepings: Vec<Keeping>,
    /// A domain with a route to it.
    pub domain: Option<Domain>,
}

/// A name for a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub version: Version,
    /// Free text.
    pub description: String,
}

/// Which version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The function as the file says it is: published when it is no version's yet.
    Newest,
    /// This one.
    Number(u64),
}

/// What calls a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// `http`, `timer`, …
    pub kind: String,
    /// What it calls.
    pub qualifier: String,
    /// Free text.
    pub description: String,
    /// Its configuration, which the wire carries as text.
    pub config: Value,
    /// `sourceArn` and `invocationRole`, where they are given.
    pub others: Map<String, Value>,
}

/// What is said about a version or an alias beside the function's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Keeping {
    /// Which sort.
    pub kind: KeepingKind,
    /// Of what.
    pub qualifier: String,
    /// In the API's spelling.
    pub config: Map<String, Value>,
}

/// The sorts of [`Keeping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepingKind {
    /// Instances that are kept ready, in the older form.
    Provision,
    /// The same in the newer form.
    Scaling,
    /// How asynchronous calls are treated.
    AsyncInvoke,
}

/// A custom domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// The host.
    pub name: String,
    /// In the API's spelling, routes apart.
    pub config: Map<String, Value>,
    /// Where its paths lead.
    pub routes: Vec<Route>,
    /// Whether there are no routes but these; else they are put beside those of others.
    pub whole: bool,
}

/// One route, in the API's spelling.
pub type Route = Map<String, Value>;

/// A command that runs on the machine of who deploys.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Where it is written.
    pub place: Place,
    /// When it runs.
    pub moment: Moment,
    /// What a shell is told.
    pub run: String,
    /// Where.
    pub folder: PathBuf,
    /// Whether the deployment goes on when it fails.
    pub may_fail: bool,
}

/// When an action runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before.
    Before,
    /// After it went well.
    Done,
    /// After it failed.
    Failed,
    /// After it, either way.
    After,
}
