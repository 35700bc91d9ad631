//! The system calls that need `unsafe`, each wrapped once. Everything else goes through `rustix`, which is safe.
//!
//! The wrappers decide nothing: what is called when, and why, is said in the modules above.

#![expect(unsafe_code, reason = "raw system calls and the C interface of the shared object live here, and only here")]

mod call;
mod landlock;
mod process;
mod python;
pub(crate) mod trace;

pub(crate) use landlock::{AccessFs, Ruleset, landlock_version};
pub(crate) use process::{
    CHANNEL, Cloned, EXTRA, change_groups, channel, clone_child, clone_template, close_from, duplicate, execve, exit_now, fork,
    ignore_children, install_filter, keep_capabilities, limit_bounding_set, place, reset_signals, restore_children,
    seccomp_supports_errno, set_attributes, set_groups, set_prctl, unshare, wait,
};
pub(crate) use python::AtFork;
