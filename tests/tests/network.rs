//! What functions reach over the network, on the real platform.
//!
//! The platform runs in a net namespace of this test's own, behind which a second one plays the internet: every address
//! answers there, the private ones too. Both are held by threads and sockets of this process and go with them, so that
//! nothing has to be cleaned up. Needs root, `ip` and `nft`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Options, Platform};
use serde_json::{Value, json};

const PUBLIC: &str = "8.8.8.8";
const HOST: &str = "9.9.9.2";
const WORLD: &str = "9.9.9.1";
/// What the platform reaches and no function may: private networks, clouds' metadata, carriers' and documentation ranges.
const REFUSED: [&str; 6] = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "203.0.113.10"];

/// Tries every address it is asked for and says what answered, or why nothing did.
const PROBE: &str = r#"
import errno, json, socket

def reach(host, port):
    try:
        with socket.create_connection((host, port), 0.7) as s:
            return 'answer from ' + s.recv(64).decode().strip()
    except TimeoutError:
        return 'nothing'
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def handler(event, context):
    return {f'{host} {port}': reach(host, port) for host, port in json.loads(event)}
"#;

/// Runs `test` on a thread whose net namespace is a host with an uplink to an internet of its own.
fn on_a_host(test: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let run = move || {
        leave_net_namespace()?;
        let (ready, world) = mpsc::sync_channel(1);
        let (finish, finished) = mpsc::channel::<()>();
        let internet = thread::spawn(move || -> Result<()> {
            leave_net_namespace()?;
            let own = format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
            ready.send(own)?;
            // Until the test has ended: the namespace lives as long as its thread.
            let _ = finished.recv();
            Ok(())
        });
        let world = world.recv().context("the other namespace")?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &world])?;
        let inside = |words: &[&str]| -> Result<()> {
            let net = format!("--net={world}");
            run_program("nsenter", &[&[net.as_str(), "ip"], words].concat())
        };
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["address", "add", WORLD, "peer", HOST, "dev", "eth0"])?;
        for address in REFUSED.iter().chain([&PUBLIC]) {
            inside(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        ip(&["link", "set", "up0", "up"])?;
        ip(&["address", "add", HOST, "peer", WORLD, "dev", "up0"])?;
        ip(&["route", "add", "default", "via", WORLD])?;
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        greet(listen_in(&world, everywhere)?);
        greet(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?);
        let result = test();
        drop(finish);
        internet.join().expect("the internet does not panic")?;
        result
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn leave_net_namespace() -> Result<()> {
    #[expect(deprecated, reason = "a net namespace is the only thing left, which invalidates no descriptor")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).context("a net namespace takes root")
}

/// Listens inside another net namespace, on a thread that stays there.
fn listen_in(namespace: &str, address: SocketAddr) -> Result<TcpListener> {
    let file = std::fs::File::open(namespace)?;
    let bound = thread::spawn(move || -> Result<TcpListener> {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
        Ok(TcpListener::bind(address)?)
    });
    bound.join().expect("binding does not panic")
}

fn ip(words: &[&str]) -> Result<()> {
    run_program("ip", words)
}

/// Started by the calling thread, a program has its net namespace.
fn run_program(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).output().with_context(|| format!("{program} is needed"))?;
    ensure!(output.status.success(), "{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Answers every connection with who is calling.
fn greet(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            thread::spawn(move || {
                let _ = stream.write_all(format!("{peer}\n").as_bytes());
                let _ = stream.read(&mut [0]); // until the caller goes
            });
        }
    });
}

type Answers = BTreeMap<String, String>;

fn ask(platform: &Platform, function: &str, targets: &[(&str, u16)]) -> Result<Answers> {
    let event = json!(targets.iter().map(|(host, port)| json!([host, port])).collect::<Vec<_>>());
    let reply = platform.api.invoke(function, event.to_string().as_bytes())?;
    let Value::Object(answers) = reply.json()? else { anyhow::bail!("{}", reply.text()) };
    ensure!(answers.len() == targets.len(), "{}", reply.text());
    Ok(answers.into_iter().map(|(target, answer)| (target, answer.as_str().unwrap_or_default().to_owned())).collect())
}

/// Everything on the host, by every name it goes by, and everything beyond it that is not public.
fn forbidden() -> Vec<(&'static str, u16)> {
    let host = ["127.0.0.1", "0.0.0.0", HOST, "192.0.2.53", "::1", "::ffff:127.0.0.1", "::ffff:9.9.9.2"];
    let beyond = REFUSED.into_iter().chain(["::ffff:10.0.0.1", WORLD]);
    // The other end of the uplink is public by its number; it listens on port 80 only.
    let beyond = beyond.map(|address| (address, if address == WORLD { 8080 } else { 80 }));
    host.into_iter().map(|address| (address, 8080)).chain(beyond).collect()
}

fn start() -> Result<Platform> {
    // That these answer the platform is what makes their silence towards functions mean something.
    for address in REFUSED.iter().chain([&PUBLIC]) {
        let address = SocketAddr::new(address.parse::<IpAddr>()?, 80);
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).with_context(|| address.to_string())?;
    }
    for address in ["127.0.0.1", HOST] {
        TcpStream::connect_timeout(&SocketAddr::new(address.parse::<IpAddr>()?, 8080), Duration::from_secs(5))?;
    }
    let platform = Platform::start(&Options::default())?;
    let files = [("index.py", PROBE)];
    platform.api.create("open", "python3.10", &files, json!({"internetAccess": true, "timeout": 60}))?;
    platform.api.create("closed", "python3.10", &files, json!({"internetAccess": false, "timeout": 60}))?;
    Ok(platform)
}

fn own_port(platform: &Platform) -> Result<u16> {
    Ok(platform.address().rsplit(':').next().context("an address has a port")?.parse()?)
}

#[test]
fn a_function_with_internet_access_reaches_public_addresses_and_nothing_else() -> Result<()> {
    on_a_host(|| {
        let platform = start()?;
        let answers = ask(&platform, "open", &[(PUBLIC, 80)])?;
        // Seen from outside, a function is the host.
        assert_eq!(answers[&format!("{PUBLIC} 80")], format!("answer from {HOST}"), "{}", platform.printed());
        let mut targets = forbidden();
        let port = own_port(&platform)?;
        targets.extend([("127.0.0.1", port), (HOST, port), ("192.0.2.53", port)]);
        for (target, answer) in ask(&platform, "open", &targets)? {
            assert!(!answer.starts_with("answer"), "{target}: {answer}");
        }
        // Still: what it was refused has not cost it what it may have.
        ask(&platform, "open", &[(PUBLIC, 80)])?;
        assert!(platform.stop()?.success());
        Ok(())
    })
}

#[test]
fn a_function_without_internet_access_reaches_nothing() -> Result<()> {
    on_a_host(|| {
        let platform = start()?;
        let mut targets = forbidden();
        targets.extend([(PUBLIC, 80), ("127.0.0.1", own_port(&platform)?)]);
        for (target, answer) in ask(&platform, "closed", &targets)? {
            assert!(!answer.starts_with("answer"), "{target}: {answer}");
            // There is not even a way to try beyond its own loopback.
            let own = ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"].iter().any(|own| target.starts_with(own));
            let expected = if own { "ECONNREFUSED" } else { "ENETUNREACH" };
            assert_eq!(answer, expected, "{target}");
        }
        assert!(platform.stop()?.success());
        Ok(())
    })
}
