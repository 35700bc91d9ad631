//! Callers, each with a mind of its own, for as long as an epoch lasts.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::{Platform, Response, asked, read_until, zip_of};
use serde_json::json;

use crate::functions::{Fleet, delete};

/// Callers at a time. More than the cores, fewer than would only wait for each other.
const CALLERS: u64 = 6;

/// First calls at once in a burst.
const BURST: usize = 16;

/// What was done, and what went wrong that should not have.
#[derive(Default)]
pub(crate) struct Tally {
    done: BTreeMap<&'static str, u64>,
    /// The first few, worded.
    pub(crate) unexpected: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        for (deed, times) in other.done {
            *self.done.entry(deed).or_default() += times;
        }
        self.unexpected.extend(other.unexpected);
        self.unexpected.truncate(20);
    }

    /// The deeds that nobody got to.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        DEEDS.iter().map(|deed| deed.name).filter(|name| !self.done.contains_key(name)).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deeds = DEEDS.iter().map(|deed| format!("{} {}", self.done.get(deed.name).copied().unwrap_or(0), deed.name));
        f.write_str(&deeds.collect::<Vec<_>>().join(", "))
    }
}

/// Something a caller does, and how often among all.
struct Deed {
    name: &'static str,
    weight: u64,
    does: fn(&Platform, &Fleet, &mut Dice) -> Result<()>,
}

const DEEDS: &[Deed] = &[
    Deed { name: "echoes", weight: 60, does: echo },
    Deed { name: "bursts", weight: 2, does: burst },
    Deed { name: "shared calls", weight: 4, does: share },
    Deed { name: "errors", weight: 6, does: fail },
    Deed { name: "exits", weight: 4, does: exit },
    Deed { name: "timeouts", weight: 2, does: time_out },
    Deed { name: "out of memory", weight: 2, does: eat },
    Deed { name: "deployments", weight: 4, does: deploy },
    Deed { name: "streams", weight: 4, does: stream },
    Deed { name: "readers that leave", weight: 4, does: leave },
    Deed { name: "calls of nothing", weight: 4, does: miss },
];

/// Lets the callers go until `until`. Chance says what each does, but for the first: those take turns, so that a few
/// epochs see every deed.
pub(crate) fn run(platform: &Platform, fleet: &Fleet, epoch: u64, seed: u64, until: Instant) -> Tally {
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn(move || {
                    let (mut tally, mut dice) = (Tally::default(), Dice::new(seed.wrapping_add(epoch) ^ (caller << 32)));
                    let mut deed = &DEEDS[((epoch * CALLERS + caller) % DEEDS.len() as u64) as usize];
                    loop {
                        match (deed.does)(platform, fleet, &mut dice) {
                            Ok(()) => *tally.done.entry(deed.name).or_default() += 1,
                            Err(error) => tally.unexpected.push(format!("{}: {error:#}", deed.name)),
                        }
                        if Instant::now() >= until {
                            return tally;
                        }
                        deed = dice.deed();
                    }
                })
            })
            .collect();
        let mut all = Tally::default();
        callers.into_iter().for_each(|caller| all.add(caller.join().expect("no caller panics")));
        all
    })
}

fn echo(platform: &Platform, fleet: &Fleet, dice: &mut Dice) -> Result<()> {
    let (name, shape) = &fleet.echoes[dice.below(fleet.echoes.len() as u64) as usize];
    let length = [0, 10, 1000, 60_000][dice.below(4) as usize] + dice.below(10);
    let text: String = (0..length.max(1)).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
    let reply = platform.api.invoke(name, &shape.event(&text))?;
    let answer = good(&reply).with_context(|| format!("{name}, {length} bytes"))?;
    ensure!(shape.accepts(&text, &answer), "{name} answered {answer:.200} to {text:.200}");
    Ok(())
}

fn burst(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    naps(platform, "faulty", BURST)
}

fn share(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    naps(platform, "busy", 4)
}

