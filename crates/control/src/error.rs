//! Why an operation was not done.

use dunlin_model::{
    AliasName, DomainName, FunctionName, ImageName, InvalidField, InvalidId, LayerArn, LayerName, TriggerName, VersionId,
};
use dunlin_pool::SessionRefusal;
use dunlin_store::StoreError;

/// Why an operation was not done. Whose fault it is can be told from the variant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A member of the request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// No such function in the caller's account.
    #[error("function '{name}' does not exist")]
    FunctionNotFound {
        /// As asked for.
        name: FunctionName,
    },
    /// No such version.
    #[error("version '{qualifier}' of function '{function}' does not exist")]
    VersionNotFound {
        /// The function, which exists.
        function: FunctionName,
        /// As asked for.
        qualifier: String,
    },
    /// No such alias.
    #[error("alias '{qualifier}' of function '{function}' does not exist")]
    AliasNotFound {
        /// The function, which exists.
        function: FunctionName,
        /// As asked for.
        qualifier: String,
    },
    /// No such trigger.
    #[error("trigger '{name}' of function '{function}' does not exist")]
    TriggerNotFound {
        /// The function, which exists.
        function: FunctionName,
        /// As asked for.
        name: TriggerName,
    },
    /// The name is taken.
    #[error("function '{name}' already exists")]
    FunctionExists {
        /// The name.
        name: FunctionName,
    },
    /// The name, or the version's one place for an HTTP trigger, is taken.
    #[error("trigger '{name}' of function '{function}' already exists{why}")]
    TriggerExists {
        /// The function.
        function: FunctionName,
        /// The trigger that is there.
        name: TriggerName,
        /// Empty, or why a trigger of another name is in the way.
        why: &'static str,
    },
    /// The name is taken.
    #[error("alias '{name}' of function '{function}' already exists")]
    AliasExists {
        /// The function.
        function: FunctionName,
        /// The name.
        name: AliasName,
    },
    /// An alias would share its calls between a version and itself.
    #[error("additionalVersionWeight names version '{version}', which is the alias's own versionId; name another one")]
    AdditionalIsMajor {
        /// The version.
        version: VersionId,
    },
    /// No such custom domain in the caller's account.
    #[error("custom domain '{name}' does not exist (DomainNameNotFound)")]
    DomainNotFound {
        /// As asked for.
        name: DomainName,
    },
    /// Somebody has it.
    #[error("custom domain '{name}' already exists")]
    DomainExists {
        /// The name.
        name: DomainName,
    },
    /// Nothing was said about asynchronous calls.
    #[error("function '{function}' has no asynchronous invocation configuration for qualifier '{qualifier}'")]
    AsyncInvokeNotFound {
        /// The function, which exists.
        function: FunctionName,
        /// As asked for.
        qualifier: String,
    },
    /// No instances are set aside.
    #[error("function '{function}' has no concurrency configuration")]
    ConcurrencyNotFound {
        /// The function, which exists.
        function: FunctionName,
    },
    /// More would be set aside than there is.
    #[error(
        "reservedConcurrency is too large: at most {max} instances can be reserved, which is 90 % of the account's, and other functions have {taken} of them"
    )]
    ReservationExceeded {
        /// What can be set aside together.
        max: u64,
        /// What others have.
        taken: u64,
    },
    /// What is kept ready is said in the older form already.
    #[error(
        "function '{function}' has a provision configuration for qualifier '{qualifier}'; delete it first, or change that one"
    )]
    ProvisionExists {
        /// The function.
        function: FunctionName,
        /// Of what.
        qualifier: String,
    },
    /// What is kept ready is said in the newer form already.
    #[error("function '{function}' has a scaling configuration for qualifier '{qualifier}'; delete it first, or change that one")]
    ScalingExists {
        /// The function.
        function: FunctionName,
        /// Of what.
        qualifier: String,
    },
    /// The function is not bound to that network.
    #[error("function '{function}' is not bound to vpc '{vpc_id}'")]
    VpcBindingNotFound {
        /// The function, which exists.
        function: FunctionName,
        /// As asked for.
        vpc_id: String,
    },
    /// No such layer in the caller's account.
    #[error("layer '{name}' does not exist")]
    LayerNotFound {
        /// As asked for.
        name: LayerName,
    },
    /// No such layer version.
    #[error("version {version} of layer '{name}' does not exist")]
    LayerVersionNotFound {
        /// As asked for.
        name: LayerName,
        /// As asked for.
        version: u64,
    },
    /// No such layer version, or none that the caller may use: which of the two is not told.
    #[error("{field} '{arn}' does not exist, or its owner does not share it")]
    LayerArnNotFound {
        /// Where it was named.
        field: String,
        /// As asked for.
        arn: LayerArn,
    },
    /// No such image in the caller's account.
    #[error("image '{name}' does not exist")]
    ImageNotFound {
        /// As asked for.
        name: ImageName,
    },
    /// The session is not there, is there already, or cannot be changed.
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    /// Sessions of the function cannot be made ahead.
    #[error("function '{function}' has sessionAffinity {affinity}, so no session can be made for it: {why}")]
    NoSessions {
        /// The function, which exists.
        function: FunctionName,
        /// As the wire spells it.
        affinity: &'static str,
        /// Why, and what would help.
        why: &'static str,
    },
    /// It still has triggers.
    #[error("function '{name}' still has triggers; delete them first")]
    FunctionNotEmpty {
        /// The function.
        name: FunctionName,
    },
    /// Somebody else wrote in between.
    #[error("it was changed by another request in the meantime; read it again and retry")]
    ConcurrentUpdate,
    /// As many exist as may.
    #[error("the limit of {limit} {what} is reached")]
    LimitExceeded {
        /// Plural, for the user.
        what: &'static str,
        /// How many may exist.
        limit: usize,
    },
    /// A link to code that is broken, changed or too old.
    #[error("the link is not valid or not valid any more; ask for a new one")]
    BadLink,
    /// The platform has no room for this now.
    #[error("the platform is busy: {what}")]
    Busy {
        /// With what.
        what: &'static str,
    },
    /// The platform failed.
    #[error("cannot {doing}")]
    Platform {
        /// Which step.
        doing: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn platform(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Platform { doing, source: source.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid(InvalidField::new(field, problem))
    }
}

impl From<InvalidId> for Error {
    fn from(invalid: InvalidId) -> Self {
        Self::Invalid(invalid.into())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::platform("use the store", error)
    }
}
