//! Who is calling: signatures, and the scope that only a signature gives.
//!
//! [`Verifier::verify`] takes the head of a request as it arrived and answers with a [`Verified`] caller: an
//! [`AccountScope`](dunlin_model::AccountScope), the key that signed, and the hash the body must have. The body is
//! compared by whoever reads it, through [`ExpectedBody`], so that nothing has to be buffered here. [`sign`] is the
//! client's side of the same scheme.
//!
//! ```text
//!  Parts ─▶ Scheme::of ─▶ Authorization ─▶ date in window? ─▶ HMAC holds? ─▶ nonce fresh? ─▶ Verified
//!                                                                               │
//!                                                                    written behind to the store
//! ```
//!
//! # Invariants
//! - A scope exists only after a signature over this very request line and these very headers held.
//! - Every `x-acs-` header and `host` is under the signature, whatever the client put into `SignedHeaders`.
//! - A nonce is used once within the window in which its date is accepted. When there are more of them than may be held,
//!   the window shrinks; a nonce is never forgotten while its date would still be accepted.
//! - Secrets and signatures are in no error and no log line.
//!
//! [`TokenKeys`] stands apart: it checks the tokens of a function's own callers, who have no account here.
//!
//! What a caller may do lives with the handlers; statuses and codes at the doors.

mod acs3;
mod authorization;
mod error;
mod jwt;
mod nonces;
mod sign;
mod verify;

pub use authorization::Scheme;
pub use error::AuthError;
pub use jwt::{Claims, TokenError, TokenKeys};
pub use sign::{SigningKey, sign, sign_at};
pub use verify::{Clock, Config, ExpectedBody, Verified, Verifier, system_clock};
