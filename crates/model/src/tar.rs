//! How an archive of plain files is written, for whoever makes an image one: the same bytes for the same names and contents.
//! Reading one is another matter (`unpack`).

/// Bytes of a header, and what contents are filled up to a multiple of.
pub const BLOCK: usize = 512;

/// What stands behind the last file.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The header of a plain file of root's. Of a name only the first 100 bytes are taken.
#[must_use]
pub fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size {
        0..0o100_000_000_000 => put(124, format!("{size:011o}\0").as_bytes()),
        _ => put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// What fills the last block of contents of so many bytes.
#[must_use]
pub fn padding(size: u64) -> &'static [u8] {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    &ZEROS[..(BLOCK - over) % BLOCK]
}
