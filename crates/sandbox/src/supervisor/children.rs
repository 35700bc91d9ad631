//! The supervisor's own processes: spawner, zygote, server. Started by the main thread, so that they and all cells die
//! with it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use dunlin_model::Interpreters;
use rustix::mount::OpenTreeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::SpawnerKind;
use crate::inherited::BootFacts;
use crate::seqpacket;
use crate::spawner::Boot;
use crate::sys::{self, Jail, Plan, Reserved};
use crate::{Exit, interpreters};

/// Of the supervisor's environment, what the server gets too; and everything that begins with `DUNLIN_`.
const ENVIRONMENT: [&str; 8] = ["PATH", "LANG", "LC_ALL", "TZ", "TERM", "NO_COLOR", "RUST_LOG", "RUST_BACKTRACE"];

/// A process the main thread has started.
pub(super) struct Process {
    pub(super) pidfd: OwnedFd,
}

impl Process {
    pub(super) fn signal(&self, signal: Signal) {
        // It may be gone already; then there is nothing to tell.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits for its end, which the pidfd has announced.
    pub(super) fn reap(self) -> Exit {
        let waited =
            rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED));
        let Ok(Some(status)) = waited else { return Exit::Unknown };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        }
    }
}

/// How processes are started.
pub(super) struct Nursery {
    pub(super) reserved: Reserved,
    pub(super) program: PathBuf,
    pub(super) spawner_arguments: Vec<OsString>,
    pub(super) server_arguments: Vec<OsString>,
    pub(super) mount_point: PathBuf,
    pub(super) assets: PathBuf,
    pub(super) interpreters: Interpreters,
}

impl Nursery {
    /// Starts a spawner. Returns the socket on which it takes requests.
    pub(super) fn spawner(&self, kind: SpawnerKind) -> io::Result<(OwnedFd, Process)> {
        let (ours, theirs) = seqpacket::pair()?;
        let zygote = match kind {
            SpawnerKind::Plain | SpawnerKind::Forker => None,
            SpawnerKind::Python(interpreter, imports) => {
                let found = self.interpreters.get(interpreter).ok_or(io::ErrorKind::NotFound)?;
                Some((found.program.clone(), imports))
            }
        };
        let boot = Boot {
            zygote,
            forker: kind == SpawnerKind::Forker,
            mount_point: self.mount_point.clone(),
            assets: self.assets.clone(),
            read_only: interpreters::shown(&self.interpreters),
            links: interpreters::links(&self.interpreters),
        };
        let environment = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let plan = Plan {
            program: &self.program,
            arguments: &self.spawner_arguments,
            environment: &environment,
            stdin: line(&serde_json::to_vec(&boot)?)?,
            descriptors: &[theirs.as_fd()],
            jail: None,
        };
        let pidfd = sys::spawn(plan, &self.reserved)?;
        Ok((ours, Process { pidfd }))
    }

    /// Starts a server with these descriptors from 3 on, as `uid`, with `state` as its state directory.
    pub(super) fn server(
        &self,
        facts: &BootFacts,
        descriptors: &[BorrowedFd<'_>],
        uid: u32,
        state: impl AsFd,
    ) -> io::Result<Process> {
        let environment: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("DUNLIN_")))
            .collect();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let state = rustix::mount::open_tree(state, c"", flags)?;
        let plan = Plan {
            program: &self.program,
            arguments: &self.server_arguments,
            environment: &environment,
            stdin: line(&serde_json::to_vec(facts)?)?,
            descriptors,
            jail: Some(&Jail { uid, state }),
        };
        Ok(Process { pidfd: sys::spawn(plan, &self.reserved)? })
    }
}

/// A pipe that holds one line and is closed behind it.
fn line(text: &[u8]) -> io::Result<OwnedFd> {
    let (reader, mut writer) = io::pipe()?;
    // Far below what a pipe holds, so this does not block.
    writer.write_all(text)?;
    Ok(reader.into())
}
