//! Texts a person reads: the log tail and the sentences of failures the platform words.

use std::time::Duration;

use dunlin_model::{ErrorType, Function, FunctionError, Outcome, Phases, RequestId};
use dunlin_pool::StartOutput;
use dunlin_sandbox::Ended;

/// Longest log tail, in bytes (contract section 13).
const TAIL_BYTES_MAX: usize = 4096;

/// What the log tail is made of.
pub(crate) struct Tail<'a> {
    pub(crate) request: &'a RequestId,
    pub(crate) function: &'a Function,
    /// What the start that was made for this call printed.
    pub(crate) start: &'a StartOutput,
    pub(crate) phases: Phases,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) outcome: Outcome,
    /// What the handler printed; absent when it was not called.
    pub(crate) lines: Option<&'a [u8]>,
}

impl Tail<'_> {
    /// The text of contract section 5.2, at most 4 KB: the beginning gives way.
    pub(crate) fn text(&self) -> Vec<u8> {
        let (request, config) = (self.request, &self.function.config);
        // A custom runtime prints these lines itself, if it likes.
        let builtin = config.runtime.language().has_its_log_marked();
        let mut text = Vec::new();
        let begin = |text: &mut Vec<u8>, what: &str| {
            if builtin {
                text.extend_from_slice(format!("FC {what} Start RequestId: {request}\n").as_bytes());
            }
        };
        let end = |text: &mut Vec<u8>, what: &str, failed: bool| {
            let error = if failed { ", Error: Unhandled function error" } else { "" };
            if builtin {
                text.extend_from_slice(format!("FC {what} End RequestId: {request}{error}\n").as_bytes());
            }
        };
        let failed = self.outcome != Outcome::Succeeded;
        let StartOutput { load, init } = self.start;
        // Code that does not load fails the call it was loaded for.
        let load_failed = self.lines.is_none() && init.is_none();
        if load_failed {
            begin(&mut text, "Invoke");
        }
        lines(&mut text, load);
        if let Some(printed) = init {
            begin(&mut text, "Initialize");
            lines(&mut text, printed);
            end(&mut text, "Initialize", self.lines.is_none());
        }
        if let Some(printed) = self.lines {
            begin(&mut text, "Invoke");
            lines(&mut text, printed);
        }
        if load_failed || self.lines.is_some() {
            end(&mut text, "Invoke", failed);
        }
        let mut after = String::new();
        after += &format!(
            "\nDuration: {:.2} ms, Billed Duration: {} ms, Memory Size: {} MB, Max Memory Used: {:.2} MB\n",
            milliseconds(self.phases.init + self.phases.handler),
            self.phases.billed_ms(),
            config.memory_size,
            megabytes(self.memory_peak_bytes),
        );
        // What is said last tells most.
        let over = (text.len() + after.len()).saturating_sub(TAIL_BYTES_MAX);
        text.drain(..over.min(text.len()));
        text.extend_from_slice(after.as_bytes());
        text
    }
}

/// Adds whole lines.
fn lines(text: &mut Vec<u8>, printed: &[u8]) {
    text.extend_from_slice(printed);
    if printed.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
}

/// The error of a call that ran out of time.
pub(crate) fn timed_out(seconds: u64) -> FunctionError {
    unhandled(&format!("Function timed out after {seconds} seconds"))
}

/// The error of a call whose process ended.
pub(crate) fn exited(ended: &Ended, took: Duration, memory_peak_bytes: u64) -> FunctionError {
    let facts = format!("(duration: {}ms, maxMemoryUsage: {}MB)", took.as_millis(), memory_peak_bytes >> 20);
    unhandled(&if ended.out_of_memory {
        format!("Process ran out of memory before completing request; files in /tmp count as memory {facts}")
    } else {
        format!("Process exited unexpectedly before completing request {facts}")
    })
}

/// An error of the function that only the platform can word.
pub(crate) fn unhandled(message: &str) -> FunctionError {
    FunctionError::worded(ErrorType::UnhandledInvocationError, None, message)
}

/// An instance that did not come up, for reasons other than an error of the user's code.
pub(crate) fn not_initialized(message: &str) -> FunctionError {
    FunctionError::worded(ErrorType::InitializationError, None, message)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
