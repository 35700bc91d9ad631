//! Stands in for launcher, zygote and walls: starts the real program with the cell's channel on descriptor 3, and
//! rewrites the one path that a mount would have put in its place.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use dunlin_model::CellId;
use dunlin_sandbox::testing::{Fake, Inside};
use dunlin_sandbox::{Ended, Exit};

use crate::case::{Language, assets, runtimes};

/// Kills its process when the case is over.
pub(crate) struct Process(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pid: Option<i32>,
    over: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        state.over = true;
        if let Some(pid) = state.pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

pub(crate) fn start(language: Language, inside: Inside, code: PathBuf, fake: Fake) -> Process {
    let state = Arc::new(Mutex::new(State::default()));
    let shared = state.clone();
    std::thread::spawn(move || {
        // When the channel breaks, the case is over.
        let _ = serve(language, inside, &code, &fake, &shared);
    });
    Process(state)
}

fn serve(language: Language, inside: Inside, code: &Path, fake: &Fake, state: &Arc<Mutex<State>>) -> std::io::Result<()> {
    let Inside { id, mut channel, log, .. } = inside;
    let mut command = match language {
        Language::Python => {
            let mut command = Command::new("python3");
            command.args(["-I", "-S"]).arg(runtimes().join("python/bootstrap.py")).env_clear().env("PATH", env!("PATH"));
            command
        }
        _ => match launched(&mut channel, code)? {
            Some(command) => command,
            None => {
                fake.die(id, Ended { exit: Exit::Code(127), out_of_memory: false, cpu_us: 0 });
                return Ok(());
            }
        },
    };
    let output = || std::io::Result::Ok(Stdio::from(OwnedFd::from(log.try_clone()?)));
    if matches!(language, Language::Go | Language::Provided | Language::Custom) {
        spawn(command.stdin(Stdio::null()).stdout(output()?).stderr(output()?), id, fake, state)?;
        // The program has no channel: end of file tells the host that it was started.
        drop(command);
        return channel.shutdown(Shutdown::Both);
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", r#"exec "$@" 3<&0 0</dev/null"#, "sh"]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.stdin(Stdio::from(OwnedFd::from(theirs)));
    wrapped.stdout(output()?).stderr(output()?);
    spawn(&mut wrapped, id, fake, state)?;
    drop((wrapped, log));
    relay(channel, ours, code)
}

fn spawn(command: &mut Command, id: CellId, fake: &Fake, state: &Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut child: Child = command.spawn()?;
    {
        let mut state = state.lock().unwrap();
        state.pid = i32::try_from(child.id()).ok();
        if state.over {
            child.kill()?;
        }
    }
    let (fake, state) = (fake.clone(), state.clone());
    std::thread::spawn(move || {
        let status = child.wait().expect("our own child");
        state.lock().unwrap().pid = None;
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        };
        fake.die(id, Ended { exit, out_of_memory: false, cpu_us: 0 });
    });
    Ok(())
}

fn read_frame(channel: &mut UnixStream) -> std::io::Result<([u8; 32], Vec<u8>, Vec<u8>)> {
    let mut header = [0; 32];
    channel.read_exact(&mut header)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let (mut head, mut body) = (vec![0; number(8)], vec![0; number(12)]);
    channel.read_exact(&mut head)?;
    channel.read_exact(&mut body)?;
    Ok((header, head, body))
}

/// What the launcher does with `Exec`: the command it would become, or a report to the host.
fn launched(channel: &mut UnixStream, code: &Path) -> std::io::Result<Option<Command>> {
    let (header, head, body) = read_frame(channel)?;
    assert_eq!(header[0], 1, "the launcher understands Exec only");
    let place = code.to_str().unwrap();
    let strings = |bytes: &[u8]| -> Vec<String> {
        bytes.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    };
    let words = strings(head.strip_suffix(b"\0").unwrap());
    let mut command = match words[1].as_str() {
        "node" => Command::new("node"),
        "java" => Command::new("java"),
        "php" => Command::new("php"),
        dotnet if dotnet.ends_with("/dotnet") => Command::new(dotnet),
        other => {
            let program = other.strip_prefix("/code/").map_or_else(|| PathBuf::from(other), |file| code.join(file));
            let report = match program.metadata() {
                Err(_) => Some("2 No such file or directory"),
                Ok(metadata) if metadata.mode() & 0o111 == 0 => Some("13 Permission denied"),
                Ok(_) => None,
            };
            if let Some(report) = report {
                let mut frame = vec![19];
                frame.resize(32, 0);
                frame[12..16].copy_from_slice(&u32::try_from(report.len()).unwrap().to_le_bytes());
                frame.extend(report.bytes());
                channel.write_all(&frame)?;
                return Ok(None);
            }
            Command::new(program)
        }
    };
    for word in &words[2..] {
        match word.strip_prefix("/rt/") {
            Some(file) => command.arg(assets().join(file)),
            None => command.arg(word),
        };
    }
    command.env_clear().current_dir(if words[0] == "/code" { place } else { "/" });
    for pair in strings(&body).iter().filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        let value = if value == "/code" { place.to_owned() } else { value.replace("/rt/", &format!("{}/", assets().display())) };
        command.env(name, value);
    }
    // The interpreters of this machine need not be where the cells' are.
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap_or_default().to_owned();
    let mut widened = std::ffi::OsString::from(env!("PATH"));
    widened.push(":");
    widened.push(path);
    command.env("PATH", widened);
    Ok(Some(command))
}

/// Carries frames to the guest, with the code's place in `Load`, and bytes back.
fn relay(mut channel: UnixStream, mut ours: UnixStream, code: &Path) -> std::io::Result<()> {
    let (mut from_guest, mut to_host) = (ours.try_clone()?, channel.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_guest, &mut to_host);
        let _ = to_host.shutdown(Shutdown::Both);
    });
    loop {
        let Ok((mut header, mut head, body)) = read_frame(&mut channel) else {
            return ours.shutdown(Shutdown::Write);
        };
        // `Load`, and `Prepare`, which has its head.
        if matches!(header[0], 2 | 9) {
            let text = String::from_utf8(head).unwrap().replace(r#":"/code""#, &format!(r#":"{}""#, code.display()));
            head = text.into_bytes();
            header[8..12].copy_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
        }
        ours.write_all(&[&header[..], &head, &body].concat())?;
    }
}
