//! A closed loop of callers on kept connections, in one thread: as little as possible of the machine goes to asking.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where requests go and what must come back.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    /// The `Host` header.
    pub(crate) host: String,
    /// The whole body of every answer.
    pub(crate) body: &'static [u8],
}

/// What a loop saw.
#[derive(Debug)]
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Each call's time in milliseconds.
    pub(crate) took: Vec<f64>,
}

/// Lets `callers` ask as fast as they are answered, for `span`. An answer that is not the right one is an error.
pub(crate) fn run(target: &Target, callers: usize, span: Duration) -> Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..callers {
            connections.push(Caller::connect(target).await?);
        }
        let began = Instant::now();
        let until = began + span;
        let mut tasks = tokio::task::JoinSet::new();
        for mut caller in connections {
            tasks.spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let asked = Instant::now();
                    caller.ask().await?;
                    took.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            took.extend(ended??);
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let rate = took.len() as f64 / began.elapsed().as_secs_f64();
        Ok(Load { rate, took })
    })
}

struct Caller {
    socket: TcpStream,
    request: Vec<u8>,
    expected: &'static [u8],
    inbox: Vec<u8>,
}

impl Caller {
    async fn connect(target: &Target) -> Result<Self> {
        let socket = TcpStream::connect(&target.address).await.with_context(|| format!("nobody is at {}", target.address))?;
        socket.set_nodelay(true)?;
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", target.host).into_bytes();
        Ok(Self { socket, request, expected: target.body, inbox: Vec::with_capacity(4096) })
    }

    async fn ask(&mut self) -> Result<()> {
        self.socket.write_all(&self.request).await?;
        self.inbox.clear();
        loop {
            ensure!(self.socket.read_buf(&mut self.inbox).await? > 0, "the connection was closed without an answer");
            let Some(end) = find(&self.inbox, b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.inbox[..end])?;
            ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is {head}");
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let body = &self.inbox[end + 4..];
            match length {
                Some(length) if body.len() < length => {}
                Some(length) if body.len() == length && body == self.expected => return Ok(()),
                None if find(body, b"0\r\n\r\n").is_some() => {
                    ensure!(find(body, self.expected).is_some(), "the body is {:?}", String::from_utf8_lossy(body));
                    return Ok(());
                }
                None => {}
                Some(_) => bail!("the body is {:?}", String::from_utf8_lossy(body)),
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