/// So many short calls of one function at once.
fn naps(platform: &Platform, name: &str, count: usize) -> Result<()> {
    thread::scope(|scope| {
        let call = || -> Result<()> {
            let reply = platform.api.invoke(name, b"nap")?;
            ensure!(good(&reply)? == "nap", "{}", reply.text());
            Ok(())
        };
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(call)).collect();
        calls.into_iter().try_for_each(|call| call.join().expect("no call panics"))
    })
}

fn fail(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    bad(&platform.api.invoke("faulty", b"raise")?, "on purpose")
}

fn exit(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    bad(&platform.api.invoke("faulty", b"exit")?, "Process exited unexpectedly")
}

fn time_out(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    bad(&platform.api.invoke("slow", b"hang")?, "timed out after 1 second")
}

fn eat(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    bad(&platform.api.invoke("small", b"eat")?, "memory")
}

/// Creates a function, calls it, changes its code, calls it, and takes it away: no call meets code that is not its own.
fn deploy(platform: &Platform, _: &Fleet, dice: &mut Dice) -> Result<()> {
    let name = format!("deployed-{}", dice.below(1 << 60));
    let code = |answer: &str| format!("# {name}\ndef handler(event, context):\n    return '{answer}'\n");
    platform.api.create(&name, "python3.10", &[("index.py", &code("first"))], json!({}))?;
    let first = good(&platform.api.invoke(&name, b"")?)?;
    ensure!(first == "first", "{first}");
    let zip = zip_of(&[("index.py", &code("second"))])?;
    let reply = platform.api.json("PUT", &format!("/functions/{name}"), "UpdateFunction", &json!({"code": {"zipFile": zip}}))?;
    ensure!(reply.status == 200, "UpdateFunction answered {}: {}", reply.status, reply.text());
    let second = good(&platform.api.invoke(&name, b"")?)?;
    ensure!(second == "second", "the old code answered: {second}");
    delete(platform, &name)
}

fn stream(platform: &Platform, fleet: &Fleet, _: &mut Dice) -> Result<()> {
    let mut socket = asked(platform, &format!("GET / HTTP/1.0\r\nhost: {}\r\n\r\n", fleet.stream))?;
    let mut all = Vec::new();
    socket.read_to_end(&mut all)?;
    let head = all.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
    ensure!(all.len() - head - 4 == 64 * 6000 && all.ends_with(b"000063"), "{} bytes", all.len());
    Ok(())
}

fn leave(platform: &Platform, fleet: &Fleet, _: &mut Dice) -> Result<()> {
    let mut socket = asked(platform, &format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", fleet.stream))?;
    read_until(&mut socket, "000000").map(drop)
}

fn miss(platform: &Platform, _: &Fleet, _: &mut Dice) -> Result<()> {
    let reply = platform.api.invoke("nobody", b"")?;
    ensure!(reply.status == 404 && reply.json()?["Code"] == "FunctionNotFound", "{} {}", reply.status, reply.text());
    Ok(())
}

fn good(reply: &Response) -> Result<String> {
    let error = reply.header("x-fc-error-type");
    ensure!(reply.status == 200 && error.is_none(), "{} {error:?} {:.300}", reply.status, reply.text());
    Ok(reply.text())
}

/// A function's own failure, as its caller meets it.
fn bad(reply: &Response, words: &str) -> Result<()> {
    let failed = reply.header("x-fc-error-type") == Some("UnhandledInvocationError");
    ensure!(reply.status == 200 && failed && reply.text().contains(words), "{} {:.300}", reply.status, reply.text());
    Ok(())
}

/// Repeatable chance (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn deed(&mut self) -> &'static Deed {
        let mut chosen = self.below(DEEDS.iter().map(|deed| deed.weight).sum());
        let within = |deed: &&Deed| {
            let here = chosen < deed.weight;
            chosen = chosen.saturating_sub(deed.weight);
            here
        };
        DEEDS.iter().find(within).expect("what is below the sum of the weights is within one of them")
    }
}
