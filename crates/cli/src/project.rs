//! `dunlin plan`, `deploy` and `remove` for a project: what a file says, and what it takes for the platform to be so.

mod actions;
mod found;
mod machine;
mod show;
mod steps;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dunlin_model::Crc64;
use dunlin_project::plan::{self, Change, Found, Verb};
use dunlin_project::{Content, FILE_NAMES, Outputs, Project, Resource};

use crate::args::{Deploy, Plan, Remove};
use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::Output;
use crate::package::{self, Package};
use machine::Machine;

/// What `plan` exits with when there is something to do.
const CHANGES: u8 = 2;

/// The project's file that a `deploy` means, if it means a project rather than a folder with code.
pub(crate) fn meant(deploy: &Deploy) -> Result<Option<PathBuf>, Failure> {
    let is_file = || {
        let extension = deploy.path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("toml" | "yaml" | "yml")) && !deploy.path.is_dir()
    };
    let file = match &deploy.file {
        Some(file) => Some(file.clone()),
        None if is_file() => Some(deploy.path.clone()),
        // Who says what the code is means the code.
        None if deploy.runtime.is_some() || deploy.handler.is_some() || deploy.name.is_some() => None,
        None => in_folder(&deploy.path),
    };
    if let Some(file) = &file
        && let Some(flag) = deploy.says_what_a_function_is()
    {
        let why = format!("{flag} is of a single function, and {} says what its functions are", file.display());
        return Err(Failure::usage("cannot deploy the project", why)
            .next("write it in the file, or give --runtime to deploy the folder alone"));
    }
    Ok(file)
}

