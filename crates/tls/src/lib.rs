//! Certificates of custom domains, and the TLS that is spoken with them.
//!
//! [`Certificate::read`] takes what an owner sent and says which member is wrong; [`server_config`] makes of it what a door
//! answers a handshake with. Both are pure: the time is an argument.
//!
//! # Invariants
//! - A certificate that was read has the key that was given with it.
//! - Nothing older than TLS 1.2 is spoken, and no suite without forward secrecy, whatever a domain allows.
//! - Private keys are in no error.

mod certificate;
mod versions;

pub use certificate::Certificate;
pub use rustls::ServerConfig;
pub use versions::{nobody, server_config};
