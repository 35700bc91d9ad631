//! Tar archives, read as a stream: the plain form, pax headers and GNU's long names.
//!
//! # Invariants
//! - Every header's checksum holds, and no number is read as another one than it says.
//! - Memory does not grow with contents: names and pax headers are capped.

use std::io::{self, Read};

use crate::error::Problem;

const BLOCK: usize = 512;
/// Bytes of all extended headers of one entry.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;
const NAME_BYTES_MAX: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    HardLink,
    /// A device or a pipe.
    Special,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) modified: i64,
    /// Where a link leads.
    pub(crate) target: Vec<u8>,
}

/// Entries of an archive, one after the other. The contents of the last one are read through [`Read`].
pub(crate) struct Reader<R> {
    from: R,
    /// Of the current entry's contents, and of the padding behind them.
    left: u64,
    padding: u64,
    /// Bytes that were read or skipped.
    position: u64,
}

/// Something that can pass over bytes without giving them out.
pub(crate) trait Skip: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl<R: Skip> Reader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0, position: 0 }
    }

    /// Where the contents of the current entry begin, as long as nothing of them was read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// What is behind the archive.
    pub(crate) fn into_inner(self) -> R {
        self.from
    }

    /// The next entry, after what is left of the current one. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Problem> {
        let (mut long_name, mut long_target, mut pax) = (None, None, Pax::default());
        let mut extended = 0;
        loop {
            self.pass(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return if extended == 0 { Ok(None) } else { Err(Problem::Tar { what: "it ends after an extended header" }) };
            };
            let flag = header[156];
            let size = number(&header[124..136])?;
            if matches!(flag, b'x' | b'g' | b'L' | b'K') {
                extended += size;
                if extended > EXTENDED_BYTES_MAX {
                    return Err(Problem::Tar { what: "an extended header is longer than 1 MiB" });
                }
                let text = self.contents(size)?;
                match flag {
                    b'x' => pax.read(&text)?,
                    b'L' => long_name = Some(until_nul(&text).to_vec()),
                    b'K' => long_target = Some(until_nul(&text).to_vec()),
                    // What is said for all entries is of no concern here.
                    _ => {}
                }
                continue;
            }
            let mut entry = entry(&header, flag, size)?;
            entry.name = pax.path.take().or(long_name).unwrap_or(entry.name);
            entry.target = pax.target.take().or(long_target).unwrap_or(entry.target);
            entry.uid = pax.uid.unwrap_or(entry.uid);
            entry.gid = pax.gid.unwrap_or(entry.gid);
            entry.modified = pax.modified.unwrap_or(entry.modified);
            if let Some(size) = pax.size.filter(|_| entry.kind == Kind::File) {
                entry.size = size;
            }
            if entry.name.len() > NAME_BYTES_MAX || entry.target.len() > NAME_BYTES_MAX {
                return Err(Problem::Tar { what: "a name is longer than 4096 bytes" });
            }
            if entry.kind == Kind::File && entry.name.ends_with(b"/") {
                // As the first tar had it.
                entry.kind = Kind::Directory;
            }
            self.expect(entry.size)?;
            if pax.sparse || flag == b'S' {
                return Err(Problem::Sparse);
            }
            return Ok(Some(entry));
        }
    }

    fn expect(&mut self, size: u64) -> Result<(), Problem> {
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        if size.checked_add(padding).is_none() {
            return Err(Problem::Tar { what: "an entry's size is out of range" });
        }
        (self.left, self.padding) = (size, padding);
        Ok(())
    }

    fn contents(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        self.expect(size)?;
        let mut bytes = Vec::new();
        io::Read::by_ref(self).read_to_end(&mut bytes).map_err(broken)?;
        if self.left > 0 { Err(Problem::Truncated) } else { Ok(bytes) }
    }

    fn pass(&mut self, bytes: u64) -> Result<(), Problem> {
        self.from.skip(bytes).map_err(broken)?;
        self.position += bytes;
        Ok(())
    }

    /// The next header. `None` at the end of the archive: a block of zeros, or no block at all.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Problem> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Problem::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        self.position += BLOCK as u64;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) });
        if number(&header[148..156])? != sum.sum::<u64>() {
            return Err(Problem::Tar { what: "a header's checksum does not hold" });
        }
        Ok(Some(header))
    }
}

impl<R: Skip> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        self.left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

/// What went wrong while reading what may be compressed.
pub(crate) fn broken(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::Truncated,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Problem::Corrupt,
        // What zstd finds wrong comes without a kind.
        io::ErrorKind::Other if error.raw_os_error().is_none() => Problem::Corrupt,
        _ => Problem::Io(error),
    }
}

fn entry(header: &[u8; BLOCK], flag: u8, size: u64) -> Result<Entry, Problem> {
    let kind = match flag {
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Link,
        b'3' | b'4' | b'6' => Kind::Special,
        b'5' => Kind::Directory,
        _ => return Err(Problem::Tar { what: "an entry is of an unknown kind" }),
    };
    let mut name = until_nul(&header[..100]).to_vec();
    let prefix = until_nul(&header[345..500]);
    // GNU's form has other things there.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        name = [prefix, b"/", &name].concat();
    }
    let modified = i64::try_from(number(&header[136..148]).unwrap_or(0)).unwrap_or(0);
    Ok(Entry {
        name,
        kind,
        mode: u32::try_from(number(&header[100..108])? & 0o7777).expect("twelve bits"),
        uid: number(&header[108..116])?,
        gid: number(&header[116..124])?,
        // Only files have contents, whatever is said of others.
        size: if kind == Kind::File { size } else { 0 },
        modified,
        target: until_nul(&header[157..257]).to_vec(),
    })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, or since POSIX's are too few, a binary number behind a first byte of 0x80.
