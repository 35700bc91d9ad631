//! The spawner and zygote of the tests: what the platform's supervisor starts, without the platform.
//!
//! Standard input is the socket to the supervisor. `spawner MOUNT_POINT ASSETS` serves launcher cells;
//! `spawner MOUNT_POINT ASSETS zygote many|few` becomes the Python zygote found in the assets, and `… forker` forks its
//! templates.

#![expect(clippy::print_stdout, reason = "its standard output is the log that the test reads")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use dunlin_walls::{CellKind, RootSpec, launcher, prepare_root, serve};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = || arguments.next().expect("MOUNT_POINT ASSETS");
    let spec = RootSpec { mount_point: next(), assets: next(), read_only: Vec::new(), links: Vec::new() };
    let role = arguments.next();
    let imports = arguments.next();

    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 10).expect("stdin is the socket");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host_proc = rustix::fs::open("/proc", flags, Mode::empty()).expect("/proc is there");
    if let Err(error) = prepare_root(&spec) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        panic!("{text}");
    }
    if role.as_deref() == Some("forker".as_ref()) {
        dunlin_walls::forker::serve(socket, host_proc)
    }
    if let Some(imports) = imports {
        for descriptor in [socket.as_fd(), host_proc.as_fd()] {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).expect("the flags can be set");
        }
        let error = Command::new("/usr/bin/python3")
            .args(["-I", "-S", "/rt/python/zygote.py"])
            .args([socket.as_raw_fd().to_string(), host_proc.as_raw_fd().to_string()])
            .arg(imports)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .exec();
        panic!("python: {error}");
    }
    match serve(socket, host_proc).kind {
        CellKind::Launcher => launcher::run(),
        CellKind::Unpacker => unpack(),
        CellKind::Python | CellKind::Template => unreachable!("a spawner is not asked for a fork of Python"),
        CellKind::Wasm => unreachable!("nothing here hosts programs"),
        CellKind::Container | CellKind::ImageUnpacker => unreachable!("nothing here has images"),
    }
}

/// Stands in for the unpacker: copies its descriptor 4 to its output.
fn unpack() -> ! {
    use std::io::Read as _;
    let copy = || -> std::io::Result<()> {
        let mut package = Vec::new();
        std::fs::File::from(dunlin_walls::serve::extra()?).read_to_end(&mut package)?;
        std::fs::write("/w/tmp/copy", &package)?;
        println!("{}", String::from_utf8_lossy(&package));
        Ok(())
    };
    let outcome = copy();
    if let Err(error) = &outcome {
        println!("{error}");
    }
    std::process::exit(i32::from(outcome.is_err()))
}
