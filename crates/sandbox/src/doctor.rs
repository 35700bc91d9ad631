//! What this host offers, wall by wall.
//!
//! Every line says what was found and, where something is amiss, what to do about it. Questions are put to the kernel in
//! throw-away processes and namespaces: asking changes nothing.
//!
//! That cells really get past another firewall of this host is tried when the platform starts, and only guessed here.

use std::fmt::Write as _;
use std::path::Path;

use dunlin_model::{Interpreters, Language, Standing};
use dunlin_walls::{Wall, probe};

use crate::cgroup;
use crate::interpreters::Search;
use crate::net::firewall::nft;
use crate::net::try_rules;

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// The platform runs, with less.
    Degraded,
    /// Not there: the platform does not run.
    Missing,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it, if anything.
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), fix: None }
    }

    fn degraded(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Degraded, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Missing, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Looks at everything the platform needs from this host, with the data directory in its usual place.
#[must_use]
pub fn report() -> Vec<Check> {
    report_on(Path::new("/var/lib/dunlin"))
}

/// Looks at everything the platform needs from this host. `data_dir` need not be there yet.
#[must_use]
pub fn report_on(data_dir: &Path) -> Vec<Check> {
    let mut checks = walls();
    checks.push(control_groups());
    checks.extend(network());
    checks.push(layers());
    checks.extend(interpreters());
    checks.push(descriptors());
    checks.push(memory());
    checks.push(disk(data_dir));
    checks
}

fn walls() -> Vec<Check> {
    let check = |finding: probe::Finding| Check {
        name: wall_name(finding.wall),
        state: match finding.standing {
            probe::Standing::Ok => State::Ok,
            probe::Standing::Degraded => State::Degraded,
            probe::Standing::Missing => State::Missing,
        },
        detail: finding.seen,
        fix: Some(finding.fix).filter(|fix| !fix.is_empty()),
    };
    probe().into_iter().map(check).collect()
}

fn wall_name(wall: Wall) -> &'static str {
    match wall {
        Wall::Seccomp => "seccomp",
        Wall::Landlock => "landlock",
        Wall::Capabilities => "capabilities",
        Wall::NoNewPrivs => "no new privileges",
        Wall::PidNamespace => "pid namespace",
        Wall::PrivateProc => "private /proc",
        Wall::ReadOnlyRoot => "read-only root",
        Wall::NetNamespace => "net namespace",
        Wall::UserNamespace => "user namespace",
        Wall::NamespaceLimit => "namespace limit",
        Wall::HostUid => "root",
        Wall::Ipc => "ipc namespace",
        Wall::Uts => "uts namespace",
        Wall::CgroupNamespace => "cgroup namespace",
        Wall::Cgroups => "cgroups",
        Wall::TmpSize => "tmpfs sizes",
        Wall::Descriptors => "process creation",
        Wall::Rlimits => "resource limits",
        Wall::DeathSignal => "death signal",
    }
}

fn control_groups() -> Check {
    const NAME: &str = "cgroups";
    match cgroup::version() {
        Ok(cgroup::Version::V1) => Check::ok(NAME, "version 1: memory, cpu, pids, freezer, cpuacct"),
        Ok(cgroup::Version::V2) => Check::ok(NAME, "version 2: memory, cpu, pids"),
        Err(error) => Check::missing(
            NAME,
            error.to_string(),
            "mount cgroup v2 with its controllers (in a container: give it a cgroup namespace it may write to)",
        ),
    }
}

/// Asks for an overlay that nothing is in.
fn layers() -> Check {
    const NAME: &str = "layers";
    match rustix::mount::fsopen(c"overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Check::ok(NAME, "overlayfs merges them"),
        Err(error) => Check::degraded(
            NAME,
            format!("no overlayfs: {}", std::io::Error::from(error)),
            "modprobe overlay; functions with more than one layer do not start until then",
        ),
    }
}

const FALLBACK: &str = "functions have no internet access until then";

fn network() -> Vec<Check> {
    let mut checks = vec![firewall()];
    if checks[0].state == State::Ok {
        checks.push(forwarding());
        checks.push(other_firewalls());
    }
    checks
}

/// Loads the very rules the platform uses, beside a pair of links, in a namespace that goes away.
fn firewall() -> Check {
    const NAME: &str = "internet access";
    match try_rules() {
        Ok(()) => {
            let version = nft(&["--version"], "").unwrap_or_default();
            Check::ok(NAME, format!("links and filter work; {}", version.split('(').next().unwrap_or_default().trim()))
        }
        Err(reason) => {
            let fix = if reason.contains("not installed") {
                format!("apt-get install nftables; {FALLBACK}")
            } else {
                format!("use a kernel with veth and nf_tables (nat, fib, connlimit); {FALLBACK}")
            };
            Check::degraded(NAME, reason, fix)
        }
    }
}

fn forwarding() -> Check {
    const NAME: &str = "ip forwarding";
    let path = Path::new("/proc/sys/net/ipv4/ip_forward");
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == "1" => Check::ok(NAME, "on"),
        Ok(_) => Check::ok(NAME, "off; dunlin up switches it on"),
        Err(error) => Check::degraded(NAME, error.to_string(), format!("make {} readable and writable", path.display())),
    }
}

