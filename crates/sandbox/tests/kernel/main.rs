//! Cells on a real kernel. Needs root.
//!
//! This program is the test, and, started with another first argument, everything the supervisor starts: the spawner,
//! the server and a whole platform. Hence its own `main` and its own little runner, which takes a name to filter by
//! and prints what the usual one prints.
#![allow(clippy::unwrap_used, reason = "these are tests, which clippy cannot tell without the usual runner")]

mod cells;
mod layers;
mod parts;
mod platform;
mod trees;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("a_cell_runs_a_program_from_its_code", cells::a_cell_runs_a_program_from_its_code),
    ("a_bind_sets_the_limits", cells::a_bind_sets_the_limits),
    ("running_out_of_memory_ends_the_cell_and_says_so", cells::running_out_of_memory_ends_the_cell_and_says_so),
    ("a_cell_is_bound_once_and_only_to_what_is_there", cells::a_cell_is_bound_once_and_only_to_what_is_there),
    ("the_end_of_a_cell_leaves_nothing", cells::the_end_of_a_cell_leaves_nothing),
    ("a_frozen_cell_ends_too", cells::a_frozen_cell_ends_too),
    ("a_cell_that_is_frozen_while_it_is_ended_ends", cells::a_cell_that_is_frozen_while_it_is_ended_ends),
    ("a_socket_reaches_into_the_cell_and_nowhere_else", cells::a_socket_reaches_into_the_cell_and_nowhere_else),
    ("fifty_cells_at_once", cells::fifty_cells_at_once),
    ("no_two_live_cells_share_a_uid", cells::no_two_live_cells_share_a_uid),
    ("garbage_ends_the_session_and_its_cells", cells::garbage_ends_the_session_and_its_cells),
    ("no_more_cells_than_granted", cells::no_more_cells_than_granted),
    ("python_cells_are_ready_and_differ", cells::python_cells_are_ready_and_differ),
    ("an_unpacked_tree_is_roots_and_read_only", trees::an_unpacked_tree_is_roots_and_read_only),
    ("a_refused_package_leaves_no_tree", trees::a_refused_package_leaves_no_tree),
    ("what_no_tree_may_hold_is_not_published", trees::what_no_tree_may_hold_is_not_published),
    ("a_discarded_tree_stays_for_those_who_have_it", trees::a_discarded_tree_stays_for_those_who_have_it),
    ("the_first_of_two_layers_counts_and_folders_are_merged", layers::the_first_of_two_layers_counts_and_folders_are_merged),
    ("layers_can_be_run_and_not_written", layers::layers_can_be_run_and_not_written),
    ("cells_share_the_files_of_a_layer", layers::cells_share_the_files_of_a_layer),
    ("a_layer_is_held_while_a_cell_has_it", layers::a_layer_is_held_while_a_cell_has_it),
    ("an_interpreter_below_opt_stays_above_the_layers", layers::an_interpreter_below_opt_stays_above_the_layers),
    ("a_dead_server_is_started_again_on_the_same_listener", platform::a_dead_server_is_started_again_on_the_same_listener),
    ("the_server_has_no_rights", platform::the_server_has_no_rights),
    ("a_stopped_platform_leaves_nothing", platform::a_stopped_platform_leaves_nothing),
    ("a_killed_supervisor_takes_everything_with_it", platform::a_killed_supervisor_takes_everything_with_it),
    ("a_second_platform_on_the_same_directory_is_refused", platform::a_second_platform_on_the_same_directory_is_refused),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("spawner") => return trees::spawner(),
        Some("server") => return platform::server(),
        Some("up") => return platform::up(&arguments[1..]),
        _ => {}
    }
    run(&arguments)
}

fn run(arguments: &[String]) -> ExitCode {
    let listing = arguments.iter().any(|argument| argument == "--list");
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let matches = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    let chosen: Vec<&Test> = TESTS.iter().filter(|(name, _)| matches(name)).collect();
    if listing {
        chosen.iter().for_each(|(name, _)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {} tests", chosen.len()));
    let mut failed = Vec::new();
    for (name, test) in &chosen {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        say(&format!("test {name} ... {}", if passed { "ok" } else { "FAILED" }));
        if !passed {
            failed.push(*name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        chosen.len() - failed.len(),
        failed.len(),
        TESTS.len() - chosen.len(),
    ));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

#[expect(clippy::print_stdout, reason = "this is the test runner")]
fn say(text: &str) {
    println!("{text}");
}
