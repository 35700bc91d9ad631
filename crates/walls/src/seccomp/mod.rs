//! The system call filter.
//!
//! [`table`] says what is allowed; this page turns it into a program for the kernel, as a binary search over ranges of
//! numbers. Everything the table does not name answers ENOSYS, as on a kernel that does not have it, so that programs
//! fall back; what it names as refused answers EPERM. A call through another architecture's door (i386) ends the
//! process, and the x32 numbers do not exist.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the system call table is written for x86-64 and has to be reviewed for any other architecture");

mod arguments;
mod bpf;
mod table;
mod template;

use std::fmt::Write as _;

use bpf::Fragment;
pub use table::{Check, Group, Rule, TABLE, rule};
pub use template::FORK_FLAGS;

/// Numbers from here on are not looked up: none is assigned, and x32 lies above.
pub const NUMBERS: u32 = 512;

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xC000_003E;

/// The program for the kernel.
#[must_use]
pub fn program() -> Vec<libc::sock_filter> {
    assemble(&ranges(|number| Leaf::Plain(rule(number))))
}

/// The program for a template and the cells that are forked from it.
#[must_use]
pub fn template_program() -> Vec<libc::sock_filter> {
    let own = |number| template::fragment(number).map(|_| Leaf::Template(number));
    assemble(&ranges(|number| own(number).unwrap_or(Leaf::Plain(rule(number)))))
}

/// What decides about a run of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Plain(Rule),
    /// This one number is a template's.
    Template(u32),
}

fn assemble(ranges: &[(u32, Leaf)]) -> Vec<libc::sock_filter> {
    let known = search(ranges);
    let numbers = bpf::at_least(NUMBERS, bpf::answer(errno(libc::ENOSYS)), known);
    let calls = bpf::load(bpf::NUMBER, numbers);
    bpf::load(bpf::ARCHITECTURE, bpf::equal(ARCHITECTURE, calls, bpf::answer(libc::SECCOMP_RET_KILL_PROCESS)))
}

/// The filter in words, for the documentation.
#[must_use]
pub fn describe() -> String {
    let mut text = String::new();
    for group in TABLE {
        let _ = writeln!(text, "{}: {}", group.rule, group.why);
        let names: Vec<&str> = group.calls.iter().map(|(name, _)| name.trim_start_matches("SYS_")).collect();
        let _ = writeln!(text, "    {}\n", names.join(" "));
    }
    text.push_str("ENOSYS: every other number, and x32. i386 ends the process.\n");
    text
}

/// Consecutive numbers with the same rule: the first number of each run.
fn ranges(leaf_of: impl Fn(u32) -> Leaf) -> Vec<(u32, Leaf)> {
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for number in 0..NUMBERS {
        let leaf = leaf_of(number);
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((number, leaf));
        }
    }
    ranges
}

fn search(ranges: &[(u32, Leaf)]) -> Fragment {
    match ranges {
        [] => bpf::answer(errno(libc::ENOSYS)),
        [(_, Leaf::Plain(rule))] => leaf(*rule),
        [(_, Leaf::Template(number))] => template::fragment(*number).expect("a template's number has a rule"),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            bpf::at_least(high[0].0, search(high), search(low))
        }
    }
}

fn leaf(rule: Rule) -> Fragment {
    match rule {
        Rule::Allow => bpf::answer(libc::SECCOMP_RET_ALLOW),
        Rule::Absent => bpf::answer(errno(libc::ENOSYS)),
        Rule::Refuse => bpf::answer(errno(libc::EPERM)),
        Rule::Check(check) => arguments::fragment(check),
    }
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

#[cfg(test)]
mod tests;
