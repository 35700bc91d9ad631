//! The bytes of a zip: each header as it stands there, believed in nothing.
//!
//! Layout (little-endian), from PKWARE's APPNOTE: `[local header, data, descriptor?]* directory [end64 locator64]? end`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::Problem;

const END: &[u8; 4] = b"PK\x05\x06";
const END64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR64: &[u8; 4] = b"PK\x06\x07";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const LOCAL: &[u8; 4] = b"PK\x03\x04";
const DESCRIPTOR: &[u8; 4] = b"PK\x07\x08";

const END_BYTES: usize = 22;
const LOCATOR64_BYTES: u64 = 20;
const COMMENT_BYTES_MAX: usize = 0xffff;
pub(crate) const CENTRAL_BYTES: usize = 46;
pub(crate) const LOCAL_BYTES: usize = 30;

/// Extra fields this reader knows.
const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_UNIX_LINK: u16 = 0x000d;
const EXTRA_TIME: u16 = 0x5455;
const EXTRA_AES: u16 = 0x9901;

/// Reads little-endian numbers off the front. Callers check the length first.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_first_chunk().expect("the caller checked the length");
        self.0 = tail;
        *head
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Where the directory is, as the archive's end says.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) entries: u64,
    pub(crate) directory: u64,
    pub(crate) directory_bytes: u64,
}

impl End {
    /// Finds the end record: the last of its signature, and nothing but its own comment may follow.
    pub(crate) fn find(file: &File, length: u64) -> Result<Self, Problem> {
        let tail_bytes = usize::try_from(length).unwrap_or(usize::MAX).min(END_BYTES + COMMENT_BYTES_MAX);
        let mut tail = vec![0; tail_bytes];
        let tail_at = length - tail_bytes as u64;
        file.read_exact_at(&mut tail, tail_at)?;
        let Some(at) = tail.windows(END_BYTES).rposition(|window| window.starts_with(END)) else {
            let mut head = [0; 4];
            let is_zip = length >= 4 && file.read_exact_at(&mut head, 0).is_ok() && head == *LOCAL;
            return Err(if is_zip { Problem::Truncated } else { Problem::NotAZip });
        };
        let mut numbers = Numbers(&tail[at + 4..]);
        let (disk, directory_disk, entries_here, entries) = (numbers.u16(), numbers.u16(), numbers.u16(), numbers.u16());
        let (directory_bytes, directory, comment) = (numbers.u32(), numbers.u32(), numbers.u16());
        match (tail.len() - at - END_BYTES).cmp(&usize::from(comment)) {
            std::cmp::Ordering::Less => return Err(Problem::Truncated),
            std::cmp::Ordering::Greater => return Err(Problem::ForeignData { place: "after its end" }),
            std::cmp::Ordering::Equal => {}
        }
        if disk != 0 || directory_disk != 0 || entries != entries_here {
            return Err(Problem::Split);
        }
        let end = Self { entries: entries.into(), directory: directory.into(), directory_bytes: directory_bytes.into() };
        let end_at = tail_at + at as u64;
        let (end, directory_end) = match end_at.checked_sub(LOCATOR64_BYTES) {
            Some(locator_at) => end.widened(file, locator_at, end_at)?,
            None => (end, end_at),
        };
        match end.directory.checked_add(end.directory_bytes) {
            Some(claimed) if claimed == directory_end => Ok(end),
            Some(claimed) if claimed < directory_end => {
                Err(Problem::ForeignData { place: "before its first entry or after its directory" })
            }
            _ => Err(Problem::Directory { what: "it reaches beyond its end" }),
        }
    }

    /// Follows the 64-bit locator when there is one. Gives back where the directory must end, too.
    fn widened(self, file: &File, locator_at: u64, end_at: u64) -> Result<(Self, u64), Problem> {
        const RECORD_BYTES: usize = 56;
        let mut locator = [0; LOCATOR64_BYTES as usize];
        file.read_exact_at(&mut locator, locator_at)?;
        if !locator.starts_with(LOCATOR64) {
            return Ok((self, end_at));
        }
        let mut numbers = Numbers(&locator[4..]);
        let (disk, record_at, disks) = (numbers.u32(), numbers.u64(), numbers.u32());
        if disk != 0 || disks != 1 {
            return Err(Problem::Split);
        }
        if record_at.checked_add(RECORD_BYTES as u64) != Some(locator_at) {
            return Err(Problem::Zip64 { what: "the end record is not where its locator says" });
        }
        let mut record = [0; RECORD_BYTES];
        file.read_exact_at(&mut record, record_at)?;
        let mut numbers = Numbers(&record[4..]);
        let (size, _versions, disks) = (numbers.u64(), numbers.u32(), numbers.u64());
        if !record.starts_with(END64) || size != RECORD_BYTES as u64 - 12 || disks != 0 {
            return Err(Problem::Zip64 { what: "the end record is malformed" });
        }
        let (entries_here, entries, directory_bytes, directory) = (numbers.u64(), numbers.u64(), numbers.u64(), numbers.u64());
        let agrees = |narrow: u64, mask: u64, wide: u64| narrow == mask || narrow == wide;
        if entries != entries_here
            || !agrees(self.entries, 0xffff, entries)
            || !agrees(self.directory_bytes, 0xffff_ffff, directory_bytes)
            || !agrees(self.directory, 0xffff_ffff, directory)
        {
            return Err(Problem::Zip64 { what: "the two end records differ" });
        }
        Ok((Self { entries, directory, directory_bytes }, record_at))
    }
}

/// The members that a local and a directory header share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) dos_time: u32,
    pub(crate) crc: u32,
    pub(crate) compressed: u64,
    pub(crate) size: u64,
    pub(crate) name_bytes: usize,
    pub(crate) extra_bytes: usize,
}

