//! A language's own bootstrap, spoken with directly: no platform, no walls, the same frames (`docs/design/wire.md`).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::functions::{HELLO, Language, ms};

const LOAD: u8 = 2;
const INVOKE: u8 = 4;
const READY: u8 = 16;
const END: u8 = 18;
const HEADER_BYTES: usize = 32;

/// A bootstrap with the language's hello loaded.
pub(crate) struct Direct {
    child: Child,
    channel: UnixStream,
    stream: u32,
    _code: tempfile::TempDir,
}

impl Direct {
    pub(crate) fn start(language: &Language) -> Result<Self> {
        let code = tempfile::tempdir()?;
        std::fs::write(code.path().join(language.file), language.code)?;
        let runtimes = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtimes"));
        let program = match language.name {
            "python" => format!("exec /usr/bin/python3 {} 3<&0 0</dev/null", runtimes.join("python/bootstrap.py").display()),
            "node" => format!("exec /usr/bin/node {} 3<&0 0</dev/null", runtimes.join("node/bootstrap.js").display()),
            other => anyhow::bail!("{other} has no bootstrap that is started by hand"),
        };
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_read_timeout(Some(Duration::from_secs(60)))?;
        let child = Command::new("/bin/sh")
            .args(["-c", &program])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/tmp")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the bootstrap")?;
        let mut direct = Self { child, channel, stream: 0, _code: code };
        ensure!(direct.read()?.0 == READY, "the bootstrap did not say Ready");
        let load = json!({
            "codePath": direct._code.path(), "handler": "index.handler", "env": {}, "unset": [], "runtime": language.runtime, "concurrency": 1,
            "function": {"name": "f", "handler": "index.handler", "memory": 256, "timeout": 60, "versionId": "", "qualifier": "LATEST"},
            "service": {}, "accountId": "1000000000000001", "region": "cn-hangzhou", "instanceId": "c-0",
        });
        let (kind, body) = direct.request(LOAD, &load.to_string(), &[])?;
        ensure!(kind == END, "the bootstrap could not load: {}", String::from_utf8_lossy(&body));
        Ok(direct)
    }

    /// One call; its time in milliseconds. The body is checked.
    pub(crate) fn call(&mut self) -> Result<f64> {
        let asked = Instant::now();
        let (kind, body) = self.request(INVOKE, r#"{"requestId":"1-0","deadlineMs":4000000000000,"retryCount":0}"#, b"{}")?;
        let took = ms(asked.elapsed());
        ensure!(kind == END && body == HELLO, "the bootstrap answered {:?}", String::from_utf8_lossy(&body));
        Ok(took)
    }

    fn request(&mut self, kind: u8, head: &str, body: &[u8]) -> Result<(u8, Vec<u8>)> {
        self.stream += 1;
        let mut frame = vec![0; HEADER_BYTES];
        frame[0] = kind;
        frame[4..8].copy_from_slice(&self.stream.to_le_bytes());
        frame[8..12].copy_from_slice(&u32::try_from(head.len())?.to_le_bytes());
        frame[12..16].copy_from_slice(&u32::try_from(body.len())?.to_le_bytes());
        frame[16..].fill(7);
        frame.extend_from_slice(head.as_bytes());
        frame.extend_from_slice(body);
        self.channel.write_all(&frame)?;
        self.read()
    }

    fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.channel.read_exact(&mut header)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (head, body) = (word(8), word(12));
        ensure!(head < 1 << 16 && body < 1 << 25, "the bootstrap broke the wire");
        let mut rest = vec![0; head + body];
        self.channel.read_exact(&mut rest)?;
        Ok((header[0], rest.split_off(head)))
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.channel.shutdown(std::net::Shutdown::Both);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
