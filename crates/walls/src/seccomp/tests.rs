//! The program is run in a small interpreter and compared with the table, and the argument checks with a model written
//! independently of them.

use super::arguments::{
    IPV4_REFUSED, IPV6_REFUSED, NAMESPACES, NETWORK, NETWORK_READS, PRCTL, SOCKET_REFUSED, TCP_REFUSED, TERMINAL, UDP_REFUSED,
    WIRELESS,
};
use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const EAFNOSUPPORT: u32 = libc::SECCOMP_RET_ERRNO | 97;
const EPROTONOSUPPORT: u32 = libc::SECCOMP_RET_ERRNO | 93;
const I386: u32 = 0x4000_0003;

/// What the kernel answers to a call.
fn run(program: &[libc::sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for argument in arguments {
        data.extend(argument.to_le_bytes());
    }
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let step = program[at];
        at += 1;
        let mut jump = |condition: bool| at += usize::from(if condition { step.jt } else { step.jf });
        match step.code {
            0x20 => {
                let from = step.k as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x06 => return step.k,
            0x05 => at += step.k as usize,
            0x54 => accumulator &= step.k,
            0x15 => jump(accumulator == step.k),
            0x35 => jump(accumulator >= step.k),
            0x45 => jump(accumulator & step.k != 0),
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn call(number: i64, arguments: [u64; 6]) -> u32 {
    static PROGRAM: std::sync::LazyLock<Vec<libc::sock_filter>> = std::sync::LazyLock::new(program);
    run(&PROGRAM, ARCHITECTURE, u32::try_from(number).unwrap(), arguments)
}

#[test]
fn every_number_gets_what_the_table_says() {
    let program = program();
    for number in 0..1024 {
        let seen = run(&program, ARCHITECTURE, number, [0; 6]);
        match rule(number) {
            Rule::Allow => assert_eq!(seen, ALLOW, "{number}"),
            Rule::Absent => assert_eq!(seen, ENOSYS, "{number}"),
            Rule::Refuse => assert_eq!(seen, EPERM, "{number}"),
            Rule::Check(_) => {}
        }
    }
}

#[test]
fn i386_ends_the_process_and_x32_does_not_exist() {
    let program = program();
    for number in 0..NUMBERS {
        assert_eq!(run(&program, I386, number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(run(&program, ARCHITECTURE, number | 0x4000_0000, [0; 6]), ENOSYS);
    }
    assert_eq!(run(&program, ARCHITECTURE, u32::MAX, [0; 6]), ENOSYS);
}

#[test]
fn a_number_has_one_rule() {
    let mut seen = std::collections::BTreeMap::new();
    for group in TABLE {
        for (name, number) in group.calls {
            assert!((0..i64::from(NUMBERS)).contains(number), "{name}");
            assert_eq!(seen.insert(number, name), None, "{name} occurs twice");
        }
    }
}

#[test]
fn the_program_fits_the_kernel_and_every_jump_stays_inside() {
    let program = program();
    assert!(program.len() <= 4096, "{} instructions", program.len());
    for (at, step) in program.iter().enumerate() {
        let reach = match step.code {
            0x05 => step.k as usize,
            0x15 | 0x35 | 0x45 => usize::from(step.jt.max(step.jf)),
            _ => continue,
        };
        assert!(at + 1 + reach < program.len(), "instruction {at} jumps out");
    }
}

#[test]
fn clone_makes_threads_and_children_but_no_namespace() {
    let threads = 0x003d_0f00;
    for flags in [0x11, 0x0120_0011, threads, 0x4111] {
        assert_eq!(call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), ALLOW, "{flags:#x}");
    }
    for bit in 0..32 {
        let flag = 1u32 << bit;
        let expected = if NAMESPACES & flag != 0 { EPERM } else { ALLOW };
        assert_eq!(call(libc::SYS_clone, [u64::from(flag) | 17, 0, 0, 0, 0, 0]), expected, "bit {bit}");
    }
    assert_eq!(NAMESPACES, 0x7e02_0000);
}

#[test]
fn high_halves_of_arguments_do_not_help() {
    let high = 1u64 << 32;
    assert_eq!(call(libc::SYS_ioctl, [0, high | 0x5412, 0, 0, 0, 0]), EPERM);
    assert_eq!(call(libc::SYS_clone, [high | 0x1000_0000, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(call(libc::SYS_socket, [high | 16, 3, 0, 0, 0, 0]), EAFNOSUPPORT);
    assert_eq!(call(libc::SYS_setsockopt, [0, high | 1, high | 26, 0, 0, 0]), EPERM);
}

#[test]
fn sockets_are_unix_or_plain_internet() {
    for family in 0..64u64 {
        for kind in 0..16u64 {
            for protocol in [0, 1, 6, 17, 58, 132, 255, 256, 262] {
                let expected = match (family, kind, protocol) {
                    (1, 1 | 2, _) | (2 | 10, 1 | 2, 0 | 6 | 17) => ALLOW,
                    (2 | 10, 1 | 2, _) => EPROTONOSUPPORT,
                    (1 | 2 | 10, ..) => EPERM,
                    _ => EAFNOSUPPORT,
                };
                for flags in [0, 0o4000, 0o2_000_000] {
                    let seen = call(libc::SYS_socket, [family, kind | flags, protocol, 0, 0, 0]);
                    assert_eq!(seen, expected, "socket({family}, {kind}, {protocol})");
                }
            }
            let pair = match (family, kind) {
                (1, 1 | 2 | 5) => ALLOW,
                (1, _) => EPERM,
                _ => EAFNOSUPPORT,
            };
            assert_eq!(call(libc::SYS_socketpair, [family, kind, 0, 0, 0, 0]), pair);
        }
    }
}

#[test]
fn ioctls_neither_inject_nor_configure() {
    for request in 0..0x10000u32 {
        let refused = TERMINAL.contains(&request)
            || (WIRELESS.0..=WIRELESS.1).contains(&request)
            || ((NETWORK.0..=NETWORK.1).contains(&request) && !NETWORK_READS.contains(&request));
        let expected = if refused { EPERM } else { ALLOW };
        assert_eq!(call(libc::SYS_ioctl, [0, u64::from(request), 0, 0, 0, 0]), expected, "{request:#x}");
    }
    // SIOCSIFFLAGS, SIOCSIFADDR, SIOCADDRT, SIOCETHTOOL.
    for request in [0x8914, 0x8916, 0x890b, 0x8946] {
        assert_eq!(call(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]), EPERM);
    }
}

#[test]
fn prctl_keeps_the_death_signal() {
    for option in 0..80 {
        let expected = if PRCTL.contains(&option) { ALLOW } else { EPERM };
        if option != libc::PR_SET_PDEATHSIG {
            let option = u64::try_from(option).unwrap();
            assert_eq!(call(libc::SYS_prctl, [option, 0, 0, 0, 0, 0]), expected, "{option}");
        }
    }
    assert_eq!(call(libc::SYS_prctl, [1, 9, 0, 0, 0, 0]), ALLOW);
    assert_eq!(call(libc::SYS_prctl, [1, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn socket_options_do_not_reach_into_the_network_stack() {
    let within = |ranges: &[(u32, u32)], option: u32| ranges.iter().any(|(low, high)| (*low..=*high).contains(&option));
    let listed = |list: &[i32], option: u32| list.contains(&option.cast_signed());
    for level in 0..300u32 {
        for option in (0..300).chain([1024, 0x7fff_ffff, u32::MAX]) {
            let refused = match level {
                1 => listed(&SOCKET_REFUSED, option),
                0 => within(&IPV4_REFUSED, option),
                41 => within(&IPV6_REFUSED, option),
                6 => listed(&TCP_REFUSED, option),
                17 => listed(&UDP_REFUSED, option),
                _ => true,
            };
            let expected = if refused { EPERM } else { ALLOW };
            let seen = call(libc::SYS_setsockopt, [0, u64::from(level), u64::from(option), 0, 0, 0]);
            assert_eq!(seen, expected, "level {level} option {option}");
        }
    }
    // What servers and clients do all day.
    for (level, option) in [(1, 2), (1, 9), (1, 15), (6, 1), (6, 4), (41, 26), (41, 67), (0, 1), (0, 2), (17, 103)] {
        assert_eq!(call(libc::SYS_setsockopt, [0, level, option, 0, 0, 0]), ALLOW, "level {level} option {option}");
    }
}

#[test]
fn personality_can_be_asked_but_not_changed() {
    for (value, expected) in [(0, ALLOW), (0xffff_ffff, ALLOW), (0x0004_0000, EPERM), (8, EPERM)] {
        assert_eq!(call(libc::SYS_personality, [value, 0, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn the_description_names_every_call() {
    let text = describe();
    for group in TABLE {
        for (name, _) in group.calls {
            assert!(text.contains(name.trim_start_matches("SYS_")), "{name}");
        }
    }
}

#[test]
fn a_templates_filter_asks_the_tracer_about_three_calls_and_is_the_ordinary_one_otherwise() {
    const ASK: u32 = libc::SECCOMP_RET_TRACE;
    let (program, template) = (program(), template_program());
    assert!(template.len() <= 4096, "{} instructions", template.len());
    let number = |call: i64| u32::try_from(call).unwrap();
    let asked = [
        (libc::SYS_clone, u64::from(FORK_FLAGS)),
        (libc::SYS_unshare, libc::CLONE_NEWCGROUP as u64),
        (libc::SYS_prctl, libc::PR_CAPBSET_DROP as u64),
        (libc::SYS_prctl, libc::PR_CAP_AMBIENT as u64),
    ];
    for (call, argument) in asked {
        assert_eq!(run(&template, ARCHITECTURE, number(call), [argument, 0, 0, 0, 0, 0]), ASK, "{call} {argument:#x}");
        assert_eq!(run(&program, ARCHITECTURE, number(call), [argument, 0, 0, 0, 0, 0]), EPERM, "{call} {argument:#x}");
    }
    // One bit more or less, and every other first argument that decides anything.
    let mut arguments: Vec<u64> = (0..64).flat_map(|bit| [1u64 << bit, u64::from(FORK_FLAGS) ^ 1 << bit]).collect();
    arguments.extend(0..64);
    for call in 0..NUMBERS {
        for argument in arguments.iter().copied().filter(|argument| *argument >> 32 == 0) {
            if asked.contains(&(i64::from(call), argument)) {
                continue;
            }
            let seen = |program: &[libc::sock_filter]| run(program, ARCHITECTURE, call, [argument, 0, 0, 0, 0, 0]);
            assert_eq!(seen(&template), seen(&program), "{call} {argument:#x}");
        }
    }
    assert_eq!(run(&template, I386, number(libc::SYS_clone), [u64::from(FORK_FLAGS); 6]), libc::SECCOMP_RET_KILL_PROCESS);
}
