//! The C interface that the Python zygote uses.

use std::ffi::{CStr, c_int};

use super::process::{descriptor_of_spare, exit_now};
use crate::serve::serve_with;
use crate::template;

/// What the interpreter wants to be told around a fork. Missing in any other program: then nothing is called.
#[derive(Clone, Copy)]
pub(crate) struct AtFork {
    before: Option<unsafe extern "C" fn()>,
    parent: Option<unsafe extern "C" fn()>,
    child: Option<unsafe extern "C" fn()>,
}

impl AtFork {
    /// For a process without an interpreter.
    pub(crate) const NOTHING: AtFork = AtFork { before: None, parent: None, child: None };

    /// Finds the interpreter's functions in the running program.
    fn of_python() -> AtFork {
        AtFork { before: find(c"PyOS_BeforeFork"), parent: find(c"PyOS_AfterFork_Parent"), child: find(c"PyOS_AfterFork_Child") }
    }

    pub(crate) fn before(self) {
        call(self.before);
    }

    pub(crate) fn in_parent(self) {
        call(self.parent);
    }

    pub(crate) fn in_child(self) {
        call(self.child);
    }
}

fn find(name: &CStr) -> Option<unsafe extern "C" fn()> {
    // SAFETY: the name is a C string, and RTLD_DEFAULT searches what the program has loaded.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: the three names are documented as functions without arguments and result, and null is `None`.
    unsafe { std::mem::transmute::<*mut libc::c_void, Option<unsafe extern "C" fn()>>(symbol) }
}

fn call(function: Option<unsafe extern "C" fn()>) {
    if let Some(function) = function {
        // SAFETY: the interpreter's fork functions need the interpreter lock, which the zygote's caller holds
        // (`ctypes.PyDLL` keeps it), and are called in their documented places around the clone.
        unsafe { function() }
    }
}

/// Serves requests in a Python zygote. `socket` leads to the supervisor, `host_proc` is a descriptor of the host's
/// `/proc`; both become the callee's. Returns 0 in each child, behind its walls, and otherwise does not return.
///
/// The caller must hold the interpreter lock and be the only thread.
#[unsafe(no_mangle)]
extern "C" fn dunlin_zygote_serve(socket: c_int, host_proc: c_int) -> c_int {
    let (Ok(socket), Ok(host_proc)) = (descriptor_of_spare(socket), descriptor_of_spare(host_proc)) else {
        exit_now(1);
    };
    serve_with(socket, host_proc, AtFork::of_python());
    0
}

/// Waits in a template for the orders to fork, on `control`, which becomes the callee's. Returns 0 in each child, behind its
/// walls, and otherwise does not return.
///
/// The caller must hold the interpreter lock, in the thread that [`dunlin_zygote_serve`] returned in.
#[unsafe(no_mangle)]
extern "C" fn dunlin_template_serve(control: c_int) -> c_int {
    let Ok(control) = descriptor_of_spare(control) else { exit_now(1) };
    template::serve(control, AtFork::of_python());
    0
}
