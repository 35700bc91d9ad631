//! The way to the desk.

use async_trait::async_trait;
use dunlin_invoke::{Invoker, Refusal, Reply};
use dunlin_model::{FunctionKey, Invocation, Qualifier, SessionAsk, Target};
use dunlin_runtime::Payload;

/// Runs calls. [`Invoker`] does.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Runs one call. Dropping the future cancels it.
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal>;
    /// See [`Invoker::session_target`].
    fn session_target(&self, function: &FunctionKey, qualifier: &Qualifier, ask: &SessionAsk) -> Option<Target>;
}

#[async_trait]
impl Calls for Invoker {
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        Self::call(self, invocation, payload).await
    }

    fn session_target(&self, function: &FunctionKey, qualifier: &Qualifier, ask: &SessionAsk) -> Option<Target> {
        Self::session_target(self, function, qualifier, ask)
    }
}
