//! What a platform holds when nothing is going on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use dunlin_testkit::{Platform, eventually};

use crate::functions::KINDS_OF_CELLS;

/// Links that the supervisor makes ahead of need.
const LINKS_READY: u64 = 16;

/// What a server's allocator keeps of its busiest moments once it has settled: each thread's arena remembers the largest
/// uploads that it has met. A server that holds less has not grown, it has not met all of them yet.
const SERVER_SETTLED_KIB: u64 = 80 * 1024;

/// Counts of one moment of rest.
pub(crate) struct Census {
    /// The server's, which must not have been replaced.
    server: u32,
    counts: Vec<Count>,
}

struct Count {
    what: &'static str,
    value: u64,
    /// How much more than at the start is no growth.
    slack: fn(u64) -> u64,
}

impl Census {
    /// Waits until every instance has ended and as many cells wait as are kept, then counts.
    pub(crate) fn at_rest(platform: &Platform) -> Result<Self> {
        let (states, cells) = (["starting", "idle", "busy", "draining", "unbound"], KINDS_OF_CELLS);
        let mut seen = String::new();
        eventually("the platform is at rest", || {
            let text = metrics(platform)?;
            let counts = states.map(|state| reading(&text, &format!("dunlin_instances{{state=\"{state}\"}} ")).unwrap_or(0));
            // What the pool has let go of, the supervisor may still be taking down; links go last.
            let (groups, links) = (cgroups(&platform.data)?, links(&platform.data)?);
            seen = format!("{states:?} {counts:?}, {groups} cgroups, {links} links");
            Ok(counts == [0, 0, 0, 0, cells] && groups == cells * hierarchies(&platform.data)? && links <= cells + LINKS_READY)
        })
        .with_context(|| format!("expected {cells} unbound cells and {LINKS_READY} links for the next, there are {seen}"))?;
        let supervisor = platform.pid();
        let server = child(supervisor, "server")?;
        let counts = vec![
            // A zygote's successor is started before the old one goes.
            Count { what: "processes", value: descendants(supervisor), slack: |_| 1 },
            Count { what: "cgroups", value: cgroups(&platform.data)?, slack: |_| 0 },
            Count { what: "mounts", value: lines(supervisor, "mountinfo")? + lines(server, "mountinfo")?, slack: |_| 0 },
            Count { what: "supervisor's descriptors", value: entries(&process(supervisor).join("fd"))?, slack: |_| 8 },
            // Connections that callers have just closed may not be gone yet.
            Count { what: "server's descriptors", value: descriptors_but_logs(server)?, slack: |_| 16 },
            Count { what: "supervisor's KiB", value: resident_kib(supervisor)?, slack: |before| 4096 + before / 10 },
            Count { what: "server's KiB", value: resident_kib(server)?, slack: server_memory_slack },
        ];
        Ok(Self { server, counts })
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter().map(|count| format!("{} {}", count.value, count.what));
        f.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}

fn server_memory_slack(before: u64) -> u64 {
    (8192 + before / 10).max(SERVER_SETTLED_KIB.saturating_sub(before))
}

/// The last census may show no more of anything than the most of the warm-up, beyond its slack, and the same server.
pub(crate) fn hold(warm_up: &[Census], rest: &[Census]) -> Result<()> {
    let (first, last) = (warm_up.first().context("an epoch")?, rest.last().context("an epoch after the warm-up")?);
    ensure!(rest.iter().all(|census| census.server == first.server), "the server was replaced");
    let mut grown = Vec::new();
    for (index, count) in last.counts.iter().enumerate() {
        let before = warm_up.iter().map(|census| census.counts[index].value).max().unwrap_or_default();
        if count.value > before + (count.slack)(before) {
            grown.push(format!("{} from {before} to {}", count.what, count.value));
        }
    }
    ensure!(grown.is_empty(), "grown under load: {}", grown.join(", "));
    Ok(())
}

fn metrics(platform: &Platform) -> Result<String> {
    let host = platform.address().to_owned();
    Ok(platform.connect()?.request("GET", "/-/metrics", &[("host".into(), host)], b"")?.text())
}

fn reading(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(process(pid).join("task")) else { return Vec::new() };
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let text: Vec<String> = tasks.flatten().map(of_task).collect();
    text.iter().flat_map(|line| line.split_whitespace()).filter_map(|word| word.parse().ok()).collect()
}

fn descendants(pid: u32) -> u64 {
    children(pid).into_iter().map(|child| 1 + descendants(child)).sum()
}

/// The child of `pid` whose first argument is `word`.
fn child(pid: u32, word: &str) -> Result<u32> {
    let is_it = |pid: &u32| {
        let line = fs::read(process(*pid).join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes())
    };
    children(pid).into_iter().find(is_it).with_context(|| format!("the platform has a {word}"))
}

fn installation(data: &Path) -> Result<String> {
    Ok(fs::read_to_string(data.join("installation"))?.trim().to_owned())
}

/// The platform's own directory in each cgroup hierarchy.
fn cgroup_roots(data: &Path) -> Result<Vec<PathBuf>> {
    let name = format!("dunlin-{}", installation(data)?);
    let hierarchies = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path());
    let own = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join(&name));
    Ok(own.filter(|path| path.is_dir()).collect())
}

fn hierarchies(data: &Path) -> Result<u64> {
    let roots = cgroup_roots(data)?.len();
    if roots == 0 {
        bail!("a platform that runs has a cgroup");
    }
    Ok(roots as u64)
}

/// Cells' cgroups in all hierarchies.
fn cgroups(data: &Path) -> Result<u64> {
    let mut count = 0;
    for root in cgroup_roots(data)? {
        count += fs::read_dir(root)?.flatten().filter(|entry| entry.path().is_dir()).count();
    }
    Ok(count as u64)
}

/// Network links of this installation on the host.
fn links(data: &Path) -> Result<u64> {
    let prefix = format!("dn{}", installation(data)?);
    let own = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    Ok(fs::read_dir("/sys/class/net")?.flatten().filter(own).count() as u64)
}

fn entries(directory: &Path) -> Result<u64> {
    Ok(fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?.count() as u64)
}

/// Open files are counted but for those of functions' lines, which stay open for a while in a bounded number.
fn descriptors_but_logs(pid: u32) -> Result<u64> {
    let open = fs::read_dir(process(pid).join("fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(open.filter(|target| !target.to_string_lossy().contains("/logs/")).count() as u64)
}

fn lines(pid: u32, file: &str) -> Result<u64> {
    Ok(fs::read_to_string(process(pid).join(file))?.lines().count() as u64)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(process(pid).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the kernel counts memory")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}
