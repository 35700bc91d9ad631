//! What can be run: a core module or a component, checked, and linked with everything it asks for.

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::state::State;
use crate::sys;

/// Largest file that is compiled. Compiling takes several times as much memory, which is what limits it in the end.
pub(crate) const FILE_BYTES_MAX: u64 = 100 << 20;

/// Why a file is no program for us. Reads as what follows the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Something else.
    #[error("is not WebAssembly: it does not begin with the bytes \\0asm")]
    NotWasm,
    /// Over the limit.
    #[error("is larger than {FILE_BYTES_MAX} bytes; strip its debug information")]
    TooLarge,
    /// The compiler says no.
    #[error("cannot be compiled: {0}")]
    Compile(String),
    /// It imports what is not there.
    #[error("imports what nobody provides: {0}; there are wasi_snapshot_preview1 and the interfaces of WASI 0.2 with wasi:http")]
    Import(String),
    /// A module that is no command.
    #[error("exports no function '_start' without parameters and results: build a program, not a library")]
    NoStart,
    /// A component of another world.
    #[error(
        "exports neither wasi:cli/run nor wasi:http/incoming-handler: build a component of the world wasi:cli/command or wasi:http/proxy"
    )]
    NoEntry,
}

/// Compiled code.
pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

impl Code {
    /// Compiles a file's contents.
    pub(crate) fn compile(engine: &Engine, wasm: &[u8]) -> Result<Self, Refused> {
        /// Behind magic and version: whether it is a module or a component.
        const LAYER: usize = 6;
        if !wasm.starts_with(b"\0asm") {
            return Err(Refused::NotWasm);
        }
        let compiled = if wasm.get(LAYER) == Some(&1) {
            Component::from_binary(engine, wasm).map(Self::Component)
        } else {
            Module::from_binary(engine, wasm).map(Self::Module)
        };
        compiled.map_err(|error| Refused::Compile(format!("{error:#}")))
    }

    /// Maps a file that [`Code::bytes`] was written to. `None` when this engine did not compile it.
    pub(crate) fn load(engine: &Engine, compiled: &Path) -> Option<Self> {
        match Engine::detect_precompiled_file(compiled).ok()?? {
            wasmtime::Precompiled::Module => sys::load_module(engine, compiled).map(Self::Module).ok(),
            wasmtime::Precompiled::Component => sys::load_component(engine, compiled).map(Self::Component).ok(),
        }
    }

    /// The compiled code, to be kept in a file.
    pub(crate) fn bytes(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Module(module) => module.serialize(),
            Self::Component(component) => component.serialize(),
        }
    }
}

/// Everything that is provided. Made once, before any code is there: it holds hundreds of functions.
pub(crate) struct Provided {
    module: wasmtime::Linker<State>,
    component: wasmtime::component::Linker<State>,
}

impl Provided {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut module = wasmtime::Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut module, |state: &mut State| &mut state.wasi)?;
        let mut component = wasmtime::component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        Ok(Self { module, component })
    }
}

/// A program, ready to be instantiated for each call.
pub(crate) enum Program {
    /// A WASI command, as a core module.
    Module(InstancePre<State>),
    /// A WASI command, as a component.
    Command(CommandPre<State>),
    /// A component that answers requests.
    Proxy(ProxyPre<State>),
}

impl Program {
    /// Links the code with what it imports.
    pub(crate) fn link(provided: &Provided, code: &Code) -> Result<Self, Refused> {
        let import = |error: wasmtime::Error| Refused::Import(format!("{error:#}"));
        match code {
            Code::Module(module) => {
                let start = module.get_export("_start");
                let start = start.as_ref().and_then(|export| export.func());
                if !start.is_some_and(|start| start.params().len() == 0 && start.results().len() == 0) {
                    return Err(Refused::NoStart);
                }
                provided.module.instantiate_pre(module).map(Self::Module).map_err(import)
            }
            Code::Component(component) => {
                let linked = provided.component.instantiate_pre(component).map_err(import)?;
                if let Ok(proxy) = ProxyPre::new(linked.clone()) {
                    return Ok(Self::Proxy(proxy));
                }
                CommandPre::new(linked).map(Self::Command).map_err(|_| Refused::NoEntry)
            }
        }
    }
}