/// Chains that drop what no rule of theirs accepts, where our cells' packets pass.
fn other_firewalls() -> Check {
    const NAME: &str = "other firewalls";
    let listed = match nft(&["-j", "list", "chains"], "") {
        Ok(listed) => listed,
        Err(error) => return Check::degraded(NAME, error.to_string(), "run dunlin doctor as root"),
    };
    let dropping = dropping_chains(&listed);
    if dropping.is_empty() {
        return Check::ok(NAME, "none drops by default");
    }
    let mut fix = "if dunlin up says that functions have no internet access, accept its links: ".to_owned();
    for (at, chain) in dropping.iter().enumerate() {
        let separator = if at == 0 { "" } else { "; " };
        let directions: &[&str] = if chain.hook == "forward" { &["iifname", "oifname"] } else { &["iifname"] };
        for (n, direction) in directions.iter().enumerate() {
            let separator = if n == 0 { separator } else { "; " };
            let Chain { family, table, name, .. } = chain;
            let _ = write!(fix, "{separator}nft insert rule {family} {table} {name} {direction} '\"dn*\"' accept");
        }
    }
    let names: Vec<_> = dropping.iter().map(|chain| format!("{} {} {}", chain.family, chain.table, chain.name)).collect();
    Check::degraded(NAME, format!("by default dropped by {}", names.join(", ")), fix)
}

#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
    #[serde(default)]
    policy: String,
}

fn dropping_chains(listed: &str) -> Vec<Chain> {
    let parsed: serde_json::Value = serde_json::from_str(listed).unwrap_or_default();
    let entries = parsed["nftables"].as_array().cloned().unwrap_or_default();
    let chains = entries.into_iter().filter_map(|mut entry| serde_json::from_value::<Chain>(entry["chain"].take()).ok());
    chains
        .filter(|chain| chain.policy == "drop" && matches!(chain.hook.as_str(), "forward" | "input" | "prerouting"))
        .filter(|chain| matches!(chain.family.as_str(), "ip" | "inet"))
        .collect()
}

fn interpreters() -> Vec<Check> {
    match Search::of_host(Vec::new()).run() {
        Ok(found) => [
            ("python3", Language::Python),
            ("node", Language::Node),
            ("java", Language::Java),
            ("php", Language::Php),
            ("dotnet", Language::Dotnet),
        ]
        .map(|(name, language)| interpreter(name, language, &found))
        .into(),
        Err(error) => vec![Check::degraded("interpreters", error.to_string(), "name another one")],
    }
}

/// What serves one language, and what was found and does not.
fn interpreter(name: &'static str, language: Language, found: &Interpreters) -> Check {
    let usable: Vec<String> =
        found.usable(language).map(|(_, found, version)| format!("{version} ({})", found.program)).collect();
    if usable.is_empty() {
        let fix = format!("{}; functions in {} are refused until then", language.package(), language.title());
        return Check::degraded(name, found.how_to_get(language), fix);
    }
    let others = found.all().iter().filter(|other| other.language == language);
    let (mut passed_over, mut broken) = (String::new(), Vec::new());
    for other in others {
        match &other.standing {
            Standing::Usable { .. } => {}
            Standing::Unfit { why, .. } => passed_over.push_str(&format!("; not {}, which {why}", other.program)),
            Standing::Broken { why } => broken.push(format!("{} {why}", other.program)),
        }
    }
    let detail = format!("{}{passed_over}", usable.join(", "));
    if broken.is_empty() {
        Check::ok(name, detail)
    } else {
        Check::degraded(name, format!("{detail}; broken: {}", broken.join("; ")), "repair or remove what is broken")
    }
}

fn descriptors() -> Check {
    const NAME: &str = "open files";
    /// What the supervisor holds of one instance, and what it holds anyway.
    const PER_INSTANCE: u64 = 6;
    const ENOUGH: u64 = 8192;
    let Some(hard) = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum else {
        return Check::ok(NAME, "unlimited");
    };
    let detail = format!("limit {hard}, enough for about {} instances", hard / PER_INSTANCE);
    if hard >= ENOUGH {
        Check::ok(NAME, detail)
    } else {
        Check::degraded(NAME, detail, "raise it: ulimit -Hn 65536, or LimitNOFILE=65536 in the unit")
    }
}

fn memory() -> Check {
    const NAME: &str = "memory";
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match kib.map(|kib| kib / 1024) {
        Some(mib) if mib >= 512 => Check::ok(NAME, format!("{mib} MiB available")),
        Some(mib) => Check::degraded(NAME, format!("{mib} MiB available"), "instances need memory: 128 MiB each at least"),
        None => Check::degraded(NAME, "unknown", "mount /proc"),
    }
}

fn disk(data_dir: &Path) -> Check {
    const NAME: &str = "disk space";
    const ENOUGH_MIB: u64 = 2048;
    // The nearest directory that is there.
    let Some((place, stat)) = data_dir.ancestors().find_map(|dir| Some((dir, rustix::fs::statvfs(dir).ok()?))) else {
        return Check::degraded(NAME, "unknown", "make the data directory readable");
    };
    let mib = (stat.f_bavail.saturating_mul(stat.f_frsize)) >> 20;
    let detail = format!("{mib} MiB free at {}", place.display());
    if mib >= ENOUGH_MIB { Check::ok(NAME, detail) } else { Check::degraded(NAME, detail, "code packages and logs need room") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_misses_nothing() {
        let checks = report();
        for check in &checks {
            assert_ne!(check.state, State::Missing, "{check:?}");
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(check.state == State::Ok, check.fix.is_none(), "{check:?}");
        }
        let mut names: Vec<_> = checks.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), checks.len(), "every check has a name of its own");
    }

    #[test]
    fn chains_that_drop_by_default_are_named() {
        let listed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2, "type": "filter",
                       "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 3, "type": "filter",
                       "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "f", "name": "in", "handle": 4, "type": "filter", "hook": "input",
                       "prio": 0, "policy": "accept"}}]}"#;
        let found = dropping_chains(listed);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].table.as_str(), found[0].name.as_str()), ("filter", "FORWARD"));
        assert_eq!(dropping_chains("not json"), []);
    }
}