fn in_folder(folder: &Path) -> Option<PathBuf> {
    FILE_NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

fn file_or_here(file: Option<&PathBuf>, what: &str) -> Result<PathBuf, Failure> {
    match file {
        Some(file) => Ok(file.clone()),
        None => in_folder(Path::new(".")).ok_or_else(|| {
            Failure::usage(what, format!("there is no {} here", FILE_NAMES.join(", "))).next("give a project's file with -f")
        }),
    }
}

/// A project's file, read as often as more becomes known.
struct Reader {
    file: PathBuf,
    machine: Machine,
    outputs: Outputs,
}

impl Reader {
    fn new(file: &Path, client: &Client) -> Result<Self, Failure> {
        let file = std::path::absolute(file).map_err(|error| Failure::of("cannot find the project", &error))?;
        let machine = Machine::new(&file, client.key());
        Ok(Self { file, machine, outputs: Outputs::new() })
    }

    fn read(&self) -> Result<Project, Failure> {
        dunlin_project::read(&self.file, &self.machine, &self.outputs).map_err(|problems| {
            // Each on a line of its own, by the name it has from here.
            let here = std::env::current_dir().map(|here| format!("{}/", here.display())).unwrap_or_default();
            let lines: Vec<String> = problems.0.iter().map(|problem| problem.to_string().replacen(&here, "", 1)).collect();
            Failure::usage("the project is not understood", format!("\n  {}", lines.join("\n  ")))
        })
    }

    /// The resource once more, with what is known by now.
    fn again(&self, resource: Resource) -> Result<Resource, Failure> {
        if resource.waits_for.is_empty() {
            return Ok(resource);
        }
        let known = self.read()?.resources.into_iter().find(|other| other.name == resource.name);
        Ok(known.unwrap_or(resource))
    }
}

fn warn(project: &Project, output: &Output) {
    for warning in &project.warnings {
        output.note(&format!("warning: {warning}"));
    }
}

/// The code of a resource, packed once.
fn packed(resource: &Resource) -> Result<Option<Package>, Failure> {
    let path = match &resource.content {
        Content::Layer(layer) => Some(&layer.code),
        Content::Function(function) => function.code.as_ref(),
        Content::Domain(_) => None,
    };
    path.map(|path| package::read(path)).transpose()
}

fn checksum(package: Option<&Package>) -> Option<String> {
    package.map(|package| Crc64::of(&package.zip).to_string())
}

/// `dunlin plan`: exits with 2 when there is something to do.
pub(crate) fn plan(client: &Client, output: &Output, asked: &Plan) -> Result<ExitCode, Failure> {
    let mut reader = Reader::new(&file_or_here(asked.file.as_ref(), "cannot plan")?, client)?;
    let project = reader.read()?;
    warn(&project, output);
    let mut changes = Vec::new();
    for resource in project.resources {
        let resource = reader.again(resource)?;
        let package = packed(&resource)?;
        let found = found::find(client, &resource)?;
        let own = plan::plan(&resource, &found, checksum(package.as_ref()).as_deref());
        // A layer that changes gets another name, which nobody knows yet.
        let stays = own.is_empty() || !matches!(found, Found::Layer(_));
        if let Some(result) = plan::output(&found).filter(|_| stays) {
            reader.outputs.insert(resource.name.clone(), result);
        }
        changes.extend(own);
    }
    show::plan(output, &changes, asked.show_values);
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

/// `dunlin deploy` for a project.
pub(crate) fn deploy(client: &Client, output: &Output, file: &Path) -> Result<ExitCode, Failure> {
    let mut reader = Reader::new(file, client)?;
    let project = reader.read()?;
    warn(&project, output);
    let done = actions::around(output, &project.actions, || {
        let mut done = Vec::new();
        for resource in project.resources {
            let resource = reader.again(resource)?;
            done.push(actions::around(output, &resource.actions, || converge(client, output, &mut reader, &resource))?);
        }
        Ok(done)
    })?;
    show::deployed(output, &done);
    Ok(ExitCode::SUCCESS)
}

/// A resource that is as the file says.
struct Deployed {
    name: String,
    kind: &'static str,
    /// What was done.
    done: Vec<Change>,
    url: Option<String>,
}

/// Looks, plans and does what is to be done until there is nothing left. Each step is a whole operation: cut off anywhere, the
/// next deployment goes on from there.
fn converge(client: &Client, output: &Output, reader: &mut Reader, resource: &Resource) -> Result<Deployed, Failure> {
    let package = packed(resource)?;
    let checksum = checksum(package.as_ref());
    let mut done: Vec<Change> = Vec::new();
    let mut before: Option<Vec<Change>> = None;
    loop {
        let found = found::find(client, resource)?;
        let changes = plan::plan(resource, &found, checksum.as_deref());
        if changes.is_empty() || before.as_ref() == Some(&changes) {
            for change in &changes {
                let members: Vec<&str> = change.members.iter().map(|member| member.path.as_str()).collect();
                let members = members.join(", ");
                output.note(&format!("warning: the platform keeps {} of {} {} otherwise", members, change.kind, change.name));
            }
            if let Some(result) = plan::output(&found) {
                reader.outputs.insert(resource.name.clone(), result);
            }
            let (kind, url) = (show::kind(resource), show::url(resource, &found));
            return Ok(Deployed { name: show::name(resource), kind, done, url });
        }
        for change in &changes {
            let Some(operation) = &change.operation else { break };
            steps::perform(client, output, change, operation, package.as_ref()).map_err(|failure| {
                if failure.next.is_none() {
                    failure.next("what was done stays; 'dunlin deploy' goes on from here")
                } else {
                    failure
                }
            })?;
            done.push(change.clone());
        }
        before = Some(changes);
    }
}

/// `dunlin remove`: what the file names goes, last things first.
pub(crate) fn remove(client: &Client, output: &Output, asked: &Remove) -> Result<ExitCode, Failure> {
    let what = "cannot remove the project";
    let mut reader = Reader::new(&file_or_here(asked.file.as_ref(), what)?, client)?;
    let mut changes: Vec<Vec<Change>> = Vec::new();
    for resource in reader.read()?.resources {
        let resource = reader.again(resource)?;
        let found = found::find(client, &resource)?;
        if let Some(result) = plan::output(&found) {
            reader.outputs.insert(resource.name.clone(), result);
        }
        changes.push(plan::removal(&resource, &found));
    }
    let changes: Vec<Change> = changes.into_iter().rev().flatten().collect();
    if changes.is_empty() {
        output.note("there is nothing of the project on the platform");
    }
    if !changes.is_empty() && !asked.yes {
        for change in &changes {
            output.note(&show::heading(change));
        }
        let removals = changes.iter().filter(|change| change.verb == Verb::Remove).count();
        if !confirmed(what, &format!("Remove {removals} thing(s)? [y/N] "))? {
            return Err(Failure::new(Kind::Interrupted, what, "you said no"));
        }
    }
    for change in &changes {
        if let Some(operation) = &change.operation {
            match steps::perform(client, output, change, operation, None) {
                // Somebody was faster.
                Err(failure) if failure.kind == Kind::NotFound => {}
                other => other?,
            }
        }
    }
    if output.is_json() {
        output.json(&show::json(&changes, false));
    }
    Ok(ExitCode::SUCCESS)
}
