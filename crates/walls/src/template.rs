//! The template's side of a fork: it waits to be told, and asks for its clone.
//!
//! Everything that makes the child a cell of its own happens outside ([`crate::forker`]). Here it is only given its
//! descriptors, which it could not get in any other way.

use std::os::fd::{AsFd, OwnedFd};

use crate::protocol;
use crate::sys::{self, AtFork};

/// Serves until the supervisor closes `control`, then exits the process. Returns in each child, with its own channel and log.
pub(crate) fn serve(control: OwnedFd, at_fork: AtFork) {
    // Ended children are not to be waited for here; what the program had said of that holds again in each child.
    let before = sys::ignore_children();
    loop {
        let mut order = [0; 8];
        let (length, mut descriptors) = match protocol::receive(&control, &mut order) {
            Ok(received) => received,
            Err(_) => sys::exit_now(1),
        };
        if length == 0 {
            sys::exit_now(0);
        }
        let (Some(channel), Some(log)) = (descriptors.take(0), descriptors.take(1)) else { sys::exit_now(1) };
        at_fork.before();
        match sys::clone_template() {
            Ok(true) => {
                sys::restore_children(before);
                at_fork.in_child();
                let placed = sys::place(channel.as_fd(), sys::CHANNEL, true)
                    .and_then(|()| sys::place(log.as_fd(), 1, false))
                    .and_then(|()| sys::place(log.as_fd(), 2, false));
                if placed.is_err() {
                    sys::exit_now(1);
                }
                return;
            }
            Ok(false) => at_fork.in_parent(),
            // Refused, because nobody stands by: the control socket is not what it should be.
            Err(_) => sys::exit_now(1),
        }
    }
}
