//! Forks templates: one more cell of a cell that has loaded a function.
//!
//! The forker (`walls::forker`) does what needs tracing; this thread gives the new cell its cgroup, its descriptors and its
//! network, and looks at it from outside before it runs a single instruction. What it looks at is what the kernel says,
//! not what anybody who took part says.
//!
//! # Invariants
//! - A cell that was forked runs only after [`verify`] found every wall in its place.
//! - A template that could not be forked is ended, and with it every cell that was forked from it.
//! - A template runs while it is forked, and is frozen afterwards.
//! - A forked cell is of its template's code for ever.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{CellId, Digest};
use dunlin_walls::{ForkRequest, MakeReply};
use rustix::net::sockopt::Timeout;

use super::cells::{Body, LiveCell, Owner, Template};
use super::make::{Made, Parts, UNBOUND_TMP_BYTES, prepare};
use super::queue::Next;
use super::session::Session;
use super::unpack::TreeJob;
use super::{Shared, SpawnerKind};
use crate::cgroup::UsageFds;
use crate::protocol::{Message, Refusal};
use crate::{Step, sys};

/// A forker that says nothing for so long is broken. It gives up on a template itself long before.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an idle thread looks whether it is to end.
const TICK: Duration = Duration::from_secs(60);

/// One more cell of a template that somebody wants.
pub(super) struct ForkJob {
    pub(super) session: Arc<Session>,
    pub(super) id: u64,
    pub(super) template: CellId,
}

/// The thread that forks templates.
pub(super) struct Forks {
    shared: Arc<Shared>,
    /// The forker, once one was needed.
    forker: Option<OwnedFd>,
}

