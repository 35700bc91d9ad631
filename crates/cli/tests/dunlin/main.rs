//! The command line as its users meet it: the real binary against a scripted platform.

mod commands;
mod support;