fn number(field: &[u8]) -> Result<u64, Problem> {
    let wrong = Problem::Tar { what: "a header holds something that is no number" };
    if field[0] & 0x80 != 0 {
        let (first, rest) = field.split_first().expect("fields are not empty");
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if *first != 0x80 || high.iter().any(|byte| *byte != 0) {
            return Err(wrong);
        }
        return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = until_nul(field).trim_ascii();
    if !text.iter().all(|byte| (b'0'..=b'7').contains(byte)) {
        return Err(wrong);
    }
    Ok(text.iter().fold(0, |number, byte| number << 3 | u64::from(byte - b'0')))
}

/// What a pax header says of the entry behind it.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
    sparse: bool,
}

impl Pax {
    /// Reads records of the form `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut text: &[u8]) -> Result<(), Problem> {
        const WRONG: Problem = Problem::Tar { what: "a pax header is malformed" };
        while !text.is_empty() {
            let space = text.iter().take(20).position(|byte| *byte == b' ').ok_or(WRONG)?;
            let length: usize = std::str::from_utf8(&text[..space]).ok().and_then(|digits| digits.parse().ok()).ok_or(WRONG)?;
            if length > text.len() || length < space + 3 || text[length - 1] != b'\n' {
                return Err(WRONG);
            }
            let record = &text[space + 1..length - 1];
            text = &text[length..];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let digits = || std::str::from_utf8(value).ok();
            let whole = || digits().and_then(|digits| digits.parse().ok()).ok_or(WRONG).map(Some);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = whole()?,
                b"uid" => self.uid = whole()?,
                b"gid" => self.gid = whole()?,
                b"mtime" => {
                    let seconds = digits().and_then(|digits| digits.split('.').next()).and_then(|whole| whole.parse().ok());
                    self.modified = Some(seconds.ok_or(WRONG)?);
                }
                _ if key.starts_with(b"GNU.sparse") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Skip for &[u8] {
        fn skip(&mut self, bytes: u64) -> io::Result<()> {
            *self = self.get(usize::try_from(bytes).unwrap()..).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(())
        }
    }

    /// A header with its checksum, and the contents padded.
    fn block(name: &str, flag: u8, contents: &[u8]) -> Vec<u8> {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[108..115].copy_from_slice(b"0000012");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000144");
        header[156] = flag;
        header[257..263].copy_from_slice(b"ustar\0");
        seal(&mut header);
        let mut block = header.to_vec();
        block.extend(contents);
        block.resize(block.len().div_ceil(BLOCK) * BLOCK, 0);
        block
    }

    fn seal(header: &mut [u8; BLOCK]) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
    }

    fn record(key: &str, value: &str) -> Vec<u8> {
        let mut length = key.len() + value.len() + 4;
        while format!("{length} {key}={value}\n").len() != length {
            length += 1;
        }
        format!("{length} {key}={value}\n").into_bytes()
    }

    #[test]
    fn names_come_from_whichever_header_says_them() {
        let long = "d/".repeat(100) + "file";
        let archive = [
            block("plain", b'0', b"hello"),
            block("PaxHeader", b'x', &[record("path", &long), record("uid", "65536"), record("mtime", "7.25")].concat()),
            block("short", b'0', b""),
            block("././@LongLink", b'L', format!("{long}\0").as_bytes()),
            block("short", b'5', b""),
            block("old/", 0, b""),
            vec![0; 2 * BLOCK],
        ]
        .concat();
        let mut reader = Reader::new(&archive[..]);
        let first = reader.next().unwrap().unwrap();
        assert_eq!((&first.name[..], first.kind, first.mode, first.uid, first.size), (&b"plain"[..], Kind::File, 0o755, 10, 5));
        assert_eq!(first.modified, 100);
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        assert_eq!(contents, b"hello");
        let second = reader.next().unwrap().unwrap();
        assert_eq!((second.name, second.uid, second.modified), (long.clone().into_bytes(), 65_536, 7));
        let third = reader.next().unwrap().unwrap();
        assert_eq!((third.name, third.kind), (long.into_bytes(), Kind::Directory));
        assert_eq!(reader.next().unwrap().unwrap().kind, Kind::Directory);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let good = block("a", b'0', b"hello");
        let mut checksum = good.clone();
        checksum[0] = b'b';
        let mut octal: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
        octal[124] = b'9';
        seal(&mut octal);
        let mut huge: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        seal(&mut huge);
        let mut negative: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
        negative[108..116].fill(0xff);
        seal(&mut negative);
        let cases: [(&str, Vec<u8>); 10] = [
            ("bad_tar", checksum),
            ("bad_tar", octal.to_vec()),
            ("bad_tar", huge.to_vec()),
            ("bad_tar", negative.to_vec()),
            ("bad_tar", block("a", b'?', b"")),
            ("truncated", good[..100].to_vec()),
            ("bad_tar", block("x", b'x', b"9 path=abc\n")),
            ("bad_tar", block("x", b'x', b"-1 path\n")),
            ("bad_tar", block("x", b'x', b"99999999999999999999 a=b\n")),
            ("sparse", [block("x", b'x', &record("GNU.sparse.major", "1")), good.clone()].concat()),
        ];
        for (code, archive) in cases {
            let refused = Reader::new(&archive[..]).next().expect_err(code);
            assert_eq!(refused.code(), code, "{refused}");
        }
        assert_eq!(Reader::new(&block("x", b'S', b"")[..]).next().expect_err("sparse").code(), "sparse");
    }
}
