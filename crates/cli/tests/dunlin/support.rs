//! A platform that answers from a script, and the binary run against it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the request's body is JSON")
    }
}

/// One answer: when a request's line begins with `line`.
pub(crate) struct Answer {
    pub(crate) line: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
}

pub(crate) const fn answer(line: &'static str, status: u16, body: &'static str) -> Answer {
    Answer { line, status, headers: &[], body }
}

pub(crate) struct Platform {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Starts a platform that gives the first answer whose line fits and was not used up, or 404.
pub(crate) fn platform(answers: Vec<Answer>) -> Platform {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel picks a port");
    let address = listener.local_addr().expect("a bound listener has one");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        let mut answers = answers;
        for socket in listener.incoming() {
            let Ok(socket) = socket else { return };
            let Some(request) = read(&socket) else { continue };
            let position = answers.iter().position(|answer| request.line.starts_with(answer.line));
            seen.lock().expect("nobody panics while holding this").push(request);
            let answer = match position {
                Some(position) => answers.remove(position),
                None => {
                    answer("", 404, r#"{"Code":"FunctionNotFound","Message":"function 'f' does not exist","RequestId":"1-1"}"#)
                }
            };
            write(&socket, &answer);
        }
    });
    Platform { address, asked }
}

fn read(socket: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(socket);
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().map(|_| line.trim_end().to_owned())
    };
    let line = next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let line = next()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, headers, body })
}

fn write(mut socket: &TcpStream, answer: &Answer) {
    let headers: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {} X\r\nx-fc-request-id: 1-11111111-11111111-111111111111\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    // A client that has gone away shows in its own test.
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(answer.body.as_bytes()));
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The binary without anything of this machine's in its environment.
pub(crate) fn bare(arguments: &[&str]) -> Ran {
    run(Command::new(env!("CARGO_BIN_EXE_dunlin")).args(arguments))
}

pub(crate) fn run(command: &mut Command) -> Ran {
    for name in ["DUNLIN_CREDENTIALS", "DUNLIN_ENDPOINT", "DUNLIN_ACCESS_KEY_ID", "DUNLIN_ACCESS_KEY_SECRET"] {
        if command.get_envs().all(|(set, _)| set != name) {
            command.env_remove(name);
        }
    }
    let Output { status, stdout, stderr } = command.output().expect("the binary was built");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

impl Platform {
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs the binary with a key for this platform.
    pub(crate) fn dunlin(&self, arguments: &[&str]) -> Ran {
        let command = &mut Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env("DUNLIN_ENDPOINT", self.endpoint());
        run(command.env("DUNLIN_ACCESS_KEY_ID", "test-key").env("DUNLIN_ACCESS_KEY_SECRET", "test-secret"))
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics while holding this").clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}
