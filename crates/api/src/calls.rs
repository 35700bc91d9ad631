//! The way to the desk.

use async_trait::async_trait;
use dunlin_invoke::{Invoker, Refusal, Reply};
use dunlin_model::Invocation;
use dunlin_runtime::Payload;

/// Runs calls. [`Invoker`] does.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Runs one call. Dropping the future cancels it.
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal>;
}

#[async_trait]
impl Calls for Invoker {
    async fn call(&self, invocation: Invocation, payload: Payload) -> Result<Reply, Refusal> {
        Self::call(self, invocation, payload).await
    }
}
