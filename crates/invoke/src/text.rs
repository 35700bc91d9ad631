//! Texts a person reads: the log tail and the sentences of failures the platform words.

use std::time::Duration;

use dunlin_model::{ErrorType, Function, FunctionError, Language, Outcome, Phases, RequestId};
use dunlin_sandbox::Ended;

/// Longest log tail, in bytes (contract section 13).
const TAIL_BYTES_MAX: usize = 4096;

/// What the log tail is made of.
pub(crate) struct Tail<'a> {
    pub(crate) request: &'a RequestId,
    pub(crate) function: &'a Function,
    pub(crate) cold: bool,
    pub(crate) phases: Phases,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) outcome: Outcome,
    /// What the function printed.
    pub(crate) lines: &'a [u8],
}

impl Tail<'_> {
    /// The text of contract section 5.2, at most 4 KB: the beginning of what the function printed gives way.
    pub(crate) fn text(&self) -> Vec<u8> {
        let (request, config) = (self.request, &self.function.config);
        let mut before = String::new();
        let mut after = String::new();
        // A custom runtime prints these lines itself, if it likes.
        if config.runtime.language() != Language::Custom {
            if self.cold && config.initializer().is_some() {
                before += &format!("FC Initialize Start RequestId: {request}\nFC Initialize End RequestId: {request}\n");
            }
            before += &format!("FC Invoke Start RequestId: {request}\n");
            let error = if self.outcome == Outcome::Succeeded { "" } else { ", Error: Unhandled function error" };
            after += &format!("FC Invoke End RequestId: {request}{error}\n");
        }
        after += &format!(
            "\nDuration: {:.2} ms, Billed Duration: {} ms, Memory Size: {} MB, Max Memory Used: {:.2} MB\n",
            milliseconds(self.phases.init + self.phases.handler),
            self.phases.billed_ms(),
            config.memory_size,
            megabytes(self.memory_peak_bytes),
        );
        let room = TAIL_BYTES_MAX.saturating_sub(before.len() + after.len() + 1);
        let lines = &self.lines[self.lines.len().saturating_sub(room)..];
        let mut text = before.into_bytes();
        text.extend_from_slice(lines);
        if lines.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(after.as_bytes());
        text
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
