//! One file of lines: how a record looks, and reading a file that may end anywhere.
//!
//! A record is `length u32, crc32 u32, payload`; the payload is `time i64 (ns), flags u8, instance [32], request [32]
//! if flags & 1, text`. All little-endian. An open segment is called `{first}.log`, a sealed one `{first}-{last}.zst`
//! and is the same bytes in one zstd frame; `first` and `last` are nanoseconds since 1970 in 20 digits.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dunlin_model::{InstanceId, RequestId};
use jiff::Timestamp;

use super::LogEntry;

const HEADER_BYTES: usize = 8;
const ID_BYTES: usize = 32;
const FIXED_BYTES: usize = 8 + 1 + ID_BYTES;
const HAS_REQUEST: u8 = 1;
/// No record is longer; a longer length is damage.
const RECORD_BYTES_MAX: usize = 16 << 20;

const CRC: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);

/// Adds the record of `entry` to `out`.
pub(super) fn encode(entry: &LogEntry, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; HEADER_BYTES]);
    out.extend(nanoseconds(entry.time).to_le_bytes());
    out.push(if entry.request.is_some() { HAS_REQUEST } else { 0 });
    out.extend(entry.instance.as_str().as_bytes());
    if let Some(request) = &entry.request {
        out.extend(request.as_str().as_bytes());
    }
    out.extend(&entry.text);
    let (header, payload) = out[start..].split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("lines are cut long before");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&CRC.checksum(payload).to_le_bytes());
}

/// The records of `bytes` up to the first that is cut short or damaged. Each comes with where it ends.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (LogEntry, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (header, rest) = bytes[at..].split_first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let checksum = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let payload = rest.get(..length).filter(|_| length <= RECORD_BYTES_MAX)?;
        if CRC.checksum(payload) != checksum {
            return None;
        }
        at += HEADER_BYTES + length;
        Some((decode(payload)?, at))
    })
}

fn decode(payload: &[u8]) -> Option<LogEntry> {
    let (fixed, mut text) = payload.split_at_checked(FIXED_BYTES)?;
    let (time, rest) = fixed.split_first_chunk::<8>()?;
    let (flags, instance) = rest.split_first()?;
    let instance: InstanceId = std::str::from_utf8(instance).ok()?.parse().ok()?;
    let mut request: Option<RequestId> = None;
    if flags & HAS_REQUEST != 0 {
        let (id, rest) = text.split_at_checked(ID_BYTES)?;
        request = Some(std::str::from_utf8(id).ok()?.parse().ok()?);
        text = rest;
    }
    let time = Timestamp::from_nanosecond(i64::from_le_bytes(*time).into()).ok()?;
    Some(LogEntry { time, request, instance, text: text.into() })
}

pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time.as_nanosecond() < 0 { i64::MIN } else { i64::MAX })
}

/// A segment's file, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) first: i64,
    /// Absent while it is open.
    pub(super) last: Option<i64>,
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn open_path(folder: &Path, first: i64) -> PathBuf {
        folder.join(format!("{:020}.log", first.max(0)))
    }

    /// The segments of a function, oldest first. None if it has no folder.
    pub(super) fn list(folder: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some((first, last)) = name.to_str().and_then(parse) else { continue };
            let Ok(metadata) = entry.metadata() else { continue }; // removed meanwhile
            found.push(Self { path: entry.path(), first, last, bytes: metadata.len() });
        }
        // A crash between sealing and removing leaves both; the sealed one is whole and sorts first.
        found.sort_by_key(|segment| (segment.first, segment.last.is_none()));
        found.dedup_by_key(|segment| segment.first);
        Ok(found)
    }

    /// The bytes of all its records.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(&self.path)?;
        if self.last.is_some() {
            // A damaged frame gives what can be read of it.
            let _ = zstd::Decoder::new(file)?.read_to_end(&mut bytes);
        } else {
            (&file).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

fn parse(name: &str) -> Option<(i64, Option<i64>)> {
    match name.strip_suffix(".log") {
        Some(first) => Some((first.parse().ok()?, None)),
        None => {
            let (first, last) = name.strip_suffix(".zst")?.split_once('-')?;
            Some((first.parse().ok()?, Some(last.parse().ok()?)))
        }
    }
}

/// Compresses the open segment at `path` and removes it. Readers see one or the other, whole.
pub(super) fn seal(path: &Path, first: i64, last: i64) -> io::Result<()> {
    let folder = path.parent().expect("a segment's path has a folder");
    let temporary = path.with_extension("sealing");
    let mut encoder = zstd::Encoder::new(File::create(&temporary)?, 3)?;
    encoder.include_checksum(true)?;
    io::copy(&mut File::open(path)?, &mut encoder)?;
    let mut file = encoder.finish()?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(format!("{:020}-{:020}.zst", first.max(0), last.max(0))))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8], request: bool) -> LogEntry {
        LogEntry {
            time: Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(),
            request: request.then(RequestId::random),
            instance: InstanceId::random(),
            text: text.into(),
        }
    }

    #[test]
    fn any_bytes_come_back_as_they_were() {
        let entries =
            [entry(b"", false), entry(b"FC Invoke End RequestId: 1-forged\n\x1b[0m\0\xff", true), entry(&[9; 100_000], true)];
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| encode(entry, &mut bytes));
        assert_eq!(records(&bytes).map(|(entry, _)| entry).collect::<Vec<_>>(), entries);
    }

    #[test]
    fn a_file_cut_or_damaged_anywhere_gives_the_records_before() {
        let entries: Vec<_> = (0..4).map(|number| entry(format!("line {number}").as_bytes(), number % 2 == 0)).collect();
        let mut bytes = Vec::new();
        let mut ends = vec![];
        for entry in &entries {
            encode(entry, &mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(records(&bytes[..cut]).map(|(entry, _)| entry).collect::<Vec<_>>(), entries[..whole]);
            let mut damaged = bytes.clone();
            damaged[cut] ^= 0x10;
            assert_eq!(records(&damaged).map(|(entry, _)| entry).collect::<Vec<_>>(), entries[..whole]);
        }
    }
}
