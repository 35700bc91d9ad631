//! Writing the tree, a folder at a time, each step by the descriptor of the folder above it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat, symlinkat, utimensat};
use sha2::{Digest, Sha256};

use crate::Unpacked;
use crate::archive::{Archive, Entry, Method, Section};
use crate::error::{Problem, Rejected};
use crate::tree::{Kind, Node, ROOT, Tree};

const BUFFER_BYTES: usize = 64 << 10;
/// The longest target of a link, one less than the kernel's limit for paths.
const TARGET_BYTES_MAX: u64 = 4095;
/// Bytes of all targets, which are held in memory together.
const TARGETS_BYTES_MAX: u64 = 8 << 20;

/// Reads the targets of all links, by node.
pub(crate) fn read_links(zip: &File, archive: &Archive, tree: &Tree) -> Result<HashMap<usize, Vec<u8>>, Rejected> {
    let mut links = HashMap::new();
    let mut total = 0;
    for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Link) {
        let entry = &archive.entries[node.entry.expect("only entries make links")];
        let wrong = |problem| Rejected::entry(&entry.name, problem);
        if entry.size > TARGET_BYTES_MAX {
            return Err(wrong(Problem::Link { what: "is longer than 4095 bytes" }));
        }
        total += entry.size;
        if total > TARGETS_BYTES_MAX {
            return Err(wrong(Problem::Link { what: "is one too many: the archive's links are larger than 8 MiB" }));
        }
        let mut target = Vec::new();
        decode(zip, entry, &mut target).map_err(wrong)?;
        links.insert(index, target);
    }
    Ok(links)
}

/// Writes everything into `out`, which must be empty. Nothing is synced: who gives the folder its name does that.
pub(crate) fn write(
    zip: &File,
    out: BorrowedFd<'_>,
    archive: &Archive,
    tree: &Tree,
    links: &HashMap<usize, Vec<u8>>,
) -> Result<Unpacked, Rejected> {
    let mut writer = Writer { zip, archive, tree, links, path: Vec::new(), manifest: Sha256::new(), bytes: 0 };
    writer.children(out, &tree.nodes[ROOT]).map_err(|problem| Rejected::entry(&writer.path, problem))?;
    Ok(Unpacked { bytes: writer.bytes, entries: tree.nodes.len() as u64 - 1, manifest: writer.manifest.finalize().into() })
}

struct Writer<'a> {
    zip: &'a File,
    archive: &'a Archive,
    tree: &'a Tree,
    links: &'a HashMap<usize, Vec<u8>>,
    /// Of what is being written; when something fails, the place of the failure.
    path: Vec<u8>,
    manifest: Sha256,
    bytes: u64,
}

impl Writer<'_> {
    fn children(&mut self, folder: BorrowedFd<'_>, node: &Node) -> Result<(), Problem> {
        let parent_bytes = self.path.len();
        for (name, &child) in &node.children {
            self.path.truncate(parent_bytes);
            if parent_bytes > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            let node = &self.tree.nodes[child];
            let entry = node.entry.map(|entry| &self.archive.entries[entry]);
            match (node.kind, entry) {
                (Kind::Directory, entry) => self.directory(folder, name, node, entry)?,
                (Kind::File, Some(entry)) => self.file(folder, name, entry)?,
                (Kind::Link, Some(entry)) => self.link(folder, name, entry, &self.links[&child])?,
                (Kind::File | Kind::Link, None) => unreachable!("only folders are implied"),
            }
        }
        self.path.truncate(parent_bytes);
        Ok(())
    }

    fn directory(&mut self, folder: BorrowedFd<'_>, name: &[u8], node: &Node, entry: Option<&Entry>) -> Result<(), Problem> {
        if let Some(entry) = entry {
            decode(self.zip, entry, &mut io::sink())?; // empty, and its checksum holds
        }
        mkdirat(folder, name, Mode::RWXU).map_err(system)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(folder, name, flags, Mode::empty()).map_err(system)?;
        self.listed(b'd', 0o555, &[]);
        self.children(made.as_fd(), node)?;
        if let Some(entry) = entry {
            futimens(&made, &times(entry)).map_err(system)?;
        }
        fchmod(&made, Mode::from_raw_mode(0o555)).map_err(system)
    }

    fn file(&mut self, folder: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(system)?);
        let mut hashed = Hashed { file: &made, hash: Sha256::new() };
        decode(self.zip, entry, &mut hashed)?;
        let hash = hashed.hash.finalize();
        let mode = 0o444 | entry.mode & 0o111;
        fchmod(&made, Mode::from_raw_mode(mode)).map_err(system)?;
        futimens(&made, &times(entry)).map_err(system)?;
        self.bytes += entry.size;
        self.listed(b'f', mode, &hash);
        Ok(())
    }

    fn link(&mut self, folder: BorrowedFd<'_>, name: &[u8], entry: &Entry, target: &[u8]) -> Result<(), Problem> {
        symlinkat(target, folder, name).map_err(system)?;
        utimensat(folder, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(system)?;
        self.listed(b'l', 0o777, &Sha256::digest(target));
        Ok(())
    }

    /// One line of the manifest. Paths hold no NUL, so lines cannot run into each other.
    fn listed(&mut self, kind: u8, mode: u32, hash: &[u8]) {
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.manifest.update(format!("{} {mode:04o} {hash} ", char::from(kind)));
        self.manifest.update(&self.path);
        self.manifest.update([0]);
    }
}

fn system(error: rustix::io::Errno) -> Problem {
    Problem::Io(error.into())
}

fn times(entry: &Entry) -> Timestamps {
    let modified = Timespec { tv_sec: entry.modified, tv_nsec: 0 };
    Timestamps { last_access: modified, last_modification: modified }
}

struct Hashed<'a> {
    file: &'a File,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes an entry's contents to `out`: exactly as many bytes as declared, out of exactly the bytes declared, with the
/// right checksum. No byte more than declared is ever written.
fn decode(zip: &File, entry: &Entry, out: &mut impl Write) -> Result<(), Problem> {
    let section = Section::new(zip, entry.data, entry.compressed);
    match entry.method {
        Method::Stored => copy(section, entry, out),
        // An empty folder or file may be marked as deflated without a single byte of it.
        Method::Deflate if entry.compressed == 0 && entry.size == 0 => copy(section, entry, out),
        Method::Deflate => {
            let mut decoder = DeflateDecoder::new(BufReader::with_capacity(BUFFER_BYTES, section));
            copy(&mut decoder, entry, out)?;
            // Bytes after the end of the stream would be read by nobody, or by somebody else.
            if decoder.total_in() == entry.compressed { Ok(()) } else { Err(Problem::Corrupt) }
        }
    }
}

fn copy(mut from: impl Read, entry: &Entry, out: &mut impl Write) -> Result<(), Problem> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut crc = Crc::new();
    let mut left = entry.size;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Err(Problem::Corrupt);
            }
            Err(error) => return Err(Problem::Io(error)),
        };
        left = left.checked_sub(read as u64).ok_or(Problem::Size)?;
        crc.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(Problem::Io)?;
    }
    match (left, crc.sum() == entry.crc) {
        (0, true) => Ok(()),
        (0, false) => Err(Problem::Checksum),
        _ => Err(Problem::Size),
    }
}
