//! What an interpreter says about itself.
//!
//! It is started with an empty environment, its answer is bounded in bytes and in time, and whatever it has started is
//! killed with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use dunlin_model::{InterpreterVersion, Language};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

/// The most that is read of an answer.
const ANSWER_MAX: u64 = 4096;

/// Says its version, then tries what the zygote needs and a build without its libraries lacks.
const PYTHON: &str = "import sys
sys.stdout.write('Python %d.%d.%d\\n' % sys.version_info[:3])
if sys.version_info >= (3, 8):
    import _ctypes, _ssl
";

/// The version of the interpreter `program`, installed in `home`. On failure a sentence to be read after its name.
pub(super) fn version(language: Language, program: &Path, home: &Path, deadline: Instant) -> Result<InterpreterVersion, String> {
    // A Java writes it down, which saves starting one.
    if language == Language::Java
        && let Some(version) = java_release(&home.join("release"))
    {
        return Ok(version);
    }
    let arguments: &[&str] = match language {
        Language::Python => &["-S", "-c", PYTHON],
        Language::Java => &["-version"],
        // Its own version is that of its tools, which it need not have.
        Language::Dotnet => &["--list-runtimes"],
        _ => &["--version"],
    };
    let (status, said, complaint) = answer(program, arguments, deadline)?;
    let all = format!("{said}\n{complaint}");
    let version = if language == Language::Dotnet { dotnet_runtime(&all) } else { version_in(language, &all) };
    if !status.success() {
        let why = complaint.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
        return Err(format!("does not work: {} ({status})", shortened(why)));
    }
    version.ok_or_else(|| format!("said '{}' when asked for its version", shortened(all.trim())))
}

fn version_in(language: Language, said: &str) -> Option<InterpreterVersion> {
    let mark = match language {
        Language::Python => "Python ",
        Language::Node => "v",
        Language::Java => " version \"",
        _ => "PHP ",
    };
    let line = said.lines().find(|line| line.contains(mark))?;
    let (before, version) = line.split_once(mark)?;
    // Only a Java has its name in front.
    if language != Language::Java && !before.is_empty() { None } else { java_8(InterpreterVersion::parse(version)?, language) }
}

/// Of the runtimes that a .NET lists, the one that serves functions: it takes the oldest that is new enough, in the newest
/// of its patches. Of those that are too old the newest.
fn dotnet_runtime(said: &str) -> Option<InterpreterVersion> {
    let listed = said.lines().filter_map(|line| InterpreterVersion::parse(line.strip_prefix("Microsoft.NETCore.App ")?));
    let (enough, old): (Vec<InterpreterVersion>, Vec<InterpreterVersion>) =
        listed.partition(|version| *version >= super::oldest(Language::Dotnet));
    let lines = |version: &InterpreterVersion| (version.major, version.minor);
    let least = enough.iter().map(lines).min();
    enough.iter().filter(|version| Some(lines(version)) == least).max().or(old.iter().max()).copied()
}

/// Java 8 and older count from 1.
fn java_8(version: InterpreterVersion, language: Language) -> Option<InterpreterVersion> {
    match version {
        InterpreterVersion { major: 1, minor, patch } if language == Language::Java => {
            Some(InterpreterVersion::new(minor, 0, patch))
        }
        version => Some(version),
    }
}

fn java_release(path: &Path) -> Option<InterpreterVersion> {
    let mut text = String::new();
    File::open(path).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
    let version = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    java_8(InterpreterVersion::parse(version)?, Language::Java)
}

/// Runs the program to its end. Answers how it ended and what it said on stdout and stderr.
fn answer(program: &Path, arguments: &[&str], deadline: Instant) -> Result<(ExitStatus, String, String), String> {
    let started = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/nonexistent")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|error| format!("cannot be started: {error}"))?;
    let ended = wait(&child, deadline);
    // Before it is reaped its number is nobody else's.
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    match ended {
        Ok(true) => {}
        Ok(false) => return Err("did not say its version in time".to_owned()),
        Err(error) => return Err(format!("cannot be waited for: {error}")),
    }
    let said = child.stdout.take().map(OwnedFd::from).map_or_else(String::new, said);
    let complaint = child.stderr.take().map(OwnedFd::from).map_or_else(String::new, self::said);
    Ok((status, said, complaint))
}

/// Waits for the end of `child`; false when the deadline came first.
fn wait(child: &Child, deadline: Instant) -> io::Result<bool> {
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is in the pipe. Somebody may still hold its other end, so this does not wait for the end of it.
fn said(pipe: OwnedFd) -> String {
    let mut bytes = Vec::new();
    if rustix::fs::fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK).is_ok() {
        // What was read until then is kept.
        let _ = File::from(pipe).take(ANSWER_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect();
    line.trim().to_owned()
}
