//! The guest's root file system.
//!
//! A spawner or zygote moves into it once, before it serves; its children inherit a copy with their mount namespace.
//! The root is a small tmpfs with mount points, links, a handful of files and the bootstraps; the host's `/usr` and a few
//! directories of `/etc` are shown in it. All of it is read-only.
//!
//! # Invariants
//! - What is not listed here does not exist for a guest: no `/sys`, no cgroup file system, none of the host's `/run`,
//!   `/var`, `/home` or `/root`.
//! - Whatever a child mounts later goes to a place that already exists: `/code`, `/opt`, `/w/tmp`, `/w/shm`, `/w/out`,
//!   `/proc`. `/tmp` and `/dev/shm` are links, because landlock's rule has to sit on the parent (`landlock`).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::build::{GUEST_ID, HOST_NAME};
use crate::sys;

/// Where a guest's resolver listens, inside its own net namespace.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// What the root is built from.
#[derive(Clone, Debug)]
pub struct RootSpec {
    /// An empty directory of the host that the new root is mounted on while it is built. It stays empty.
    pub mount_point: PathBuf,
    /// The directory whose files are copied to `/rt`: the runtimes' bootstraps.
    pub assets: PathBuf,
    /// Further directories of the host, shown read-only under the same path (interpreters outside `/usr`).
    pub read_only: Vec<PathBuf>,
    /// Further links, by their path below the root: where guests look for things that are elsewhere.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Why the root could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A step failed.
    #[error("cannot {step} {}", path.display())]
    Step {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The host keeps programs or libraries outside `/usr`.
    #[error("{} is not a link into /usr: this distribution is not usr-merged", path.display())]
    NotMerged {
        /// The directory in question.
        path: PathBuf,
    },
    /// A further directory is not an absolute, plain path.
    #[error("cannot show {} to guests: not an absolute path without `..`", path.display())]
    BadPath {
        /// The path in question.
        path: PathBuf,
    },
    /// The bootstraps contain something that is neither a directory nor a file.
    #[error("{} is neither a directory nor a file", path.display())]
    BadAsset {
        /// The path in question.
        path: PathBuf,
    },
}

/// Who owns everything that is not the guest's, as the guest sees it.
const NOBODY: u32 = 65_534;

/// Directories that exist in every root, parents first. `code/lib` and `opt/lib` are where the linker looks for libraries of
/// the user's: a process that starts before code and layers are mounted would take them for absent ever after.
const DIRECTORIES: [&str; 19] = [
    "usr", "etc", "etc/ssl", "dev", "proc", "code", "code/lib", "opt", "opt/lib", "rt", "home", "root", "run", "var", "var/lib",
    "w", "w/tmp", "w/shm", "w/out",
];

/// Links into `/usr` that a merged host has. `lib64` exists on some only.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Directories of the host's `/etc` shown as they are, where present. Certificates, not private keys; where fonts are, and
/// how a browser is started.
const ETC_SHOWN: [&str; 7] = [
    "etc/ssl/certs",
    "etc/alternatives",
    "etc/chromium.d",
    "etc/fonts",
    "etc/pki/ca-trust/extracted",
    "etc/pki/tls/certs",
    "etc/crypto-policies/back-ends",
];

/// Files of the host's `/etc` copied, where present.
const ETC_COPIED: [&str; 6] =
    ["etc/ld.so.cache", "etc/localtime", "etc/mime.types", "etc/ssl/openssl.cnf", "etc/pki/tls/openssl.cnf", "etc/services"];

/// The largest file worth copying into the root's small tmpfs.
const COPIED_MAX: u64 = 1 << 20;

const DEVICES: [(&str, u32); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

/// Moves the calling process into a new mount namespace whose root is a guest's. Needs root and a single thread.
///
/// On failure the process is left in between and must exit; the host's mounts are untouched either way.
pub fn prepare_root(spec: &RootSpec) -> Result<(), RootError> {
    for link in MERGED {
        refuse_unmerged(&Path::new("/").join(link))?;
    }
    sys::unshare(libc::CLONE_NEWNS).map_err(failed("leave the mount namespace of", "/"))?;
    let everything_private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", everything_private).map_err(failed("make private", "/"))?;

    let root = spec.mount_point.as_path();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", root, "tmpfs", flags, Some(c"size=32m,nr_inodes=4096,mode=755"))
        .map_err(failed("mount a tmpfs on", root))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));

    skeleton(root)?;
    etc(root)?;
    show(Path::new("/usr"), &root.join("usr"))?;
    copy_tree(&spec.assets, &root.join("rt"))?;
    for path in &spec.read_only {
        show_elsewhere(path, root)?;
    }
    for (path, target) in &spec.links {
        link_elsewhere(path, target, root)?;
    }
    dev(&root.join("dev"))?;

