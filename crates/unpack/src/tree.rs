//! The tree an archive describes: every name taken apart, every clash found, every link followed, before anything is
//! written.
//!
//! # Invariants
//! - Each node has one name in its folder, also when upper and lower case do not count.
//! - Only folders have children: nothing is reached through a link.
//! - After [`Tree::check_links`] no link, followed through whichever others, leaves the tree.

use std::collections::{BTreeMap, HashMap};

use crate::UnpackLimits;
use crate::archive::{Archive, Entry};
use crate::error::{Problem, Rejected};

const NAME_BYTES_MAX: usize = 4096;
const PART_BYTES_MAX: usize = 255;
/// The deepest path. Writing keeps one descriptor open for each level.
const DEPTH_MAX: usize = 128;
/// Links followed one through the other before it counts as a circle, as in the kernel.
const HOPS_MAX: usize = 40;
/// Path components looked up for all links together.
const LINK_STEPS_MAX: usize = 1 << 20;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

pub(crate) const ROOT: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Link,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// The archive's entry; absent for folders that only lie on the way.
    pub(crate) entry: Option<usize>,
    pub(crate) children: BTreeMap<Box<[u8]>, usize>,
    parent: usize,
}

pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

/// Makes the tree of `archive`.
pub(crate) fn plant(archive: &Archive, limits: &UnpackLimits) -> Result<Tree, Rejected> {
    let mut planter = Planter {
        nodes: vec![Node { kind: Kind::Directory, entry: None, children: BTreeMap::new(), parent: ROOT }],
        folded: HashMap::new(),
        nodes_max: usize::try_from(limits.entries).unwrap_or(usize::MAX).saturating_add(1),
    };
    for (index, entry) in archive.entries.iter().enumerate() {
        planter.plant(index, entry).map_err(|problem| match problem {
            whole @ Problem::TooManyEntries { .. } => whole.into(),
            problem => Rejected::entry(&entry.name, problem),
        })?;
    }
    Ok(Tree { nodes: planter.nodes })
}

struct Planter {
    nodes: Vec<Node>,
    /// Folder and folded name of every node.
    folded: HashMap<(usize, Box<[u8]>), usize>,
    nodes_max: usize,
}

impl Planter {
    fn plant(&mut self, index: usize, entry: &Entry) -> Result<(), Problem> {
        let parts = parts(&entry.name)?;
        let kind = kind(entry)?;
        let (last, folders) = parts.split_last().expect("a name has at least one part");
        let mut at = ROOT;
        for part in folders {
            at = self.step(at, part, Kind::Directory, None)?;
        }
        self.step(at, last, kind, Some(index))?;
        Ok(())
    }

    /// Finds or makes the child `part` of `parent`.
    fn step(&mut self, parent: usize, part: &[u8], kind: Kind, entry: Option<usize>) -> Result<usize, Problem> {
        let folded = (parent, fold(part));
        if let Some(&node) = self.folded.get(&folded) {
            if !self.nodes[parent].children.contains_key(part) {
                return Err(Problem::CaseDuplicate);
            }
            let known = &mut self.nodes[node];
            return match (known.kind, kind) {
                (Kind::Directory, Kind::Directory) if known.entry.is_none() || entry.is_none() => {
                    known.entry = known.entry.or(entry);
                    Ok(node)
                }
                (known, new) if known == new && entry.is_some() => Err(Problem::Duplicate),
                (Kind::File, Kind::Link) | (Kind::Link, Kind::File) => Err(Problem::Duplicate),
                _ => Err(Problem::Conflict),
            };
        }
        let node = self.nodes.len();
        if node >= self.nodes_max {
            return Err(Problem::TooManyEntries { limit: self.nodes_max as u64 - 1 });
        }
        self.nodes.push(Node { kind, entry, children: BTreeMap::new(), parent });
        self.nodes[parent].children.insert(part.into(), node);
        self.folded.insert(folded, node);
        Ok(node)
    }
}

