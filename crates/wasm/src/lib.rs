//! WebAssembly functions.
//!
//! A function of the runtime `wasm` is a package with a `.wasm` file: a WASI command (a core module of
//! `wasi_snapshot_preview1` or a component of the world `wasi:cli/command`), or a component of the world `wasi:http/proxy`.
//!
//! ```text
//!  package ─▶ prepare (in the unpacker) ─▶ compiled code beside it, in the tree
//!                                               │ mapped
//!  call ─▶ host (in a cell) ─▶ instance ─▶ a fresh instance of the program ─▶ answer
//! ```
//!
//! [`prepare()`] is run once, when a package comes in. [`run`] is the whole life of a cell: one process behind all walls,
//! forked with everything but the program ready, that speaks the wire of the built-in languages.
//!
//! # Invariants
//! - Neither the server nor the supervisor parses, compiles or runs anything of a tenant's.
//! - No two calls share an instance of a program: memory, globals and open files of a call end with it.
//! - A call cannot have more memory than its function, together with the other calls of its cell.
//! - Standard output is the answer and is bounded; standard error is the log.
//!
//! What a cell is lives in `sandbox`; deadlines, records and the end of a cell in `pool` and `runtime`.

mod engine;
mod failure;
mod host;
mod instance;
mod outgoing;
mod prepare;
mod program;
mod proxy;
mod request;
mod state;
mod stdio;
mod sys;
mod wire;

pub use host::run;
pub use prepare::{PrepareError, prepare};
pub use program::Refused;
