//! What the filter of a template answers differently.
//!
//! A template is a cell that is forked from outside: the forker ([`crate::forker`]) traces it for the length of one
//! clone, and puts the child's walls up before the child has run an instruction. What that takes is refused to everybody
//! else, so here a few calls ask the tracer. Without one, which is nearly always, the kernel answers ENOSYS: the filter
//! is then as strict as the ordinary one. No guest can be a tracer, because `ptrace` is refused to all.

use super::arguments::{self, NAMESPACES};
use super::bpf::{self, Fragment};

/// The one clone a template may ask for: every namespace new, the thread id written where the C library keeps it.
pub const FORK_FLAGS: u32 =
    NAMESPACES | (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID).cast_unsigned() | libc::SIGCHLD.cast_unsigned();

/// The rule for a call that may ask the tracer; `None` where the table holds.
pub(super) fn fragment(number: u32) -> Option<Fragment> {
    let ask = || bpf::answer(libc::SECCOMP_RET_TRACE);
    let options = [libc::PR_CAPBSET_DROP, libc::PR_CAP_AMBIENT].map(i32::cast_unsigned);
    match i64::from(number) {
        libc::SYS_clone => Some(bpf::load(bpf::argument(0), bpf::equal(FORK_FLAGS, ask(), arguments::clone_word()))),
        libc::SYS_unshare => {
            let cgroup = libc::CLONE_NEWCGROUP.cast_unsigned();
            Some(bpf::load(bpf::argument(0), bpf::equal(cgroup, ask(), arguments::refuse())))
        }
        libc::SYS_prctl => Some(bpf::load(bpf::argument(0), bpf::among(&options, ask(), arguments::prctl()))),
        _ => None,
    }
}
