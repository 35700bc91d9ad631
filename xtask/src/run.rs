//! Running one stage's command: its output goes to the terminal, to the stage's log file and through the counter.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::tally::{Reader, Tally};

/// Where a stage's output goes.
pub(crate) struct Log {
    file: File,
    reader: Reader,
}

impl Log {
    /// Starts the log of `stage` in `directory`, replacing an older one.
    pub(crate) fn create(directory: &Path, stage: &str) -> Result<Self> {
        let path = directory.join(stage).with_extension("log");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, reader: Reader::default() })
    }

    /// Takes in one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        // A full disk must not hide the verdict, which goes to the terminal as well.
        let _ = writeln!(self.file, "{line}");
        self.reader.line(line);
    }

    /// What the output's summaries add up to.
    pub(crate) fn tally(&self) -> Tally {
        self.reader.tally()
    }
}

/// The directory of the stages' logs, below cargo's target directory.
pub(crate) fn log_directory(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |given| root.join(given));
    let directory = target.join("test-logs");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Runs cargo.
pub(crate) fn cargo(root: &Path, arguments: &[&str], log: &mut Log) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    execute(root, cargo, arguments, log)
}

/// Runs a program.
pub(crate) fn program(root: &Path, program: &str, arguments: &[&str], log: &mut Log) -> Result<()> {
    execute(root, program.into(), arguments, log)
}

fn execute(root: &Path, program: OsString, arguments: &[&str], log: &mut Log) -> Result<()> {
    log.line(&format!("$ {} {}", Path::new(&program).file_name().unwrap_or(&program).to_string_lossy(), arguments.join(" ")));
    let mut child = Command::new(&program)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    let (sender, lines) = mpsc::sync_channel(256);
    let readers = [
        spawn_reader(child.stdout.take().context("stdout is piped")?, sender.clone()),
        spawn_reader(child.stderr.take().context("stderr is piped")?, sender),
    ];
    for line in lines {
        log.line(&line);
    }
    for reader in readers {
        reader.join().ok().context("a reader of the output failed")?;
    }
    let status = child.wait().context("cannot wait for the command")?;
    ensure!(status.success(), "ended with {status}");
    Ok(())
}

fn spawn_reader(output: impl Read + Send + 'static, lines: SyncSender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line);
            if lines.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    })
}
