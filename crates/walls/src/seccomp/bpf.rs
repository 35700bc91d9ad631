//! A little assembler for classic BPF. A fragment decides: every path through it ends in an answer. Fragments are
//! built from the leaves up, so a jump's distance is known when it is written.

/// A piece of program in which every path ends.
pub(super) type Fragment = Vec<libc::sock_filter>;

/// Where the call's number lies in what the kernel shows to a filter.
pub(super) const NUMBER: u32 = 0;
/// Where the architecture lies.
pub(super) const ARCHITECTURE: u32 = 4;

/// Where the low half of an argument lies. The upper half is ignored by the calls that are checked, all of which take
/// 32-bit values there, and it must not help to get past a check.
pub(super) const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;

/// Ends with this answer.
pub(super) fn answer(value: u32) -> Fragment {
    vec![instruction(RETURN, 0, 0, value)]
}

/// Goes on with the word at `offset`.
pub(super) fn load(offset: u32, then: Fragment) -> Fragment {
    prefixed(instruction(LOAD, 0, 0, offset), then)
}

/// Goes on with only these bits of the loaded word.
pub(super) fn masked(mask: u32, then: Fragment) -> Fragment {
    prefixed(instruction(AND, 0, 0, mask), then)
}

/// Is the loaded word `value`?
pub(super) fn equal(value: u32, then: Fragment, otherwise: Fragment) -> Fragment {
    branch(libc::BPF_JEQ, value, then, otherwise)
}

/// Is the loaded word `value` or more?
pub(super) fn at_least(value: u32, then: Fragment, otherwise: Fragment) -> Fragment {
    branch(libc::BPF_JGE, value, then, otherwise)
}

/// Has the loaded word one of the bits of `mask`?
pub(super) fn any_bit(mask: u32, then: Fragment, otherwise: Fragment) -> Fragment {
    branch(libc::BPF_JSET, mask, then, otherwise)
}

/// Is the loaded word among `values`?
pub(super) fn among(values: &[u32], then: Fragment, otherwise: Fragment) -> Fragment {
    values.iter().rfold(otherwise, |rest, value| equal(*value, then.clone(), rest))
}

/// Is the loaded word between `first` and `last`, both included?
pub(super) fn between(first: u32, last: u32, then: Fragment, otherwise: Fragment) -> Fragment {
    let up_to_last = match last.checked_add(1) {
        Some(beyond) => at_least(beyond, otherwise.clone(), then),
        None => then,
    };
    at_least(first, up_to_last, otherwise)
}

/// A conditional jump reaches 255 instructions; further it needs an unconditional one to land on.
fn branch(condition: u32, value: u32, then: Fragment, otherwise: Fragment) -> Fragment {
    let code = libc::BPF_JMP | condition | libc::BPF_K;
    let mut program = match u8::try_from(otherwise.len()) {
        Ok(distance) => vec![instruction(code, distance, 0, value)],
        Err(_) => {
            let distance = u32::try_from(otherwise.len()).expect("a filter has a few thousand instructions at most");
            vec![instruction(code, 0, 1, value), instruction(JUMP, 0, 0, distance)]
        }
    };
    program.extend(otherwise);
    program.extend(then);
    program
}

fn prefixed(first: libc::sock_filter, then: Fragment) -> Fragment {
    let mut program = vec![first];
    program.extend(then);
    program
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("codes are 16 bits"), jt, jf, k }
}
