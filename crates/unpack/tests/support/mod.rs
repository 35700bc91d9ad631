//! A zip writer that lies on request, and what the tests do with its work.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

use dunlin_unpack::{Rejected, UnpackLimits, Unpacked, unpack};
use flate2::Compression;
use flate2::write::DeflateEncoder;

pub(crate) const LIMITS: UnpackLimits = UnpackLimits { bytes: 64 << 20, entries: 1000 };

/// One entry, with every header member open to change.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) name: Vec<u8>,
    pub(crate) local_name: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) local_method: u16,
    pub(crate) flags: u16,
    pub(crate) local_flags: u16,
    pub(crate) made_by: u16,
    pub(crate) mode: u32,
    pub(crate) crc: u32,
    pub(crate) size: u32,
    pub(crate) compressed: u32,
    /// Checksum, compressed size and size in the header before the data.
    pub(crate) local: [u32; 3],
    pub(crate) extra: Vec<u8>,
    pub(crate) local_extra: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) after: Vec<u8>,
    pub(crate) offset: Option<u32>,
}

pub(crate) fn deflate(contents: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn crc(contents: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(contents);
    crc.sum()
}

pub(crate) fn file(name: impl AsRef<[u8]>, contents: &[u8]) -> Part {
    let mut part = Part {
        name: name.as_ref().to_vec(),
        local_name: name.as_ref().to_vec(),
        method: 8,
        local_method: 8,
        flags: 0,
        local_flags: 0,
        made_by: 3 << 8,
        mode: 0o100_644,
        crc: crc(contents),
        size: u32::try_from(contents.len()).unwrap(),
        compressed: 0,
        local: [0; 3],
        extra: vec![],
        local_extra: vec![],
        data: deflate(contents),
        after: vec![],
        offset: None,
    };
    part.compressed = u32::try_from(part.data.len()).unwrap();
    part.local = [part.crc, part.compressed, part.size];
    part
}

pub(crate) fn stored(name: impl AsRef<[u8]>, contents: &[u8]) -> Part {
    let length = u32::try_from(contents.len()).unwrap();
    Part {
        method: 0,
        local_method: 0,
        data: contents.to_vec(),
        compressed: length,
        local: [crc(contents), length, length],
        ..file(name, contents)
    }
}

pub(crate) fn link(name: &str, target: &str) -> Part {
    Part { mode: 0o120_777, ..stored(name, target.as_bytes()) }
}

pub(crate) fn folder(name: &str) -> Part {
    Part { mode: 0o040_755, ..stored(name, b"") }
}

impl Part {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Moves sizes and checksum behind the data, as writers do that cannot seek.
    pub(crate) fn described(self, signed: bool) -> Self {
        self.with(|part| {
            part.flags |= 8;
            part.local_flags |= 8;
            part.local = [0; 3];
            if signed {
                part.after.extend(b"PK\x07\x08");
            }
            for value in [part.crc, part.compressed, part.size] {
                part.after.extend(value.to_le_bytes());
            }
        })
    }

    /// Gives the sizes in 64-bit extra fields.
    pub(crate) fn wide(self) -> Self {
        self.with(|part| {
            let mut extra = vec![1, 0, 16, 0];
            extra.extend(u64::from(part.size).to_le_bytes());
            extra.extend(u64::from(part.compressed).to_le_bytes());
            part.extra.extend(&extra);
            part.local_extra.extend(&extra);
            (part.size, part.compressed) = (u32::MAX, u32::MAX);
            (part.local[1], part.local[2]) = (u32::MAX, u32::MAX);
        })
    }
}

/// What surrounds the entries.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    pub(crate) before: Vec<u8>,
    pub(crate) before_directory: Vec<u8>,
    pub(crate) after_directory: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) comment_bytes: Option<u16>,
    pub(crate) after: Vec<u8>,
    pub(crate) entries: Option<u16>,
    pub(crate) directory_bytes: Option<u32>,
    pub(crate) directory: Option<u32>,
    /// A 64-bit end: entries and how far its locator is off.
    pub(crate) end64: Option<(u64, u64)>,
}

pub(crate) fn zip(parts: &[Part]) -> Vec<u8> {
    framed(&Frame::default(), parts)
}

pub(crate) fn framed(frame: &Frame, parts: &[Part]) -> Vec<u8> {
    let mut out = frame.before.clone();
    let mut directory = Vec::new();
    for part in parts {
        let offset = part.offset.unwrap_or(u32::try_from(out.len()).unwrap());
        out.extend(b"PK\x03\x04");
        for value in [20, part.local_flags, part.local_method, 0, 0x0021] {
            out.extend(value.to_le_bytes());
        }
        for value in part.local {
            out.extend(value.to_le_bytes());
        }
        out.extend(u16::try_from(part.local_name.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(part.local_extra.len()).unwrap().to_le_bytes());
        out.extend(&part.local_name);
        out.extend(&part.local_extra);
        out.extend(&part.data);
        out.extend(&part.after);

        directory.extend(b"PK\x01\x02");
        for value in [part.made_by, 20, part.flags, part.method, 0, 0x0021] {
            directory.extend(value.to_le_bytes());
        }
        for value in [part.crc, part.compressed, part.size] {
            directory.extend(value.to_le_bytes());
        }
        for value in [u16::try_from(part.name.len()).unwrap(), u16::try_from(part.extra.len()).unwrap(), 0, 0, 0] {
            directory.extend(value.to_le_bytes());
        }
        directory.extend((part.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&part.name);
        directory.extend(&part.extra);
    }
    out.extend(&frame.before_directory);
    let at = out.len();
    out.extend(&directory);
    if let Some((entries, off)) = frame.end64 {
        let end_at = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for value in [entries, entries, directory.len() as u64, at as u64] {
            out.extend(value.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((end_at + off).to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    out.extend(&frame.after_directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    let entries = frame.entries.unwrap_or(u16::try_from(parts.len()).unwrap());
    out.extend(entries.to_le_bytes());
    out.extend(entries.to_le_bytes());
    out.extend(frame.directory_bytes.unwrap_or(u32::try_from(directory.len()).unwrap()).to_le_bytes());
    out.extend(frame.directory.unwrap_or(u32::try_from(at).unwrap()).to_le_bytes());
    out.extend(frame.comment_bytes.unwrap_or(u16::try_from(frame.comment.len()).unwrap()).to_le_bytes());
    out.extend(&frame.comment);
    out.extend(&frame.after);
    out
}

/// Unpacks `bytes` into `work/out` and checks that nothing else in `work` changed.
pub(crate) fn unpack_in(work: &Path, bytes: &[u8], limits: &UnpackLimits) -> Result<Unpacked, Rejected> {
    let out = work.join("out");
    fs::create_dir(&out).unwrap();
    fs::write(work.join("witness"), "untouched").unwrap();
    let mut zip = tempfile::tempfile().unwrap();
    zip.write_all(bytes).unwrap();
    zip.rewind().unwrap();
    let result = unpack(&zip, File::open(&out).unwrap().as_fd(), limits);
    let mut beside: Vec<_> = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["out", "witness"], "something was written outside");
    let mut text = String::new();
    File::open(work.join("witness")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "untouched");
    result
}
