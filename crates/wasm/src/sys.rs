//! Loading compiled code.
#![expect(unsafe_code, reason = "compiled code is trusted to be what a compiler wrote")]

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Result};

/// Maps a compiled module. Refuses what another version or configuration of the engine compiled.
pub(crate) fn load_module(engine: &Engine, path: &Path) -> Result<Module> {
    // SAFETY: a file that no compiler wrote could be any machine code. It runs in a cell that was bound to the package
    // the file is from, with no right that a program of the same tenant in the same cell would not have; see
    // `docs/adr/0012-wasm-runs-in-a-cell.md`. Trees are read-only, so that it does not change while it is mapped.
    unsafe { Module::deserialize_file(engine, path) }
}

/// The same, for a component.
pub(crate) fn load_component(engine: &Engine, path: &Path) -> Result<Component> {
    // SAFETY: as above.
    unsafe { Component::deserialize_file(engine, path) }
}