impl Forks {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, forker: None }
    }

    /// Forks templates until the queue is closed.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            match shared.forks.next(TICK) {
                Next::Job(job) => self.serve(&job),
                Next::Idle => {}
                Next::Closed => return,
            }
        }
    }

    fn serve(&mut self, job: &ForkJob) {
        if job.session.over() {
            return;
        }
        match self.fork(job) {
            Err(why) => {
                self.shared.cells.kill_family(job.template);
                job.session.refuse(job.id, why);
            }
            Ok((made, usage)) => {
                let descriptors = [made.channel.as_fd(), made.log.as_fd(), usage.memory.as_fd(), usage.cpu.as_fd()];
                job.session.say(&Message::Made { id: job.id, cell: made.cell.id }, &descriptors);
                if job.session.over() {
                    made.cell.kill();
                }
            }
        }
    }

    fn fork(&mut self, job: &ForkJob) -> Result<(Made, UsageFds), Refusal> {
        let shared = Arc::clone(&self.shared);
        let cell = shared.cells.get(job.template).ok_or(Refusal::NoSuchCell)?;
        let template = cell.template.as_ref().ok_or(Refusal::NoSuchCell)?;
        // What was never bound has nothing worth forking.
        let seen = cell.body().as_ref().and_then(|body| Some((body.code?, body.layers.clone())));
        let (code, layers) = seen.ok_or(Refusal::NoSuchTree { place: 0 })?;
        let place = shared.cells.place().ok_or(Refusal::Full)?;
        let id = shared.cells.number();
        // It has its template's mounts, and holds what they show as any cell does.
        let trees = Trees::hold(&shared, std::iter::once(code).chain(layers.iter().copied()))?;
        let (cgroup, mut parts) = prepare(&shared, id)?;
        // A template runs for the length of a fork and no longer: its code serves nobody.
        let built = freeze(&cell, false)
            .and_then(|()| self.build(&cell.pidfd, template, job.template, id, &parts))
            .and_then(|built| freeze(&cell, true).map(|()| built));
        match built {
            Ok((pid, pidfd, net)) => {
                parts.joins.clear();
                trees.pass_on();
                let body = Body {
                    cgroup,
                    net,
                    uid: None,
                    walls: None,
                    bound: false,
                    code: Some(code),
                    layers,
                    container: None,
                    frozen: false,
                    dying: false,
                    oom: parts.oom,
                };
                let forked = Arc::new(LiveCell {
                    id,
                    pidfd,
                    owner: Owner::Server(Arc::clone(&job.session)),
                    body: Some(body).into(),
                    template: None,
                    parent: Some(job.template),
                });
                let added = shared.cells.add(Arc::clone(&forked), place);
                // It has stood still until now.
                let told = self
                    .forker
                    .as_ref()
                    .map_or(Err(io::ErrorKind::NotConnected.into()), |forker| ForkRequest::conclude(forker, added.is_ok()));
                if let Err(error) = added.and(told) {
                    self.forker = None;
                    forked.kill();
                    return Err(Refusal::failed(Step::Fork, &error));
                }
                tracing::debug!(cell = id.0, template = job.template.0, pid, "forked");
                Ok((Made { cell: forked, uid: template.uid, channel: parts.channel, log: parts.log }, parts.usage))
            }
            Err(why) => {
                if let Err(error) = cgroup.remove() {
                    tracing::error!(%error, "cannot remove the cgroup of a cell that was not made");
                }
                Err(why)
            }
        }
    }

    /// Has the template forked, gives the child its network, and looks at it.
    fn build(
        &mut self,
        pidfd: &OwnedFd,
        template: &Template,
        parent: CellId,
        id: CellId,
        parts: &Parts,
    ) -> Result<(i32, OwnedFd, crate::net::NetNs), Refusal> {
        let request = ForkRequest {
            template: template.pid,
            host_uid: template.uid,
            tmp_bytes: UNBOUND_TMP_BYTES,
            cgroups: u32::try_from(parts.joins.len()).expect("a handful of hierarchies"),
            full_proc: self.shared.full_proc,
        };
        let mut descriptors = vec![pidfd.as_fd(), template.control.as_fd(), parts.guest_channel.as_fd(), parts.guest_log.as_fd()];
        descriptors.extend(parts.joins.iter().map(AsFd::as_fd));
        let (pid, child) = self.ask(&request, &descriptors)?;
        let finished = (|| {
            let net = std::fs::File::open(format!("/proc/{pid}/ns/net")).map_err(|error| Refusal::failed(Step::Net, &error))?;
            let net = self.shared.net.adopt(net.into(), template.net).map_err(|error| super::net_failed(&error))?;
            verify(pid, template, parent, id).map_err(|what| {
                tracing::error!(cell = id.0, template = parent.0, what, "a forked cell was found wanting");
                Refusal::Failed { step: Step::Fork, errno: libc::EPERM }
            })?;
            Ok(net)
        })();
        match finished {
            Ok(net) => Ok((pid, child, net)),
            Err(why) => {
                if let Some(forker) = &self.forker
                    && ForkRequest::conclude(forker, false).is_err()
                {
                    self.forker = None;
                }
                Err(why)
            }
        }
    }

    fn ask(&mut self, request: &ForkRequest, descriptors: &[BorrowedFd<'_>]) -> Result<(i32, OwnedFd), Refusal> {
        let forker = match self.forker.take() {
            Some(forker) => forker,
            None => self.start().map_err(|error| Refusal::failed(Step::Spawner, &error))?,
        };
        let forker = self.forker.insert(forker);
        let answered = request.send(&*forker, descriptors).and_then(|()| MakeReply::receive(&*forker));
        match answered {
            Ok((reply, Some(pidfd))) if reply.pid > 0 => Ok((reply.pid, pidfd)),
            Ok((reply, _)) => {
                tracing::warn!(step = %reply.step, errno = reply.errno, "a template could not be forked");
                Err(Refusal::Failed { step: Step::Fork, errno: reply.errno })
            }
            Err(error) => {
                tracing::warn!(%error, "the forker broke");
                self.forker = None;
                Err(Refusal::failed(Step::Spawner, &error))
            }
        }
    }

    fn start(&self) -> io::Result<OwnedFd> {
        let socket = self.shared.start_spawner(SpawnerKind::Forker)?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    }
}

fn freeze(cell: &LiveCell, frozen: bool) -> Result<(), Refusal> {
    let mut body = cell.body();
    let body = body.as_mut().ok_or(Refusal::NoSuchCell)?;
    body.freeze(frozen).map_err(|error| Refusal::failed(Step::Cgroup, &error))
}

/// Trees that are held for a cell on its way.
struct Trees<'a> {
    shared: &'a Shared,
    held: Vec<Digest>,
}

