//! Which crate may depend on which.
//!
//! Arrows point down only: an edge is allowed when its target lies on a lower layer, or when it is one of the few named
//! edges inside a layer. The test kit and the platform's tests stand beside the house: they may use everything, and
//! nothing that ships may use them. A crate this table has not heard of is refused, so that a new room gets a place first.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::rules;

/// Layers from the bottom up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Nouns,
    Mechanisms,
    Engines,
    Doors,
    Server,
    Binary,
    /// Test kits: they see everything and are seen by tests only.
    Beside,
    /// `xtask`: outside, sees nothing of the house.
    Outside,
}

const LAYERS: &[(Layer, &[&str])] = &[
    (Layer::Nouns, &["model"]),
    (
        Layer::Mechanisms,
        &["walls", "sandbox", "runtime", "wasm", "store", "blobs", "auth", "telemetry", "tls", "outbound", "unpack", "project"],
    ),
    (Layer::Engines, &["control", "scaling", "triggers", "invoke", "pool", "events", "objects", "build", "meter"]),
    (Layer::Doors, &["gateway", "api", "console"]),
    (Layer::Server, &["server"]),
    (Layer::Binary, &["cli", "bench"]),
    (Layer::Beside, &["testkit", "tests"]),
    (Layer::Outside, &["xtask"]),
];

/// The edges allowed inside a layer. None is allowed backwards as well.
const SIDEWAYS: &[(&str, &str)] = &[
    ("sandbox", "walls"),
    ("runtime", "sandbox"),
    ("auth", "store"),
    // The addresses nobody may be led to are in one list.
    ("outbound", "sandbox"),
    ("control", "invoke"),
    ("control", "pool"),
    ("control", "scaling"),
    ("scaling", "invoke"),
    ("scaling", "pool"),
    ("triggers", "invoke"),
    ("events", "invoke"),
    ("invoke", "pool"),
    ("gateway", "api"),
    ("tests", "testkit"),
    // `dunlin-bench` is a tool of ours that drives a platform as the tests do.
    ("bench", "testkit"),
];

/// One dependency between two crates of the workspace, by their names without the project's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    from: String,
    to: String,
    /// Only for tests, examples and benches.
    dev: bool,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}{}", self.from, self.to, if self.dev { " (dev)" } else { "" })
    }
}

/// Checks the whole workspace: dependencies, then the rules that are read out of the text.
pub(crate) fn check_workspace(root: &Path) -> Result<String> {
    let edges = edges(&metadata(root)?)?;
    let mut wrong: Vec<String> = edges.iter().filter_map(|edge| refusal(edge).map(|why| format!("{edge}: {why}"))).collect();
    let files = rules::check_tree(root, &mut wrong)?;
    if wrong.is_empty() {
        return Ok(format!("layers: {} edges point down, {files} files keep the rules", edges.len()));
    }
    bail!("{} broken rule(s):\n  {}", wrong.len(), wrong.join("\n  "))
}

/// Why `edge` is refused, if it is.
fn refusal(edge: &Edge) -> Option<String> {
    let (Some(from), Some(to)) = (layer(&edge.from), layer(&edge.to)) else {
        let stranger = if layer(&edge.from).is_none() { &edge.from } else { &edge.to };
        return Some(format!("'{stranger}' has no layer; give it one in xtask/src/layers.rs"));
    };
    if SIDEWAYS.iter().any(|(a, b)| *a == edge.from && *b == edge.to) {
        return None;
    }
    match (from, to) {
        (Layer::Outside, _) | (_, Layer::Outside) => Some("xtask stands outside the house".into()),
        (Layer::Beside, Layer::Beside) => Some("test kits do not lean on each other".into()),
        (Layer::Beside, _) => None,
        (_, Layer::Beside) if edge.dev => None,
        (_, Layer::Beside) => Some("what ships cannot depend on the test kit".into()),
        (from, to) if to < from => None,
        (from, to) => Some(format!("{from:?} may depend only on what lies below, and {to:?} does not")),
    }
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find_map(|(layer, names)| names.contains(&name).then_some(*layer))
}

fn metadata(root: &Path) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Every edge between crates of the workspace.
fn edges(metadata: &Value) -> Result<Vec<Edge>> {
    let packages = metadata["packages"].as_array().context("metadata has no packages")?;
    let name = |value: &Value| value["name"].as_str().map(str::to_owned).context("a package without a name");
    let members = packages.iter().map(name).collect::<Result<Vec<_>>>()?;
    let mut edges = Vec::new();
    for package in packages {
        let from = name(package)?;
        for dependency in package["dependencies"].as_array().context("a package without dependencies")? {
            let to = name(dependency)?;
            if members.contains(&to) && to != from {
                edges.push(Edge { from: bare(&from), to: bare(&to), dev: dependency["kind"] == "dev" });
            }
        }
    }
    Ok(edges)
}

fn bare(package: &str) -> String {
    package.strip_prefix("dunlin-").unwrap_or(package).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.into(), to: to.into(), dev: false }
    }

    #[test]
    fn edges_that_point_down_are_allowed() {
        for (from, to) in [
            ("cli", "server"),
            ("cli", "model"),
            ("server", "gateway"),
            ("gateway", "api"),
            ("gateway", "invoke"),
            ("api", "control"),
            ("control", "invoke"),
            ("invoke", "pool"),
            ("pool", "sandbox"),
            ("runtime", "sandbox"),
            ("sandbox", "walls"),
            ("auth", "store"),
            ("store", "model"),
        ] {
            assert_eq!(refusal(&edge(from, to)), None, "{from} -> {to}");
        }
    }

    #[test]
    fn edges_that_point_up_or_sideways_are_refused() {
        for (from, to) in [
            ("model", "store"),
            ("walls", "sandbox"),
            ("sandbox", "runtime"),
            ("store", "auth"),
            ("pool", "invoke"),
            ("invoke", "control"),
            ("pool", "control"),
            ("meter", "invoke"),
            ("sandbox", "pool"),
            ("api", "gateway"),
            ("invoke", "gateway"),
            ("server", "cli"),
            ("bench", "cli"),
            ("store", "blobs"),
            ("api", "testkit"),
            ("xtask", "model"),
            ("model", "xtask"),
        ] {
            assert!(refusal(&edge(from, to)).is_some(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_crate_without_a_layer_is_refused() {
        assert!(refusal(&edge("cli", "cellar")).is_some_and(|why| why.contains("'cellar' has no layer")));
    }

    #[test]
    fn the_test_kit_is_for_tests_only() {
        assert_eq!(refusal(&Edge { dev: true, ..edge("pool", "testkit") }), None);
        assert!(refusal(&edge("pool", "testkit")).is_some());
        assert_eq!(refusal(&edge("testkit", "server")), None);
    }

    #[test]
    fn an_edge_is_read_out_of_cargos_metadata() {
        let metadata = serde_json::json!({"packages": [
            {"name": "dunlin-model", "dependencies": [{"name": "serde", "kind": null}]},
            {"name": "dunlin-store", "dependencies": [{"name": "dunlin-model", "kind": null}]},
            {"name": "dunlin-pool", "dependencies": [{"name": "dunlin-store", "kind": "dev"}]},
        ]});
        let found: Vec<String> = edges(&metadata).expect("the shape is cargo's").iter().map(Edge::to_string).collect();
        assert_eq!(found, ["store -> model", "pool -> store (dev)"]);
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root");
        if let Err(broken) = check_workspace(root) {
            panic!("{broken}");
        }
    }
}
