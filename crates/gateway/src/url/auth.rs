//! Who may call: everybody, or whoever signs for the owner's account (contract section 9.4).

use dunlin_auth::ExpectedBody;
use dunlin_model::AuthType;
use http::StatusCode;
use http::request::Parts;

use super::Hit;
use crate::error::Problem;

/// Lets the caller in, or not. A caller whose signature held vouches for one body and for no other; nothing when
/// nobody needs to be known.
pub(super) fn check(hit: &Hit<'_>, head: &Parts) -> Result<Option<ExpectedBody>, Problem> {
    match hit.trigger.http.auth_type {
        AuthType::Anonymous => Ok(None),
        AuthType::Jwt => Err(denied("the trigger's authType 'jwt' is not supported")),
        AuthType::Function => {
            let caller = hit.doors.verifier.verify(head)?;
            if caller.scope.account() != hit.function_key.account() {
                return Err(denied("the caller is not of the function's account"));
            }
            Ok(Some(caller.body))
        }
    }
}

fn denied(message: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "AccessDenied", message)
}
