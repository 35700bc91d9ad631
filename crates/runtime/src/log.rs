//! Output of a guest, cut into lines.

use dunlin_model::{InstanceId, RequestId};
use jiff::Timestamp;

/// One line a guest printed, or one the platform wrote into its stream.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// Who printed it.
    pub instance: &'a InstanceId,
    /// The call in flight; absent between calls and when several are.
    pub request: Option<&'a RequestId>,
    /// The line without its end. Any bytes: not necessarily UTF-8.
    pub text: &'a [u8],
    /// When the platform read it.
    pub at: Timestamp,
}

/// Where lines go. Called from the reader of every guest: it must return at once and never block.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one line.
    fn line(&self, line: LogLine<'_>);
}
