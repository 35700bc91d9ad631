//! The archive as a whole: its list of entries, each proved to be where and what the directory says.
//!
//! # Invariants
//! - The entries' headers, data and descriptors tile the file from its first byte to the directory: no two share a
//!   byte, and no byte is left over.
//! - What the header in front of the data says equals what the directory says.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use crate::UnpackLimits;
use crate::error::{Problem, Rejected};
use crate::format::{CENTRAL_BYTES, Central, End, Extra, LOCAL_BYTES, is_descriptor, read_local};

/// Most bytes of the directory. 100,000 entries with names of 100 bytes and the usual extra fields take 18 MiB.
const DIRECTORY_BYTES_MAX: u64 = 32 << 20;
/// Below this much output nobody cares about the ratio.
const BOMB_BYTES_MIN: u64 = 16 << 20;
/// The largest ratio of output to archive. Text packs 10 : 1; deflate's limit is 1032 : 1.
const BOMB_RATIO: u64 = 100;

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_STRONG: u16 = 1 << 6;
const FLAG_MASKED: u16 = 1 << 13;

pub(crate) struct Archive {
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    pub(crate) name: Box<[u8]>,
    pub(crate) method: Method,
    /// Unix mode with the kind of file; 0 when the archive does not say.
    pub(crate) mode: u32,
    /// Seconds since 1970.
    pub(crate) modified: i64,
    pub(crate) crc: u32,
    pub(crate) compressed: u64,
    pub(crate) size: u64,
    /// Where the compressed bytes begin.
    pub(crate) data: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Stored,
    Deflate,
}

/// The bytes of a file from one place to another.
pub(crate) struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> Section<'a> {
    pub(crate) fn new(file: &'a File, at: u64, length: u64) -> Self {
        Self { file, at, end: at.saturating_add(length) }
    }

    /// Passes over bytes. False when there are not as many.
    pub(crate) fn pass(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.end - self.at;
        self.at = if fits { self.at + bytes } else { self.end };
        fits
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

pub(crate) fn read(file: &File, limits: &UnpackLimits) -> Result<Archive, Rejected> {
    let length = file.metadata().map_err(Problem::from)?.len();
    let end = End::find(file, length)?;
    if end.entries == 0 {
        return Err(Problem::Empty.into());
    }
    if end.entries > limits.entries {
        return Err(Problem::TooManyEntries { limit: limits.entries }.into());
    }
    if end.directory_bytes > DIRECTORY_BYTES_MAX {
        return Err(Problem::DirectoryTooLarge.into());
    }
    let mut total = 0u64;
    let mut found = Vec::new();
    let mut directory = BufReader::with_capacity(1 << 16, Section::new(file, end.directory, end.directory_bytes));
    for _ in 0..end.entries {
        let (entry, offset, flags) = read_entry(&mut directory)?;
        total = total.saturating_add(entry.size);
        if total > limits.bytes {
            return Err(Problem::TooLarge { limit: limits.bytes }.into());
        }
        found.push((entry, offset, flags));
    }
    if directory.read(&mut [0]).map_err(Problem::from)? != 0 {
        return Err(Problem::Directory { what: "it has more entries than its end says" }.into());
    }
    if total > BOMB_BYTES_MIN && total / BOMB_RATIO > length {
        return Err(Problem::Bomb.into());
    }
    tile(file, &mut found, end.directory)?;
    Ok(Archive { entries: found.into_iter().map(|(entry, ..)| entry).collect() })
}

/// One header of the directory, with the place of the local header and the flags.
fn read_entry(directory: &mut impl Read) -> Result<(Entry, u64, u16), Rejected> {
    let short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::Directory { what: "it has fewer entries than its end says" },
        _ => Problem::Io(error),
    };
    let mut header = [0; CENTRAL_BYTES];
    directory.read_exact(&mut header).map_err(short)?;
    let mut central = Central::read(&header)?;
    let mut name = vec![0; central.common.name_bytes];
    directory.read_exact(&mut name).map_err(short)?;
    let mut extra = vec![0; central.common.extra_bytes + central.comment_bytes];
    directory.read_exact(&mut extra).map_err(short)?;

    let wrong = |problem| Rejected::entry(&name, problem);
    let extra = Extra::read(&extra[..central.common.extra_bytes]).map_err(wrong)?;
    central.widen(&extra).map_err(wrong)?;
    let common = &central.common;
    if common.flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED) != 0 || extra.is_encrypted {
        return Err(wrong(Problem::Encrypted));
    }
    if extra.is_hard_link {
        return Err(wrong(Problem::HardLink));
    }
    let method = match common.method {
        0 if common.compressed != common.size => return Err(wrong(Problem::Size)),
        0 => Method::Stored,
        8 => Method::Deflate,
        method => return Err(wrong(Problem::Method { method })),
    };
    let entry = Entry {
        mode: if central.made_on_unix { central.attributes >> 16 } else { 0 },
        modified: extra.modified.unwrap_or_else(|| seconds_of(common.dos_time)),
        crc: common.crc,
        compressed: common.compressed,
        size: common.size,
        data: 0,
        method,
        name: name.into(),
    };
    Ok((entry, central.offset, common.flags))
}