    let mount = rustix::fs::open(root, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", root))?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_attributes(mount.as_fd(), read_only, false).map_err(failed("make read-only", root))?;
    pivot(root)
}

fn refuse_unmerged(path: &Path) -> Result<(), RootError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Ok(()),
        Ok(_) => Err(RootError::NotMerged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

fn skeleton(root: &Path) -> Result<(), RootError> {
    for directory in DIRECTORIES {
        make_directory(&root.join(directory))?;
    }
    for name in MERGED {
        link(&format!("usr/{name}"), &root.join(name))?;
    }
    link("w/tmp", &root.join("tmp"))?;
    link("/w/tmp", &root.join("var/tmp"))?;
    link("/run", &root.join("var/run"))
}

fn etc(root: &Path) -> Result<(), RootError> {
    let written = [
        (
            "passwd",
            format!(
                "root:x:0:0::/:/usr/sbin/nologin\nnobody:x:{NOBODY}:{NOBODY}::/:/usr/sbin/nologin\n\
                 {HOST_NAME}:x:{GUEST_ID}:{GUEST_ID}::/tmp:/bin/sh\n"
            ),
        ),
        ("group", format!("root:x:0:\nnogroup:x:{NOBODY}:\n{HOST_NAME}:x:{GUEST_ID}:\n")),
        ("hosts", format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost ip6-loopback\n")),
        ("hostname", format!("{HOST_NAME}\n")),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ("resolv.conf", format!("nameserver {DNS_ADDRESS}\noptions timeout:2 attempts:2\n")),
    ];
    for (name, text) in written {
        write(&root.join("etc").join(name), text.as_bytes())?;
    }
    for name in ETC_COPIED {
        let source = Path::new("/").join(name);
        let Ok(found) = fs::metadata(&source) else { continue };
        if found.is_file() && found.len() <= COPIED_MAX {
            let bytes = fs::read(&source).map_err(failed("read", &source))?;
            make_parents(&root.join(name))?;
            write(&root.join(name), &bytes)?;
        }
    }
    for name in ETC_SHOWN.map(str::to_owned).into_iter().chain(of_versions()) {
        let (source, target) = (Path::new("/").join(&name), root.join(&name));
        if source.is_dir() {
            make_parents(&target)?;
            make_directory(&target)?;
            show(&source, &target)?;
        }
    }
    Ok(())
}

/// More of these, which Debian has one of for each version of an interpreter: the settings of Javas, to which their
/// directories link, and which extensions a PHP has, as links from one of its directories to the other.
fn of_versions() -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let javas = names("/etc").into_iter().filter(|name| name.starts_with("java-") && name.ends_with("-openjdk"));
    let phps =
        names("/etc/php").into_iter().flat_map(|version| ["cli", "mods-available"].map(|part| format!("php/{version}/{part}")));
    javas.chain(phps).map(|name| format!("etc/{name}")).collect()
}

fn dev(path: &Path) -> Result<(), RootError> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(c"size=64k,nr_inodes=64,mode=755"))
        .map_err(failed("mount a tmpfs on", path))?;
    rustix::process::umask(Mode::empty());
    for (name, minor) in DEVICES {
        let node = path.join(name);
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, minor))
            .map_err(failed("make the device", &node))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (name, target) in [
        ("shm", "/w/shm"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        link(target, &path.join(name))?;
    }
    rustix::mount::mount_remount(path, flags | MountFlags::BIND | MountFlags::RDONLY, "").map_err(failed("make read-only", path))
}

/// Copies a small tree. A mount would show guests where it lies on the host, and would change with it.
fn copy_tree(source: &Path, target: &Path) -> Result<(), RootError> {
    for entry in fs::read_dir(source).map_err(failed("list", source))? {
        let entry = entry.map_err(failed("list", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("look at", &from))?;
        if kind.is_dir() {
            make_directory(&to)?;
            copy_tree(&from, &to)?;
        } else if kind.is_file() {
            write(&to, &fs::read(&from).map_err(failed("read", &from))?)?;
        } else {
            return Err(RootError::BadAsset { path: from });
        }
    }
    Ok(())
}

/// Shows a directory of the host, with what is mounted below it, read-only and without devices or set-uid programs.
fn show(source: &Path, target: &Path) -> Result<(), RootError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags).map_err(failed("copy the mount of", source))?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::set_attributes(tree.as_fd(), attributes, true).map_err(failed("make read-only", source))?;
    rustix::mount::move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed("mount on", target))
}

/// Shows `path` under the same path in the new root.
fn show_elsewhere(path: &Path, root: &Path) -> Result<(), RootError> {
    use std::path::Component;
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let (true, Ok(relative)) = (plain, path.strip_prefix("/")) else {
        return Err(RootError::BadPath { path: path.to_owned() });
    };
    if path.starts_with("/usr") || relative.as_os_str().is_empty() {
        return Err(RootError::BadPath { path: path.to_owned() });
    }
    let target = root.join(relative);
    make_parents(&target)?;
    make_directory(&target)?;
    show(path, &target)
}

/// Makes the link `path` below `root`, with its parents.
fn link_elsewhere(path: &Path, target: &Path, root: &Path) -> Result<(), RootError> {
    use std::path::Component;
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(RootError::BadPath { path: path.to_owned() });
    }
    let path = root.join(path);
    make_parents(&path)?;
    symlink(target, &path).map_err(failed("make the link", path))
}

/// Makes `root` the root and lets go of the old one.
fn pivot(root: &Path) -> Result<(), RootError> {
    rustix::process::chdir(root).map_err(failed("enter", root))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot into", root))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("let go of the root above", root))?;
    rustix::process::chdir("/").map_err(failed("enter", "/"))
}

fn failed<E: Into<io::Error>>(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> RootError {
    let path = path.into();
    move |error| RootError::Step { step, path, source: error.into() }
}

fn make_directory(path: &Path) -> Result<(), RootError> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("make the directory", path)(error)),
        _ => Ok(()),
    }
}

fn make_parents(path: &Path) -> Result<(), RootError> {
    let parent = path.parent().expect("paths below the root have a parent");
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed("make the directory", parent))
}

fn link(target: &str, path: &Path) -> Result<(), RootError> {
    symlink(target, path).map_err(failed("make the link", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RootError> {
    use std::io::Write as _;
    let write = || fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?.write_all(bytes);
    write().map_err(failed("write", path))
}
