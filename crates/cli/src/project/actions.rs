//! What a project runs on this machine around a deployment.

use std::process::{Command, Stdio};

use dunlin_project::{Action, Moment};

use crate::failure::{Failure, Kind};
use crate::output::Output;

/// Does `work` with what runs before, after, and after it went well or failed. Everything is said before it is run.
pub(super) fn around<T>(output: &Output, actions: &[Action], work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let at = |moment: Moment| actions.iter().filter(move |action| action.moment == moment);
    let worked = at(Moment::Before).try_for_each(|action| run(output, action)).and_then(|()| work());
    let then = if worked.is_ok() { Moment::Done } else { Moment::Failed };
    let after = at(then).chain(at(Moment::After)).try_for_each(|action| run(output, action));
    // The first thing that failed is the one that is told.
    let worked = worked?;
    after?;
    Ok(worked)
}

fn run(output: &Output, action: &Action) -> Result<(), Failure> {
    output.note(&format!("running in {}: {}", action.folder.display(), action.run));
    let what = format!("cannot run '{}' ({})", action.run, action.place);
    // Results go to standard output; what a command says is none.
    let status =
        Command::new("sh").arg("-c").arg(&action.run).current_dir(&action.folder).stdout(Stdio::from(std::io::stderr())).status();
    let failure = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => Failure::new(Kind::Failed, what, format!("it ended with {status}")),
        Err(error) => Failure::of(what, &error),
    };
    if action.may_fail {
        output.note(&format!("warning: {}: {}; it may fail", failure.what, failure.why));
        return Ok(());
    }
    Err(failure)
}
