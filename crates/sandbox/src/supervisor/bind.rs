//! Everything that changes a cell that is there: code, limits, CPU, freezing, sockets.
//!
//! A binding thread has a file system root of its own (`unshare(CLONE_FS)`), so that it can step into a cell's mount
//! namespace and back while the others run. It resolves a few paths in there, such as `/code` and `/w/tmp`, in a root
//! that nobody inside can write.
//!
//! Binding is what a first call waits for, so the thread that reads a request to bind carries it out itself. What would
//! have to wait, or is in no such hurry, goes to the threads `bind`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{CellId, Digest};
use dunlin_walls::Wall;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::Shared;
use super::cells::{Body, LiveCell};
use super::image::Image;
use super::layers::Layers;
use super::session::Session;
use crate::net::LinkOpener;
use crate::protocol::{Message, Refusal};
use crate::{Bind, Step, sys};

/// How long the walls of a cell may take to stand before a bind gives up on it.
const WALLS_PATIENCE: Duration = Duration::from_secs(10);

/// How many files fit into what a cell writes, if it may write so many bytes: one for each four pages, and never fewer than a
/// few thousand.
pub(super) fn inodes(bytes: u64) -> u64 {
    (bytes / (16 * 1024)).max(4096)
}

/// A change to one cell.
pub(super) struct BindJob {
    pub(super) session: Arc<Session>,
    pub(super) id: u64,
    pub(super) cell: CellId,
    pub(super) change: Change,
}

/// What is to change.
pub(super) enum Change {
    Bind(Bind),
    Cpu(u32),
    Socket,
    Freeze(bool),
}

/// A thread `bind`: changes cells until the queue is closed.
pub(super) fn run(shared: &Shared) -> io::Result<()> {
    let mut binder = Binder::open(shared)?;
    while let Some(job) = shared.binds.wait() {
        binder.perform(shared, &job);
    }
    Ok(())
}

/// What a thread binds cells with.
pub(super) struct Binder {
    doorway: Doorway,
    links: LinkOpener,
}

impl Binder {
    /// For the calling thread, which is in the host's net namespace.
    pub(super) fn open(shared: &Shared) -> io::Result<Self> {
        let links = shared.net.opener().map_err(io::Error::other)?;
        Ok(Self { doorway: Doorway::open()?, links })
    }

    /// Changes a cell and answers whoever asked.
    pub(super) fn perform(&mut self, shared: &Shared, job: &BindJob) {
        match self.change(shared, job) {
            Ok(None) => job.session.say(&Message::Done { id: job.id }, &[]),
            Ok(Some(socket)) => job.session.say(&Message::Socket { id: job.id }, &[socket.as_fd()]),
            Err(why) => job.session.refuse(job.id, why),
        }
    }

    fn change(&mut self, shared: &Shared, job: &BindJob) -> Result<Option<OwnedFd>, Refusal> {
        let cell = shared.cells.get(job.cell).ok_or(Refusal::NoSuchCell)?;
        change(shared, self, &cell, &job.change)
    }
}

/// Whether binding the cell would have to wait for its walls.
pub(super) fn would_wait(shared: &Shared, cell: CellId) -> bool {
    let Some(cell) = shared.cells.get(cell) else { return false };
    matches!(look_at_walls(&cell, Duration::ZERO), Err(error) if error.kind() == io::ErrorKind::TimedOut)
}

fn change(shared: &Shared, binder: &mut Binder, cell: &LiveCell, change: &Change) -> Result<Option<OwnedFd>, Refusal> {
    match change {
        Change::Bind(bind) => bind_cell(shared, binder, cell, bind).map(|()| None),
        Change::Cpu(millis) => {
            let body = cell.body();
            let body = body.as_ref().ok_or(Refusal::NoSuchCell)?;
            let millis = (*millis > 0).then(|| (*millis).clamp(shared.grants.cpu_millis_min, shared.grants.cpu_millis));
            body.cgroup.set_cpu(millis).map_err(|error| Refusal::failed(Step::Cgroup, &error))?;
            Ok(None)
        }
        Change::Socket => {
            let body = cell.body();
            let body = body.as_ref().ok_or(Refusal::NoSuchCell)?;
            body.net.socket().map(Some).map_err(|error| super::net_failed(&error))
        }
        Change::Freeze(frozen) => {
            let mut body = cell.body();
            let body = body.as_mut().filter(|body| !body.dying).ok_or(Refusal::NoSuchCell)?;
            body.freeze(*frozen).map_err(|error| Refusal::failed(Step::Cgroup, &error))?;
            Ok(None)
        }
    }
}

