//! Kinds of cells that are interchangeable before they are bound.

use dunlin_model::{FunctionConfig, InterpreterId, Interpreters, Language, Runtime};
use dunlin_runtime::BootPlan;
use dunlin_sandbox::{CellKind, Net};

/// What a cell runs before it knows its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// A fork of this Python's zygote.
    Python(InterpreterId),
    /// A bootstrap that is started ahead of need. One whose heap is fixed when it boots is pooled by memory class.
    Bootstrap {
        /// Which one.
        language: Language,
        /// What it runs in.
        interpreter: InterpreterId,
        /// The class in MB; see [`class_mb`]. 0 where it does not matter.
        memory_mb: u32,
    },
    /// The launcher, waiting for the user's own program.
    Launcher,
    /// The launcher, waiting for an image and the program in it.
    Container,
    /// The host of WebAssembly programs.
    Wasm,
    /// A fork of the engine's cell of this number, a template: it has loaded the code of one version.
    Fork(u64),
}

/// Waiting cells of one class can stand in for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// What runs in the cell.
    pub program: Program,
    /// What it can reach.
    pub net: Net,
}

/// No interpreter of this machine serves a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("runtime '{}' cannot be served: {why}", runtime.as_str())]
pub struct NoInterpreter {
    /// What the function asks for.
    pub runtime: Runtime,
    /// What is missing, and the fix.
    pub why: String,
}

/// The smallest memory class.
const CLASS_MIN_MB: u32 = 128;

/// The memory class of a function: the largest power of two that is not above its memory, so that the heap chosen
/// at boot always fits into the limit set at bind.
#[must_use]
pub(crate) fn class_mb(memory_mb: u32) -> u32 {
    let memory_mb = memory_mb.max(CLASS_MIN_MB);
    1 << memory_mb.ilog2()
}

impl Class {
    fn rank(self) -> (Program, bool) {
        (self.program, self.net == Net::Internet)
    }
}

impl Ord for Class {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Class {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Class {
    /// The class that a function's instances are made from.
    ///
    /// # Errors
    /// When none of `interpreters` serves the function's runtime; then what to do about it.
    pub fn of(config: &FunctionConfig, interpreters: &Interpreters) -> Result<Self, NoInterpreter> {
        let runtime = &config.runtime;
        let memory_mb = class_mb(u32::try_from(config.memory_size).unwrap_or(0));
        let chosen = || {
            let chosen = interpreters.choose_for(runtime).interpreter();
            chosen.ok_or_else(|| NoInterpreter { runtime: runtime.clone(), why: interpreters.how_to_get(runtime.language()) })
        };
        let program = match runtime.language() {
            Language::Python => Program::Python(chosen()?),
            language @ Language::Node => Program::Bootstrap { language, interpreter: chosen()?, memory_mb },
            // One class, but for functions whose memory its heap would not fill.
            language @ Language::Java if memory_mb > 2048 => Program::Bootstrap { language, interpreter: chosen()?, memory_mb },
            language @ (Language::Java | Language::Php | Language::Dotnet) => {
                Program::Bootstrap { language, interpreter: chosen()?, memory_mb: 0 }
            }
            Language::Wasm => Program::Wasm,
            Language::Custom if runtime.is_container() => Program::Container,
            Language::Go | Language::Provided | Language::Custom => Program::Launcher,
        };
        let net = if config.internet_access { Net::Internet } else { Net::Loopback };
        Ok(Self { program, net })
    }

    /// What to ask the sandbox for, when a call waits for the cell or when none does. `None` for what is forked.
    #[must_use]
    pub fn cell_kind(self, waited_for: bool) -> Option<CellKind> {
        Some(match self.program {
            Program::Python(interpreter) if waited_for => CellKind::LeanPython(interpreter),
            Program::Python(interpreter) => CellKind::Python(interpreter),
            Program::Bootstrap { .. } | Program::Launcher => CellKind::Launcher,
            Program::Container => CellKind::Container,
            Program::Wasm => CellKind::Wasm,
            Program::Fork(_) => return None,
        })
    }

    /// How the cell is brought to the point where it can be bound.
    #[must_use]
    pub(crate) fn boot_plan(self, interpreters: &Interpreters) -> BootPlan {
        match self.program {
            Program::Python(_) | Program::Fork(_) => BootPlan::Zygote,
            Program::Wasm => BootPlan::Module,
            Program::Bootstrap { language, interpreter, memory_mb } => {
                // A class is made out of these interpreters; one that is not among them does not start.
                let program = interpreters.get(interpreter).map_or("", |found| found.program.as_str()).into();
                BootPlan::Bootstrap { language, program, memory_mb }
            }
            Program::Launcher | Program::Container => BootPlan::Custom,
        }
    }

    /// Waiting cells kept at least, once a function of the class is known.
    #[must_use]
    pub fn stock_min(self) -> usize {
        match self.program {
            // What has just booted still rehearses, and a call that comes in between pays for it.
            Program::Python(_) | Program::Bootstrap { language: Language::Java | Language::Dotnet, .. } => 2,
            Program::Wasm => 2,
            Program::Bootstrap { .. } | Program::Launcher | Program::Container | Program::Fork(_) => 1,
        }
    }

    /// Waiting cells kept at most, however high the demand.
    #[must_use]
    pub fn stock_max(self) -> usize {
        match self.program {
            Program::Python(_) | Program::Wasm => 16,
            Program::Bootstrap { language: Language::Java | Language::Dotnet, .. } => 4,
            Program::Bootstrap { .. } => 6,
            Program::Launcher | Program::Container => 8,
            Program::Fork(_) => 4,
        }
    }

    /// What a waiting cell costs, from measurement (private memory, rounded up).
    #[must_use]
    pub fn waiting_bytes(self) -> u64 {
        match self.program {
            Program::Python(_) => 2 << 20,
            Program::Bootstrap { language: Language::Java | Language::Dotnet, .. } => 16 << 20,
            Program::Bootstrap { .. } => 8 << 20,
            Program::Launcher | Program::Container => 1 << 20,
            Program::Wasm => 3 << 20,
            Program::Fork(_) => 4 << 20,
        }
    }

    /// How long making a cell takes, from measurement: what it costs to have none that waits.
    #[must_use]
    pub(crate) fn make_seconds(self) -> f64 {
        match self.program {
            Program::Python(_) => 0.004,
            Program::Bootstrap { language: Language::Java, .. } => 0.25,
            Program::Bootstrap { language: Language::Dotnet, .. } => 0.2,
            Program::Bootstrap { .. } => 0.09,
            Program::Launcher | Program::Container => 0.003,
            Program::Wasm => 0.004,
            Program::Fork(_) => 0.005,
        }
    }

    /// What an instance is assumed to use until one of its version was seen.
    #[must_use]
    pub fn instance_bytes(self) -> u64 {
        match self.program {
            Program::Python(_) | Program::Wasm | Program::Fork(_) => 12 << 20,
            Program::Bootstrap { .. } => 48 << 20,
            Program::Launcher | Program::Container => 32 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_class_never_exceeds_the_functions_memory() {
        for (memory, class) in
            [(128, 128), (192, 128), (256, 256), (320, 256), (1023, 512), (1024, 1024), (3072, 2048), (32_768, 32_768)]
        {
            assert_eq!(class_mb(memory), class, "{memory}");
        }
    }
}
