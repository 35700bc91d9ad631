//! What a platform is compared with: workers that answer HTTP themselves, nginx in front of them, and other people's
//! function servers where they are installed.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dunlin_testkit::cache;

use crate::functions::HELLO;
use crate::load::Target;
use crate::ric;

/// How long a worker may take to listen.
const HANG: Duration = Duration::from_secs(60);

/// Processes that serve one address. Dropping it ends them.
pub(crate) struct Workers {
    children: Vec<Child>,
    port: u16,
    /// What each answer holds.
    body: &'static [u8],
    _folder: Option<tempfile::TempDir>,
}

impl Workers {
    /// `count` hand-written workers of the language.
    pub(crate) fn http(language: &str, count: usize) -> Result<Self> {
        let port = free_port()?;
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/workers"));
        let (port_text, count_text) = (port.to_string(), count.to_string());
        let children = match language {
            "python" => {
                let script = folder.join("http_worker.py");
                (0..count).map(|_| spawn(Command::new("/usr/bin/python3").arg(&script).arg(&port_text))).collect::<Result<_>>()?
            }
            _ => vec![spawn(Command::new("/usr/bin/node").arg(folder.join("http_worker.js")).args([&port_text, &count_text]))?],
        };
        Self { children, port, body: HELLO, _folder: None }.listening()
    }

    /// nginx with as many processes, keeping its connections to `upstream`. `None` when it is not installed.
    pub(crate) fn nginx(upstream: &Self, count: usize) -> Result<Option<Self>> {
        let Some(nginx) = installed(&["/usr/sbin/nginx"]) else { return Ok(None) };
        let (port, folder) = (free_port()?, tempfile::tempdir()?);
        let path = folder.path().display();
        let config = format!(
            "daemon off; master_process on; worker_processes {count}; pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n access_log off; keepalive_requests 1000000000; client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;\n\
             uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             upstream workers {{ server 127.0.0.1:{}; keepalive 64; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://workers; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; }} }} }}\n",
            upstream.port
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config)?;
        let child = spawn(Command::new(nginx).arg("-p").arg(folder.path()).arg("-c").arg(&file))?;
        Self { children: vec![child], port, body: HELLO, _folder: Some(folder) }.listening().map(Some)
    }

    /// functions-framework of the language, as its package comes. `None` when it is not installed.
    pub(crate) fn functions_framework(language: &str) -> Result<Option<Self>> {
        let program = match language {
            "python" => peers().join("python/bin/functions-framework"),
            _ => peers().join("node/node_modules/.bin/functions-framework"),
        };
        let Some(program) = installed(&[&program.display().to_string()]) else { return Ok(None) };
        let (port, folder) = (free_port()?, tempfile::tempdir()?);
        let (file, code) = match language {
            "python" => ("main.py", "def hello(request):\n    return 'hello'\n"),
            _ => ("index.js", "exports.hello = (request, response) => response.send('hello');\n"),
        };
        std::fs::write(folder.path().join(file), code)?;
        let mut command = Command::new(program);
        command.args(["--target", "hello", "--port", &port.to_string()]).current_dir(folder.path());
        let child = spawn(&mut command)?;
        Self { children: vec![child], port, body: HELLO, _folder: Some(folder) }.listening().map(Some)
    }

    /// workerd with the same hello. `None` when it is not installed.
    pub(crate) fn workerd() -> Result<Option<Self>> {
        let program = peers().join("node/node_modules/.bin/workerd");
        let Some(program) = installed(&[&program.display().to_string()]) else { return Ok(None) };
        let (port, folder) = (free_port()?, tempfile::tempdir()?);
        std::fs::write(
            folder.path().join("hello.js"),
            "addEventListener('fetch', (event) => event.respondWith(new Response('hello')));\n",
        )?;
        let config = format!(
            "using Workerd = import \"/workerd/workerd.capnp\";\n\
             const config :Workerd.Config = (services = [(name = \"main\", worker = .hello)],\n\
             sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"main\")]);\n\
             const hello :Workerd.Worker = (serviceWorkerScript = embed \"hello.js\", compatibilityDate = \"2024-01-01\");\n"
        );
        let file = folder.path().join("config.capnp");
        std::fs::write(&file, config)?;
        let child = spawn(Command::new(program).arg("serve").arg(&file))?;
        Self { children: vec![child], port, body: HELLO, _folder: Some(folder) }.listening().map(Some)
    }

    /// AWS Lambda's client for the language, `count` times, behind a runtime API that does nothing else. `None` when it
    /// is not installed.
    pub(crate) fn lambda(language: &str, count: usize) -> Result<Option<Self>> {
        let fixture = cache().join("fixtures").join(format!("lambda-{language}"));
        let (program, arguments, file, code): (_, &[&str], _, _) = match language {
            "python" => (
                "/usr/bin/python3",
                &["-m", "awslambdaric", "hello.handler"],
                "hello.py",
                "def handler(event, context):\n    return 'hello'\n",
            ),
            _ => (
                "/usr/bin/node",
                &["node_modules/aws-lambda-ric/bin/index.mjs", "hello.handler"],
                "hello.js",
                "exports.handler = async () => 'hello';\n",
            ),
        };
        let library = if language == "python" { "awslambdaric" } else { "node_modules" };
        if !fixture.join(library).exists() {
            return Ok(None);
        }
        let (port, api) = ric::desk()?;
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(fixture.join("node_modules"), folder.path().join("node_modules"))?;
        std::fs::write(folder.path().join(file), code)?;
        let start = |_| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(folder.path());
            let variables = [
                ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{api}")),
                ("LAMBDA_TASK_ROOT", folder.path().display().to_string()),
                ("PYTHONPATH", fixture.display().to_string()),
                ("_HANDLER", "hello.handler".to_owned()),
            ];
            spawn_with(&mut command, variables)
        };
        let children = (0..count).map(start).collect::<Result<_>>()?;
        let workers = Self { children, port, body: br#""hello""#, _folder: Some(folder) };
        workers.listening().map(Some)
    }

    /// Where to ask.
    pub(crate) fn target(&self) -> Target {
        let address = format!("127.0.0.1:{}", self.port);
        Target { host: address.clone(), address, body: self.body }
    }

    fn listening(mut self) -> Result<Self> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("a worker ended with {status}");
                }
            }
            if began.elapsed() > HANG {
                bail!("a worker does not listen");
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(self)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Those with children of their own end them on SIGTERM.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let began = Instant::now();
            while !matches!(child.try_wait(), Ok(Some(_))) && began.elapsed() < Duration::from_secs(5) {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where `scripts/bench-setup` installs other people's function servers.
fn peers() -> PathBuf {
    cache().join("peers")
}

fn installed(candidates: &[&str]) -> Option<PathBuf> {
    candidates.iter().map(PathBuf::from).find(|path| path.exists())
}

fn spawn(command: &mut Command) -> Result<Child> {
    spawn_with(command, [])
}

fn spawn_with<const N: usize>(command: &mut Command, variables: [(&str, String); N]) -> Result<Child> {
    command.env_clear().envs(variables).env("PATH", "/usr/bin:/bin:/usr/local/bin").env("HOME", "/tmp").env("LANG", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
