//! What cells' packets may do, as one table of rules loaded once.
//!
//! Rules name our links by the prefix of their names and cells by their addresses, so that no rule changes when a cell
//! comes or goes. A packet from a cell meets, in this order: `early` (it must carry the cell's own address), `resolver`
//! (name queries turn to the stub), then `host` (nothing on this host but the stub) or `through` (no refused range, no
//! other cell, caps) and `leave` (the host's address replaces the cell's). Nothing from outside starts towards a cell.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::addresses::Addresses;
use super::dns::RESOLVER;
use super::ranges::Range4;

/// What one cell may do at most towards the internet. Generous for honest work; too little to be a weapon.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Connections and flows open at a time.
    pub open: u32,
    /// New connections and flows a second, with ten times as many at once. The host remembers each for two minutes.
    pub fresh_per_s: u32,
    /// Packets a second that are not TCP, with twice as many at once.
    pub datagrams_per_s: u32,
    /// Megabytes a second sent, with as many at once.
    pub megabytes_per_s: u32,
    /// Name queries a second, with twice as many at once.
    pub queries_per_s: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self { open: 1024, fresh_per_s: 100, datagrams_per_s: 2000, megabytes_per_s: 64, queries_per_s: 200 }
    }
}

/// What the rules are made from.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) refused: &'a [Range4],
    pub(super) caps: &'a Caps,
    /// The port the stub's sockets have.
    pub(super) resolver_port: u16,
}

impl Rules<'_> {
    /// The rules in `nft`'s language; loading them replaces those of an earlier run.
    pub(super) fn text(&self) -> String {
        let table = self.addresses.table();
        let ours = format!("\"{}*\"", self.addresses.link_prefix());
        let gateway = self.addresses.gateway();
        let range = self.addresses.range();
        let refused = self.refused.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let port = self.resolver_port;
        let Caps { open, fresh_per_s, datagrams_per_s, megabytes_per_s, queries_per_s } = self.caps;
        let counted = "type ipv4_addr; size 8192; flags dynamic, timeout; timeout 1m;";
        let mut text = remove(&table);
        let _ = write!(
            text,
            "table inet {table} {{
  set refused {{ type ipv4_addr; flags interval; elements = {{ {refused} }}; }}
  set open {{ type ipv4_addr; size 8192; flags dynamic; }}
  set fresh {{ {counted} }}
  set datagrams {{ {counted} }}
  set bytes {{ {counted} }}
  set queries {{ {counted} }}
  chain early {{
    type filter hook prerouting priority raw; policy accept;
    iifname {ours} meta nfproto ipv6 drop
    iifname {ours} ip saddr != {range} drop
    iifname {ours} fib saddr . iif oif missing drop
    ip daddr {gateway} iifname != \"lo\" iifname != {ours} drop
  }}
  chain resolver {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname {ours} ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {gateway}:{port}
  }}
  chain host {{
    type filter hook input priority filter; policy accept;
    iifname {ours} jump to_host
  }}
  chain to_host {{
    ct status & dnat == 0 drop
    ip daddr != {gateway} drop
    update @bytes {{ ip saddr limit rate over {megabytes_per_s} mbytes/second burst {megabytes_per_s} mbytes }} drop
    udp dport {port} update @queries {{ ip saddr limit rate over {queries_per_s}/second burst {} packets }} drop
    udp dport {port} accept
    tcp dport {port} ct state established accept
    tcp dport {port} ct state new add @open {{ ip saddr ct count over {open} }} drop
    tcp dport {port} ct state new update @queries {{ ip saddr limit rate over {queries_per_s}/second burst {} packets }} drop
    tcp dport {port} accept
    drop
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    iifname {ours} jump outward
    oifname {ours} jump inward
  }}
  chain outward {{
    oifname {ours} drop
    ip daddr @refused drop
    fib daddr type != unicast drop
    ct state invalid drop
    update @bytes {{ ip saddr limit rate over {megabytes_per_s} mbytes/second burst {megabytes_per_s} mbytes }} drop
    meta l4proto != tcp update @datagrams {{ ip saddr limit rate over {datagrams_per_s}/second burst {} packets }} drop
    ct state established,related accept
    update @fresh {{ ip saddr limit rate over {fresh_per_s}/second burst {} packets }} drop
    add @open {{ ip saddr ct count over {open} }} drop
    tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain inward {{
    ct state established,related accept
    drop
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {range} oifname != {ours} masquerade
  }}
}}
",
            queries_per_s * 2,
            queries_per_s * 2,
            datagrams_per_s * 2,
            fresh_per_s * 10,
        );
        text
    }
}

/// Rules that take the table away whether or not it is there.
pub(super) fn remove(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// Why rules could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no `nft` on this host.
    #[error("nft is not installed")]
    NoNft,
    /// It could not be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// It refused the rules.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
}

/// Gives `text` to `nft`, in the calling thread's network namespace.
pub(super) fn load(text: &str) -> Result<(), LoadError> {
    nft(&["-f", "-"], text).map(drop)
}

/// Runs `nft` and returns what it prints.
pub(crate) fn nft(arguments: &[&str], input: &str) -> Result<String, LoadError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| if error.kind() == io::ErrorKind::NotFound { LoadError::NoNft } else { LoadError::Run(error) })?;
    // Rules are far smaller than a pipe, so this never waits for what the child prints.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(LoadError::Run)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(LoadError::Refused(said.lines().next().unwrap_or("without a word").to_owned()));
    }
    written.map_err(LoadError::Run)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