/// Walks the local headers in the order of the file and proves that they tile it.
fn tile(file: &File, found: &mut [(Entry, u64, u16)], directory: u64) -> Result<(), Rejected> {
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|&index| found[index].1);
    if found[order[0]].1 != 0 {
        return Err(Problem::ForeignData { place: "before its first entry" }.into());
    }
    for (position, &index) in order.iter().enumerate() {
        let next = order.get(position + 1).map_or(directory, |&next| found[next].1);
        let (entry, offset, flags) = &mut found[index];
        entry.data = check_local(file, entry, *offset, *flags, next).map_err(|problem| Rejected::entry(&entry.name, problem))?;
    }
    Ok(())
}

/// Compares an entry's two headers and gives back where its data begins. All of it lies in `offset..next`.
fn check_local(file: &File, entry: &Entry, offset: u64, flags: u16, next: u64) -> Result<u64, Problem> {
    const COMPARED: u16 = FLAG_ENCRYPTED | FLAG_DESCRIPTOR | FLAG_STRONG | FLAG_MASKED;
    let overlap = |end: u64| if end > next { Err(Problem::Overlap) } else { Ok(end) };
    overlap(offset.saturating_add(LOCAL_BYTES as u64))?;
    let (local, name) = read_local(file, offset)?;
    let data = offset + (LOCAL_BYTES + local.name_bytes + local.extra_bytes) as u64;
    overlap(data)?;
    let differ = |what| Err(Problem::HeaderMismatch { what });
    if name != *entry.name {
        return differ("the name");
    }
    if (local.flags ^ flags) & COMPARED != 0 {
        return differ("the flags");
    }
    if (local.method == 8) != (entry.method == Method::Deflate) || !matches!(local.method, 0 | 8) {
        return differ("the compression");
    }
    let described = flags & FLAG_DESCRIPTOR != 0;
    let same = (local.crc, local.compressed, local.size) == (entry.crc, entry.compressed, entry.size);
    let left_out = described && (local.crc, local.compressed, local.size) == (0, 0, 0);
    if !(same || left_out) {
        return differ("size or checksum");
    }
    let gap = next - overlap(data.saturating_add(entry.compressed))?;
    if !described {
        return if gap == 0 { Ok(data) } else { Err(Problem::ForeignData { place: "after an entry" }) };
    }
    let expected = crate::format::Common { crc: entry.crc, compressed: entry.compressed, size: entry.size, ..local };
    if is_descriptor(file, data + entry.compressed, gap, &expected)? { Ok(data) } else { Err(Problem::Descriptor) }
}

/// A DOS date and time, read as UTC. What is no date counts as 1980.
fn seconds_of(dos: u32) -> i64 {
    const EPOCH_1980: i64 = 315_532_800;
    let (time, date) = (i64::from(dos & 0xffff), i64::from(dos >> 16));
    let (year, month, day) = (1980 + (date >> 9), (date >> 5) & 15, date & 31);
    let (hour, minute, second) = (time >> 11, (time >> 5) & 63, (time & 31) * 2);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return EPOCH_1980;
    }
    // Days since 1970 of a Gregorian date: Hinnant's `days_from_civil`, for years after 0.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    days * 86_400 + hour * 3_600 + minute * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_are_read_as_utc() {
        let dos = |year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32| {
            ((year - 1980) << 25) | (month << 21) | (day << 16) | (hour << 11) | (minute << 5) | (second / 2)
        };
        assert_eq!(seconds_of(dos(1980, 1, 1, 0, 0, 0)), 315_532_800);
        assert_eq!(seconds_of(dos(2024, 2, 29, 12, 34, 56)), 1_709_210_096);
        assert_eq!(seconds_of(dos(2026, 12, 31, 23, 59, 58)), 1_798_761_598);
        assert_eq!(seconds_of(0), 315_532_800);
    }
}
