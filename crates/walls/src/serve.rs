//! The loop of a spawner or zygote.
//!
//! One thread, one request at a time: receive, clone, answer. The child builds its walls while the loop already waits
//! for the next request, so a slow or failing child holds nobody up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::build;
use crate::limit::{limit_namespace, limit_namespace_of};
use crate::protocol::{CellKind, Descriptors, MakeReply, MakeRequest, Step, Wall, Without};
use crate::seccomp;
use crate::sys::{self, AtFork, Cloned};

/// Returned inside a child, once all its walls stand: 0 is `/dev/null`, 1 and 2 the log pipe, 3 the channel, and 4
/// the extra descriptor when the request had one. No other descriptor is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// What the caller is to become now.
    pub kind: CellKind,
}

/// Serves requests from `socket` until the supervisor closes it, then exits the process. Returns in each child only.
///
/// The caller is a direct child of the supervisor with one thread, already in its prepared root
/// ([`crate::prepare_root`]). `host_proc` is a descriptor of the host's `/proc`.
///
/// A child dies with the thread of the supervisor that started the caller: that thread has to live as long as the
/// supervisor.
pub fn serve(socket: OwnedFd, host_proc: OwnedFd) -> Child {
    serve_with(socket, host_proc, AtFork::NOTHING)
}

/// [`serve`] in a process whose language runtime wants to know about forks.
pub(crate) fn serve_with(socket: OwnedFd, host_proc: OwnedFd, at_fork: AtFork) -> Child {
    let mut spawner = match Spawner::new(host_proc) {
        Ok(spawner) => spawner,
        Err(error) => refuse_all(&socket, &error),
    };
    loop {
        let (request, descriptors) = match MakeRequest::receive(&socket) {
            Ok(Some(received)) => received,
            Ok(None) => sys::exit_now(0),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                answer(&socket, Err((Step::Request, error)));
                continue;
            }
            Err(_) => sys::exit_now(1),
        };
        if request.kind == CellKind::Template
            && let Err(error) = spawner.prepare_template()
        {
            answer(&socket, Err((Step::NamespaceLimit, error)));
            continue;
        }
        at_fork.before();
        match sys::clone_child(clone_flags(request.without)) {
            Ok(Cloned::Child) => {
                at_fork.in_child();
                return become_child(spawner, &request, descriptors, socket);
            }
            Ok(Cloned::Parent { pid, pidfd }) => {
                at_fork.in_parent();
                answer(&socket, Ok((pid, pidfd)));
            }
            Err(error) => {
                at_fork.in_parent();
                answer(&socket, Err((Step::Clone, error)));
            }
        }
    }
}

/// In a child: its channel, as a further descriptor of the same socket.
pub fn channel() -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(sys::channel(), 0)?)
}

/// In a child: its extra descriptor, as a further descriptor of the same file.
pub fn extra() -> io::Result<OwnedFd> {
    sys::duplicate(sys::EXTRA)
}

/// What every child needs and is made once.
pub(crate) struct Spawner {
    pub(crate) host_proc: OwnedFd,
    pub(crate) limit: OwnedFd,
    pub(crate) filter: Vec<libc::sock_filter>,
    /// Made when the first template is asked for.
    pub(crate) template: Option<TemplateWalls>,
}

/// What is different about a template's walls.
pub(crate) struct TemplateWalls {
    /// A namespace limit of its own, because each of its children has a user namespace below it.
    pub(crate) limit: OwnedFd,
    pub(crate) filter: Vec<libc::sock_filter>,
}

/// Children of one template at a time.
const FORKS_MAX: u32 = 512;

impl Spawner {
    fn new(host_proc: OwnedFd) -> io::Result<Spawner> {
        let limit = limit_namespace(host_proc.as_fd())?;
        Ok(Spawner { limit, host_proc, filter: seccomp::program(), template: None })
    }

    fn prepare_template(&mut self) -> io::Result<()> {
        if self.template.is_none() {
            let limit = limit_namespace_of(self.host_proc.as_fd(), 1 + FORKS_MAX)?;
            self.template = Some(TemplateWalls { limit, filter: seccomp::template_program() });
        }
        Ok(())
    }

    /// Where a child of this kind enters, and its filter.
    pub(crate) fn bounds(&self, kind: CellKind) -> (&OwnedFd, &[libc::sock_filter]) {
        match &self.template {
            Some(walls) if kind == CellKind::Template => (&walls.limit, &walls.filter),
            _ => (&self.limit, &self.filter),
        }
    }
}

fn become_child(spawner: Spawner, request: &MakeRequest, descriptors: Descriptors, socket: OwnedFd) -> Child {
    let kind = request.kind;
    if let Err((step, error)) = build::walls(&spawner, request, &descriptors) {
        build::report(&descriptors, step, &error);
        sys::exit_now(1);
    }
    if !request.without.keeps(Wall::Descriptors) {
        // The end of one of them tells the supervisor that the walls stand, whatever else stays open.
        descriptors.close_above(sys::EXTRA);
    } else {
        std::mem::forget(descriptors);
    }
    // These were closed by number, all at once; closing them again could hit a successor.
    std::mem::forget((spawner.host_proc, spawner.limit, spawner.template, socket));
    Child { kind }
}

fn clone_flags(without: Without) -> libc::c_int {
    let optional = [(Wall::PidNamespace, libc::CLONE_NEWPID), (Wall::Ipc, libc::CLONE_NEWIPC), (Wall::Uts, libc::CLONE_NEWUTS)];
    optional.into_iter().filter(|(wall, _)| without.keeps(*wall)).fold(libc::CLONE_NEWNS, |flags, (_, flag)| flags | flag)
}

fn answer(socket: &OwnedFd, outcome: Result<(i32, OwnedFd), (Step, io::Error)>) {
    let sent = match outcome {
        Ok((pid, pidfd)) => MakeReply { pid, errno: 0, step: Step::None }.send(socket, Some(pidfd.as_fd())),
        Err((step, error)) => MakeReply { pid: 0, errno: errno(&error), step }.send(socket, None),
    };
    if sent.is_err() {
        // Nobody is left to serve.
        sys::exit_now(1);
    }
}

/// A spawner that cannot serve says why to whoever asks, so that the reason reaches the operator.
fn refuse_all(socket: &OwnedFd, error: &io::Error) -> ! {
    while let Ok(Some(_)) = MakeRequest::receive(socket) {
        let reply = MakeReply { pid: 0, errno: errno(error), step: Step::NamespaceLimit };
        if reply.send(socket, None).is_err() {
            break;
        }
    }
    sys::exit_now(1)
}

/// The error number, or EIO for an error that has none.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
