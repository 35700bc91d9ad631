//! A blocking HTTP/1.1 client over one socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// An answer, read whole.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the first byte sent to the first byte received.
    pub first_byte: Duration,
}

impl Response {
    /// The first header called `name` (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, whatever it is.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// One connection, kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `address` (`host:port`). Everything on it fails after two minutes of silence.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.set_write_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends `bytes` as they are.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// Sends one request with a content length and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(String, String)], body: &[u8]) -> Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        let sent = Instant::now();
        self.send_raw(&bytes)?;
        self.read_response(method == "HEAD", sent)
    }

    /// Reads one answer; `bare` says that it has no body whatever its headers say.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP.
    pub fn read_response(&mut self, bare: bool, sent: Instant) -> Result<Response> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the connection was closed without an answer");
        let first_byte = sent.elapsed();
        let status =
            line.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| format!("not a status line: {line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(self.reader.read_line(&mut line)? > 0, "the connection was closed in the headers");
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new(), first_byte };
        if bare || matches!(status, 100..=199 | 204 | 304) {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            response.body = self.read_chunked()?;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().context("content-length is not a number")?;
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body)?;
            response.body = body;
        } else {
            self.reader.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    fn read_chunked(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = line.trim().split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(size, 16) else { bail!("not a chunk size: {line:?}") };
            let start = body.len();
            body.resize(start + size, 0);
            self.reader.read_exact(&mut body[start..])?;
            self.reader.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
