//! The API from outside: requests in, responses out, over scripted rooms.

#![expect(clippy::unwrap_used, reason = "a broken rig is a failed test")]
#![expect(unreachable_pub, reason = "a test has no outside")]

mod functions;
mod images;
mod layers;
mod rig;
mod scaling;
mod settings;
mod table;
mod tags;
mod triggers;
mod versions;
