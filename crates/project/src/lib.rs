//! Projects: what a person wrote in `s.yaml` or `dunlin.toml`, what it means, and what has to be done for a platform to be so.
//!
//! Everything here is a function of its arguments. Files, the environment and the account are reached through [`World`],
//! the platform only as what was [found](plan::Found) there; who has a network performs the [operations](plan::Operation).
//!
//! ```text
//! text ──▶ node::Node ──variables──▶ node::Node ──shape──▶ Project ──plan(found)──▶ changes
//! ```
//!
//! - [`node`] is a document of either format, every value with the line it stands on.
//! - [`variables`] puts values in the places of `${…}`.
//! - [`shape`] checks a document against a table and reads it as JSON; the schema for editors is made from the same table.
//! - [`serverless`] reads Serverless Devs' `s.yaml`, [`own`] the project's own `dunlin.toml`; both make a [`Project`].
//! - [`mod@plan`] compares a resource with what was found.
//!
//! # Invariants
//! - What an alias of YAML or a variable can grow to is bounded; a file that asks for more is refused.
//! - A member that is not known is refused, and one that has no effect is named in [`Project::warnings`].

pub mod node;
pub mod own;
pub mod plan;

mod project;
pub mod serverless;
pub mod shape;
mod toml_text;
pub mod variables;
mod yaml;

use std::path::Path;

pub use node::{Place, Problem, Problems};
pub use project::{
    Action, Alias, Content, Domain, Function, Keeping, KeepingKind, Layer, Moment, Project, Resource, Route, Trigger, Version,
};
pub use variables::{Outputs, World};

/// The names a project's file may have, by precedence.
pub const FILE_NAMES: &[&str] = &["dunlin.toml", "s.yaml", "s.yml"];

/// Reads the project in `file`. `outputs` are the results of resources that are deployed already; what refers to others
/// stays as it is written, and its resource says so in [`Resource::waits_for`].
///
/// # Errors
/// Everything that is wrong with the file, each with its line.
pub fn read(file: &Path, world: &dyn World, outputs: &Outputs) -> Result<Project, Problems> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => own::read(file, world, outputs),
        Some("yaml" | "yml") => serverless::read(file, world, outputs),
        _ => {
            let place = Place::of_file(file);
            Err(Problems::one(place, "is not a project file: its name ends in .yaml, .yml or .toml"))
        }
    }
}
