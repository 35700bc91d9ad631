//! How a call fails, in the words its caller gets.

use serde_json::{Value, json};
use wasmtime::{Trap, WasmBacktrace};

use crate::stdio::TooMuch;

/// Most frames of a backtrace that are told.
const FRAMES_MAX: usize = 64;

/// The body of the error.
#[derive(Debug)]
pub(crate) struct Failure(Value);

impl Failure {
    /// An error of a kind, in a sentence.
    pub(crate) fn worded(kind: &str, message: &str) -> Self {
        Self(json!({ "errorMessage": message, "errorType": kind }))
    }

    /// The program ended with a status that is not 0.
    pub(crate) fn exit(status: i32) -> Self {
        Self::worded("ExitStatus", &format!("the program exited with status {status}"))
    }

    /// The answer is over the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::worded("ResponseTooLarge", &format!("Response payload is larger than {limit} bytes"))
    }

    /// What a guest that did not end by itself ended with. `starved` says that it was refused memory before.
    pub(crate) fn ended(error: &wasmtime::Error, starved: bool, memory_mb: u64) -> Self {
        if let Some(status) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return Self::exit(status.0);
        }
        if let Some(too_much) = error.chain().find_map(|cause| cause.downcast_ref::<TooMuch>()) {
            return Self::too_large(too_much.limit);
        }
        let stack: Vec<String> = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
        let (kind, message) = match error.downcast_ref::<Trap>() {
            _ if starved => {
                ("OutOfMemory", format!("the program ran out of memory: memorySize is {memory_mb} MB; {}", error.root_cause()))
            }
            Some(trap) => ("Trap", trap.to_string()),
            None => ("Error", error.root_cause().to_string()),
        };
        Self(json!({ "errorMessage": message, "errorType": kind, "stackTrace": stack }))
    }

    /// As JSON.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
}

fn frames(trace: &WasmBacktrace) -> Vec<String> {
    let frame = |frame: &wasmtime::FrameInfo| {
        let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
        match (frame.module().name(), frame.module_offset()) {
            (Some(module), Some(offset)) => format!("{module}!{name} at 0x{offset:x}"),
            (None, Some(offset)) => format!("{name} at 0x{offset:x}"),
            (_, None) => name,
        }
    };
    trace.frames().iter().take(FRAMES_MAX).map(frame).collect()
}