fn bind_cell(shared: &Shared, binder: &mut Binder, cell: &LiveCell, bind: &Bind) -> Result<(), Refusal> {
    wait_for_walls(cell).map_err(|error| Refusal::failed(Step::Spawner, &error))?;
    let mut guard = cell.body();
    let body = guard.as_mut().ok_or(Refusal::NoSuchCell)?;
    if body.bound {
        return Err(Refusal::AlreadyBound);
    }
    body.bound = true;
    let bind = shared.grants.clamp(bind);
    let code = match bind.code {
        // A container without an image would run in the root of all cells.
        None if body.container.is_some() => return Err(Refusal::NoSuchTree { place: 0 }),
        None => None,
        // A forked cell has its template's mounts, and can have no others.
        Some(package) if cell.parent.is_some() && body.code == Some(package) && body.layers == bind.layers => None,
        _ if cell.parent.is_some() => return Err(Refusal::NoSuchTree { place: 0 }),
        Some(package) => {
            // Held from here on, so that the tree's files stay until the cell has ended.
            let tree = shared.trees.hold(package).map_err(|error| Refusal::failed(Step::Tree, &error))?;
            let tree = tree.ok_or(Refusal::NoSuchTree { place: 0 })?;
            body.code = Some(package);
            Some(match body.container {
                None => Code::Package(detach(&tree, false).map_err(|error| Refusal::failed(Step::Tree, &error))?),
                Some(container) => {
                    let image = Image::prepare(&tree, &cell.pidfd, container, bind.tmp_bytes);
                    Code::Image(image.map_err(|error| Refusal::failed(Step::Image, &error))?)
                }
            })
        }
    };
    let layers = if cell.parent.is_some() { None } else { layers(shared, body, &bind.layers)? };
    limit(body, &bind).map_err(|error| Refusal::failed(Step::Cgroup, &error))?;
    let step = if body.container.is_some() { Step::Image } else { Step::Mount };
    binder
        .doorway
        .inside(&cell.pidfd, || {
            match &code {
                None => {}
                Some(Code::Package(code)) => attach(code, c"/code")?,
                // With the size of what it may write.
                Some(Code::Image(image)) => return image.enter(),
            }
            if let Some(layers) = &layers {
                layers.attach()?;
            }
            if shared.without.keeps(Wall::TmpSize) { resize_tmp(bind.tmp_bytes) } else { Ok(()) }
        })
        .map_err(|error| Refusal::failed(step, &error))?;
    binder.links.open(&body.net).map_err(|error| super::net_failed(&error))
}

/// Mounts of a function's code.
enum Code {
    Package(OwnedFd),
    Image(Image),
}

/// Mounts of the layers. Like the code's tree, theirs are held until the cell has ended.
fn layers<'a>(shared: &'a Shared, body: &mut Body, layers: &[Digest]) -> Result<Option<Layers<'a>>, Refusal> {
    let mut trees = Vec::new();
    for (place, layer) in (1..).zip(layers) {
        let tree = shared.trees.hold(*layer).map_err(|error| Refusal::failed(Step::Tree, &error))?;
        trees.push(tree.ok_or(Refusal::NoSuchTree { place })?);
        body.layers.push(*layer);
    }
    shared.opt.show(&trees).map_err(|error| Refusal::failed(Step::Layers, &error))
}

fn limit(body: &Body, bind: &Bind) -> io::Result<()> {
    body.cgroup.set_limits(bind.memory_bytes, bind.pids)
}

/// Waits until the cell has made its last mount, or has died on the way.
pub(super) fn wait_for_walls(cell: &LiveCell) -> io::Result<()> {
    look_at_walls(cell, WALLS_PATIENCE)
}

/// The same with another patience. `TimedOut` when the walls do not stand by then.
fn look_at_walls(cell: &LiveCell, patience: Duration) -> io::Result<()> {
    let Some(walls) = cell.body().as_ref().and_then(|body| body.walls.clone()) else { return Ok(()) };
    let patience = Timespec::try_from(patience).expect("a few seconds fit");
    // The cell writes into it what it writes to join a cgroup; the end, which is told unasked, is what counts.
    let mut polled = [PollFd::new(&walls, PollFlags::empty())];
    if rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&patience)))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(body) = cell.body().as_mut() {
        body.walls = None;
    }
    Ok(())
}

/// A copy of the mount at `tree`, attached nowhere, that gives nobody inside any rights.
pub(super) fn detach(tree: impl AsFd, writable: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(tree, c"", flags)?;
    sys::restrict_mount(&mount, writable)?;
    Ok(mount)
}

/// Mounts a detached mount where the calling thread stands.
pub(super) fn attach(mount: impl AsFd, target: &std::ffi::CStr) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn resize_tmp(bytes: u64) -> io::Result<()> {
    let tmp = rustix::mount::fspick(CWD, c"/w/tmp", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW)?;
    rustix::mount::fsconfig_set_string(&tmp, c"size", bytes.to_string())?;
    rustix::mount::fsconfig_set_string(&tmp, c"nr_inodes", inodes(bytes).to_string())?;
    Ok(rustix::mount::fsconfig_reconfigure(&tmp)?)
}

/// Lets one thread step into cells and back.
pub(super) struct Doorway {
    home: OwnedFd,
}

impl Doorway {
    /// Gives the calling thread a root of its own, and remembers where it belongs.
    pub(super) fn open() -> io::Result<Self> {
        sys::unshare_fs()?;
        let home = std::fs::File::open("/proc/thread-self/ns/mnt")?;
        Ok(Self { home: home.into() })
    }

    /// Runs `work` inside the mount namespace of a process.
    pub(super) fn inside<T>(&self, process: impl AsFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT)?;
        let _home = Return(self.home.as_fd());
        work()
    }
}

/// Steps back when dropped.
struct Return<'a>(BorrowedFd<'a>);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        let back = rustix::thread::move_into_link_name_space(self.0, Some(LinkNameSpaceType::Mount));
        if let Err(error) = back {
            // A thread that stays inside a cell would resolve every later path there.
            tracing::error!(%error, "cannot leave a cell");
            std::process::abort();
        }
    }
}
