//! One layer, read twice: first for its digest and its whiteouts, then for its files.

use std::fs::File;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::bundle::Layer;
use super::tar::{Entry, Kind, Reader, Skip, broken};
use super::tree::{Root, parts};
use crate::UnpackLimits;
use crate::archive::Section;
use crate::error::{Problem, Rejected};

const BUFFER_BYTES: usize = 128 << 10;
/// A layer may be this many times as large as it is compressed, and a little more: text seldom reaches a fifth of it.
const RATIO_MAX: u64 = 100;
const RATIO_GRACE: u64 = 64 << 20;
/// The largest window that is kept for a zstd stream, as a power of two: what its own tools make without being asked to.
const WINDOW_LOG_MAX: u32 = 27;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What else begins like this is of a file system's that is long gone.
const FOREIGN: &[u8] = b".wh..wh.";

/// What is left for the layers to come.
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) limits: UnpackLimits,
}

/// Puts a layer on top of what there is.
pub(super) fn apply(archive: &File, layer: &Layer, tree: &Root<'_>, budget: &mut Budget) -> Result<(), Rejected> {
    for whiteout in survey(archive, layer, budget)? {
        remove(&whiteout, tree).map_err(|problem| Rejected::entry(&whiteout, problem))?;
    }
    let mut reader = Reader::new(contents(archive, layer)?);
    while let Some(entry) = reader.next()? {
        write(&entry, &mut reader, tree).map_err(|problem| Rejected::entry(&entry.name, problem))?;
    }
    Ok(())
}

/// Reads the whole layer and verifies it; answers its whiteouts.
fn survey(archive: &File, layer: &Layer, budget: &mut Budget) -> Result<Vec<Vec<u8>>, Rejected> {
    let most = budget.bytes.min(layer.size.saturating_mul(RATIO_MAX).saturating_add(RATIO_GRACE));
    let bomb = most < budget.bytes;
    let hashed = Hashed { from: contents(archive, layer)?, hash: Sha256::new(), bytes: 0, most };
    let mut reader = Reader::new(hashed);
    let mut whiteouts = Vec::new();
    let surveyed = (|| {
        while let Some(entry) = reader.next()? {
            budget.entries = budget.entries.checked_sub(1).ok_or(Problem::TooManyEntries { limit: budget.limits.entries })?;
            if base(&entry.name).starts_with(WHITEOUT) {
                whiteouts.push(entry.name);
            }
        }
        Ok(())
    })();
    let mut rest = reader.into_inner();
    let read = surveyed.and_then(|()| rest.skip(u64::MAX).or_else(end_of_file).map_err(broken));
    if rest.bytes > most {
        let limit = budget.limits.bytes;
        return Err(if bomb { Problem::Bomb } else { Problem::TooLarge { limit } }.into());
    }
    read?;
    budget.bytes -= rest.bytes;
    let actual: [u8; 32] = rest.hash.finalize().into();
    if actual != layer.diff {
        let name = format!("the layer sha256:{}", dunlin_model::Digest(layer.diff));
        return Err(Problem::Digest { name }.into());
    }
    Ok(whiteouts)
}

fn end_of_file(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
}

fn base(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}

fn remove(whiteout: &[u8], tree: &Root<'_>) -> Result<(), Problem> {
    let path = parts(whiteout)?;
    let (last, folders) = path.split_last().expect("it has a base name");
    if *last == OPAQUE {
        return tree.clear(folders);
    }
    if last.starts_with(FOREIGN) {
        return Ok(());
    }
    match &last[WHITEOUT.len()..] {
        b"" | b"." | b".." => Err(Problem::Name { what: "is a whiteout of nothing" }),
        name => tree.remove(folders, name),
    }
}

fn write(entry: &Entry, contents: &mut Reader<Source<'_>>, tree: &Root<'_>) -> Result<(), Problem> {
    if base(&entry.name).starts_with(WHITEOUT) {
        return Ok(());
    }
    let path = parts(&entry.name)?;
    let Some((name, folders)) = path.split_last() else {
        return if entry.kind == Kind::Directory { tree.adopt_root(entry) } else { Err(Problem::Name { what: "is empty" }) };
    };
    match entry.kind {
        Kind::Directory => tree.make_directory(folders, name, entry),
        Kind::File => tree.make_file(folders, name, entry, contents),
        Kind::Link => tree.make_link(folders, name, entry),
        Kind::HardLink => tree.make_hard_link(folders, name, &parts(&entry.target)?),
        // A container has its own devices; a pipe is made when it is needed.
        Kind::Special => Ok(()),
    }
}

/// A layer, whatever it is compressed with.
enum Source<'a> {
    Plain(BufReader<Section<'a>>),
    Gzip(Box<MultiGzDecoder<BufReader<Section<'a>>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Section<'a>>>),
}

fn contents<'a>(archive: &'a File, layer: &Layer) -> Result<Source<'a>, Problem> {
    let section = || BufReader::with_capacity(BUFFER_BYTES, Section::new(archive, layer.at, layer.size));
    let mut magic = [0; 4];
    let read = Section::new(archive, layer.at, layer.size.min(4)).read(&mut magic).map_err(Problem::Io)?;
    Ok(match &magic[..read] {
        [0x1f, 0x8b, ..] => Source::Gzip(Box::new(MultiGzDecoder::new(section()))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(section()).map_err(Problem::Io)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(Problem::Io)?;
            Source::Zstd(decoder)
        }
        _ => Source::Plain(section()),
    })
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(from) => from.read(buffer),
            Self::Gzip(from) => from.read(buffer),
            Self::Zstd(from) => from.read(buffer),
        }
    }
}

impl Skip for Source<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}

/// Hashes what is read, and ends with an error after more than `most`.
struct Hashed<R> {
    from: R,
    hash: Sha256,
    bytes: u64,
    most: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.bytes += read as u64;
        if self.bytes > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<R: Read> Skip for Hashed<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}

fn skip_by_reading(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => left -= read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
