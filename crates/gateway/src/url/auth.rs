//! Who may call: everybody, whoever signs for the owner's account, or whoever brings a token (contract section 9.4).

use dunlin_auth::{Claims, ExpectedBody};
use http::StatusCode;
use http::request::Parts;

use super::Hit;
use super::entrance::Auth;
use crate::error::Problem;

/// What is known of a caller who was let in.
#[derive(Default)]
pub(super) struct Caller {
    /// The one body that a signature vouches for; nothing when none was needed.
    pub(super) signed: Option<ExpectedBody>,
    /// What the caller's token says; nothing when none was needed.
    pub(super) claims: Option<Claims>,
}

/// Lets the caller in, or not.
pub(super) async fn check(hit: &Hit<'_>, head: &Parts) -> Result<Caller, Problem> {
    match &hit.entrance.auth {
        Auth::Anonymous => Ok(Caller::default()),
        Auth::Jwt(jwt) => Ok(Caller { claims: jwt.check(head, &hit.doors.outbound).await?, ..Caller::default() }),
        Auth::Function => {
            let verified = hit.doors.verifier.verify(head)?;
            if verified.scope.account() != hit.function_key.account() {
                return Err(Problem::new(StatusCode::FORBIDDEN, "AccessDenied", "the caller is not of the function's account"));
            }
            Ok(Caller { signed: Some(verified.body), ..Caller::default() })
        }
    }
}