impl<'a> Trees<'a> {
    fn hold(shared: &'a Shared, packages: impl Iterator<Item = Digest>) -> Result<Self, Refusal> {
        let mut trees = Self { shared, held: Vec::new() };
        for (place, package) in (0..).zip(packages) {
            let tree = shared.trees.hold(package).map_err(|error| Refusal::failed(Step::Tree, &error))?;
            tree.ok_or(Refusal::NoSuchTree { place })?;
            trees.held.push(package);
        }
        Ok(trees)
    }

    /// The cell is there, and gives them back itself.
    fn pass_on(mut self) {
        self.held.clear();
    }
}

impl Drop for Trees<'_> {
    fn drop(&mut self) {
        for package in self.held.drain(..) {
            for name in self.shared.trees.release(package) {
                // The next start removes it when the queue is full.
                drop(self.shared.trees_queue.push(TreeJob::Remove { name }));
            }
        }
    }
}

/// Looks at a forked cell before it runs. Says what is missing.
fn verify(pid: i32, template: &Template, parent: CellId, id: CellId) -> Result<(), String> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| format!("{file}: {error}"));
    let uid = template.uid;
    verify_status(&read("status")?, uid)?;
    for map in ["uid_map", "gid_map"] {
        let text = read(map)?;
        if text.split_whitespace().ne(["1000", &uid.to_string(), "1"]) {
            return Err(format!("{map} says '{}'", text.trim()));
        }
    }
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |of: String| std::fs::read_link(format!("/proc/{of}/ns/{name}")).map_err(|error| format!("{name}: {error}"));
        let own = link(pid.to_string())?;
        if own == link(template.pid.to_string())? || own == link("self".into())? {
            return Err(format!("its {name} namespace is not its own"));
        }
    }
    let groups = read("cgroup")?;
    let of = |cell: CellId| groups.lines().filter(|line| line.ends_with(&format!("/c{}", cell.0))).count();
    if of(id) == 0 || of(parent) > 0 {
        return Err("it is not in its cgroups".to_owned());
    }
    Ok(())
}

/// Credentials and filters, as `/proc/<pid>/status` has them.
fn verify_status(status: &str, uid: u32) -> Result<(), String> {
    let ids = format!("{uid} {uid} {uid} {uid}");
    let none = "0000000000000000";
    let wanted = [
        ("Uid:", &*ids),
        ("Gid:", &*ids),
        ("Groups:", ""),
        ("CapInh:", none),
        ("CapPrm:", none),
        ("CapEff:", none),
        ("CapBnd:", none),
        ("CapAmb:", none),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        // The template's, which the child cannot have been without.
        ("Seccomp_filters:", "1"),
    ];
    for (name, value) in wanted {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no line {name}"))?;
        if line.split_whitespace().ne(value.split_whitespace()) {
            return Err(format!("{name} {}", line.trim()));
        }
    }
    Ok(())
}

/// How a process went that is nobody's child here.
pub(super) fn exit_of(pidfd: &OwnedFd) -> crate::Exit {
    // Known once its parent has let go of it, which it does at once unless it is up to no good.
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        match sys::exit_status(pidfd.as_fd()) {
            Ok(Some(status)) if libc::WIFEXITED(status) => return crate::Exit::Code(libc::WEXITSTATUS(status)),
            Ok(Some(status)) if libc::WIFSIGNALED(status) => return crate::Exit::Signal(libc::WTERMSIG(status)),
            Ok(None) => std::thread::sleep(Duration::from_micros(200)),
            // Kernels before 6.15 do not tell.
            Ok(Some(_)) | Err(_) => break,
        }
    }
    crate::Exit::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tpython3\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn every_line_of_the_status_counts() {
        assert_eq!(verify_status(GOOD, 7), Ok(()));
        assert!(verify_status(GOOD, 8).is_err());
        for line in GOOD.lines().skip(1) {
            let (name, value) = line.split_once('\t').unwrap();
            let other = if value.trim().is_empty() { "4" } else { "000001ffffffffff" };
            let changed = GOOD.replace(line, &format!("{name}\t{other}"));
            assert!(verify_status(&changed, 7).is_err(), "{changed}");
            assert!(verify_status(&GOOD.replace(line, ""), 7).is_err(), "{name}");
        }
    }
}