fn parts(name: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let wrong = |what| Err(Problem::Name { what });
    match name {
        [] => return wrong("is empty"),
        [b'/', ..] => return wrong("is an absolute path"),
        [drive, b':', ..] if drive.is_ascii_alphabetic() => return wrong("begins with a drive letter"),
        _ if name.len() > NAME_BYTES_MAX => return wrong("is longer than 4096 bytes"),
        _ if name.contains(&0) => return wrong("has a NUL byte"),
        _ if name.contains(&b'\\') => return wrong("has a backslash; folders are separated by '/'"),
        _ => {}
    }
    let parts: Vec<_> = name.strip_suffix(b"/").unwrap_or(name).split(|byte| *byte == b'/').collect();
    if parts.len() > DEPTH_MAX {
        return wrong("is nested more than 128 folders deep");
    }
    for part in &parts {
        match *part {
            b".." => return Err(Problem::Traversal),
            b"." => return wrong("has a '.' component"),
            b"" => return wrong("has an empty component"),
            part if part.len() > PART_BYTES_MAX => return wrong("has a component longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(parts)
}

fn kind(entry: &Entry) -> Result<Kind, Problem> {
    let slash = entry.name.ends_with(b"/");
    let kind = match entry.mode & S_IFMT {
        0 if slash => Kind::Directory,
        0 | S_IFREG => Kind::File,
        S_IFDIR => Kind::Directory,
        S_IFLNK => Kind::Link,
        _ => return Err(Problem::Special),
    };
    let consistent = slash == (kind == Kind::Directory) && (kind != Kind::Directory || entry.size == 0);
    if consistent { Ok(kind) } else { Err(Problem::Kind) }
}

/// What two names that differ only in case have in common.
fn fold(part: &[u8]) -> Box<[u8]> {
    match std::str::from_utf8(part) {
        Ok(text) => text.to_lowercase().into_bytes().into(),
        Err(_) => part.to_ascii_lowercase().into(),
    }
}

impl Tree {
    /// Follows every link as the kernel would. `links` holds each link node's target.
    pub(crate) fn check_links(&self, archive: &Archive, links: &HashMap<usize, Vec<u8>>) -> Result<(), Rejected> {
        let mut walk = Walk { tree: self, links, steps: 0 };
        for (&node, target) in links {
            walk.check(node, target).map_err(|problem| {
                let entry = self.nodes[node].entry.expect("only entries make links");
                Rejected::entry(&archive.entries[entry].name, problem)
            })?;
        }
        Ok(())
    }
}

/// Where a walk has come to.
#[derive(Clone, Copy)]
enum Place {
    Node(usize),
    /// Below `above`, this many levels into what does not exist.
    Missing {
        above: usize,
        levels: usize,
    },
}

struct Walk<'a> {
    tree: &'a Tree,
    links: &'a HashMap<usize, Vec<u8>>,
    steps: usize,
}

impl Walk<'_> {
    fn check(&mut self, link: usize, target: &[u8]) -> Result<(), Problem> {
        let mut hops = 0;
        let mut place = Place::Node(self.tree.nodes[link].parent);
        // What is still to be walked, the next component last.
        let mut ahead: Vec<&[u8]> = components(target)?;
        while let Some(part) = ahead.pop() {
            self.steps += 1;
            if self.steps > LINK_STEPS_MAX {
                return Err(Problem::Link { what: "is too long to follow" });
            }
            place = match (place, part) {
                (place, b"." | b"") => place,
                (Place::Node(ROOT), b"..") => return Err(Problem::LinkOut),
                (Place::Node(node), b"..") => Place::Node(self.tree.nodes[node].parent),
                (Place::Missing { above, levels: 1 }, b"..") => Place::Node(above),
                (Place::Missing { above, levels }, b"..") => Place::Missing { above, levels: levels - 1 },
                (Place::Missing { above, levels }, _) => Place::Missing { above, levels: levels + 1 },
                (Place::Node(node), part) => match self.tree.nodes[node].children.get(part) {
                    Some(child) => match self.links.get(child) {
                        Some(target) => {
                            hops += 1;
                            if hops > HOPS_MAX {
                                return Err(Problem::Link { what: "leads in a circle" });
                            }
                            ahead.extend(components(target)?);
                            Place::Node(node)
                        }
                        None => Place::Node(*child),
                    },
                    None => Place::Missing { above: node, levels: 1 },
                },
            };
        }
        Ok(())
    }
}

/// The components of a link's target, last first.
fn components(target: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    match target {
        [] => Err(Problem::Link { what: "is empty" }),
        [b'/', ..] => Err(Problem::LinkOut),
        _ if target.contains(&0) => Err(Problem::Link { what: "has a NUL byte" }),
        _ => Ok(target.split(|byte| *byte == b'/').rev().collect()),
    }
}