impl Common {
    fn read(numbers: &mut Numbers<'_>) -> Self {
        Self {
            flags: numbers.u16(),
            method: numbers.u16(),
            dos_time: numbers.u32(),
            crc: numbers.u32(),
            compressed: numbers.u32().into(),
            size: numbers.u32().into(),
            name_bytes: numbers.u16().into(),
            extra_bytes: numbers.u16().into(),
        }
    }

    /// Takes the 64-bit values of sizes that do not fit. `offset` is only in the directory.
    fn widen(&mut self, extra: &Extra<'_>, offset: Option<&mut u64>) -> Result<(), Problem> {
        let mut field = extra.zip64.unwrap_or_default();
        for value in [Some(&mut self.size), Some(&mut self.compressed), offset].into_iter().flatten() {
            if *value == 0xffff_ffff {
                let Some((wide, rest)) = field.split_first_chunk() else {
                    return Err(Problem::Zip64 { what: "a size is announced and missing" });
                };
                (*value, field) = (u64::from_le_bytes(*wide), rest);
            }
        }
        Ok(())
    }
}

/// An entry's header in the directory.
#[derive(Debug)]
pub(crate) struct Central {
    pub(crate) common: Common,
    pub(crate) made_on_unix: bool,
    pub(crate) comment_bytes: usize,
    pub(crate) attributes: u32,
    pub(crate) offset: u64,
}

impl Central {
    pub(crate) fn read(bytes: &[u8; CENTRAL_BYTES]) -> Result<Self, Problem> {
        if !bytes.starts_with(CENTRAL) {
            return Err(Problem::Directory { what: "a header does not begin with its signature" });
        }
        let mut numbers = Numbers(&bytes[4..]);
        let (made_by, _needed) = (numbers.u16(), numbers.u16());
        let common = Common::read(&mut numbers);
        let (comment, disk, _internal) = (numbers.u16(), numbers.u16(), numbers.u16());
        let (attributes, offset) = (numbers.u32(), numbers.u32());
        if disk != 0 {
            return Err(Problem::Split);
        }
        // 3 is Unix, 19 is macOS; other systems' attributes say nothing about modes.
        let made_on_unix = matches!(made_by >> 8, 3 | 19);
        Ok(Self { common, made_on_unix, comment_bytes: comment.into(), attributes, offset: offset.into() })
    }

    pub(crate) fn widen(&mut self, extra: &Extra<'_>) -> Result<(), Problem> {
        self.common.widen(extra, Some(&mut self.offset))
    }
}

/// Reads the header in front of an entry's data, with its name.
pub(crate) fn read_local(file: &File, offset: u64) -> Result<(Common, Vec<u8>), Problem> {
    let mut bytes = [0; LOCAL_BYTES];
    file.read_exact_at(&mut bytes, offset)?;
    if !bytes.starts_with(LOCAL) {
        return Err(Problem::HeaderMismatch { what: "their place" });
    }
    let mut common = Common::read(&mut Numbers(&bytes[6..]));
    let mut rest = vec![0; common.name_bytes + common.extra_bytes];
    file.read_exact_at(&mut rest, offset + LOCAL_BYTES as u64)?;
    let extra = rest.split_off(common.name_bytes);
    common.widen(&Extra::read(&extra)?, None)?;
    Ok((common, rest))
}

/// Whether the `gap` bytes at `at` are the descriptor of an entry with these values, in any of its four forms.
pub(crate) fn is_descriptor(file: &File, at: u64, gap: u64, expected: &Common) -> io::Result<bool> {
    let mut bytes = [0; 24];
    let Some(bytes) = usize::try_from(gap).ok().and_then(|gap| bytes.get_mut(..gap)) else { return Ok(false) };
    file.read_exact_at(bytes, at)?;
    let (narrow, signed) = match bytes.len() {
        12 => (true, false),
        16 => (true, true),
        20 => (false, false),
        24 => (false, true),
        _ => return Ok(false),
    };
    if signed && !bytes.starts_with(DESCRIPTOR) {
        return Ok(false);
    }
    let mut numbers = Numbers(&bytes[if signed { 4 } else { 0 }..]);
    let crc = numbers.u32();
    let (compressed, size) = if narrow { (numbers.u32().into(), numbers.u32().into()) } else { (numbers.u64(), numbers.u64()) };
    Ok((crc, compressed, size) == (expected.crc, expected.compressed, expected.size))
}

/// What an entry's extra fields say.
#[derive(Debug, Default)]
pub(crate) struct Extra<'a> {
    zip64: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub(crate) modified: Option<i64>,
    pub(crate) is_hard_link: bool,
    pub(crate) is_encrypted: bool,
}

impl<'a> Extra<'a> {
    pub(crate) fn read(mut bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut extra = Self::default();
        // Fewer than four bytes at the end are padding that some tools leave for alignment.
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let mut numbers = Numbers(head);
            let (id, length) = (numbers.u16(), usize::from(numbers.u16()));
            let Some((field, rest)) = rest.split_at_checked(length) else { break };
            bytes = rest;
            match id {
                EXTRA_ZIP64 if extra.zip64.replace(field).is_some() => {
                    return Err(Problem::Zip64 { what: "they are given twice" });
                }
                EXTRA_UNIX_LINK => extra.is_hard_link |= field.len() > 12,
                EXTRA_AES => extra.is_encrypted = true,
                EXTRA_TIME if field.len() >= 5 && field[0] & 1 == 1 => {
                    extra.modified = Some(i32::from_le_bytes([field[1], field[2], field[3], field[4]]).into());
                }
                _ => {}
            }
        }
        Ok(extra)
    }
}
