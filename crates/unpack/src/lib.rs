//! The one place where a tenant's archive is parsed.
//!
//! [`run`] is the whole life of a disposable process that was given three descriptors and nothing else: the zip, an
//! empty folder, a socket for the report. It looks at the archive from all sides first ([`archive`], [`tree`]), and
//! only then writes files ([`write`]). [`pack`](fn@pack) goes the other way, for the command line and for tests.
//!
//! The container is read here and not by the `zip` crate: that crate, like most, takes the archive's word for where
//! things are, and an archive that reads differently to two readers is how checks are walked around. This reader
//! accepts one form only: entries one after the other from the first byte, then the directory, then its end, nothing
//! before, between, after or twice. Decompression is `flate2`'s.
//!
//! # Invariants
//! - Nothing is written outside the folder: paths are walked a component at a time by descriptor, never through a link.
//! - A refused archive is refused before its first file is written, except for what only decompressing can tell
//!   (checksums, sizes that lie); what was written then is the caller's to throw away with the folder.
//! - Memory does not grow with contents: only with the number and names of entries, both capped.
//! - The manifest is the digest of what was written, not of what the archive says.

mod archive;
mod error;
mod format;
pub mod image;
mod pack;
mod tree;
mod write;

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;

use serde::Serialize;

pub use error::{Problem, Rejected};
pub use pack::{PackError, pack};

/// What a package may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, links and directories together, implied ones included.
    pub entries: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, links and directories together, implied ones included.
    pub entries: u64,
    /// SHA-256 over kind, mode, content's digest and path of everything, in the order of the tree.
    pub manifest: [u8; 32],
}

/// Checks `zip` and unpacks it into the empty folder `out`.
///
/// # Errors
/// What is wrong with the archive, and with which entry. `out` may hold files then; throw it away.
pub fn unpack(zip: &File, out: BorrowedFd<'_>, limits: &UnpackLimits) -> Result<Unpacked, Rejected> {
    let archive = archive::read(zip, limits)?;
    let tree = tree::plant(&archive, limits)?;
    let links = write::read_links(zip, &archive, &tree)?;
    tree.check_links(&archive, &links)?;
    write::write(zip, out, &archive, &tree, &links)
}

#[derive(Serialize)]
#[serde(untagged)]
enum Report<'a> {
    Good { ok: bool, bytes: u64, entries: u64, manifest: String, prepared: Vec<String> },
    Bad { ok: bool, code: &'a str, reason: String },
}

/// Unpacks `zip` into `out` and says on `report` how it went: one `End` frame of `docs/design/wire.md` with a JSON body,
/// `{"ok":true,"bytes":…,"entries":…,"manifest":"…","prepared":[…]}` or `{"ok":false,"code":"…","reason":"…"}`.
///
/// `prepare` is called on what was unpacked and names the files it did something with, or says why they are refused.
#[must_use]
pub fn run(
    zip: OwnedFd,
    out: BorrowedFd<'_>,
    report: OwnedFd,
    limits: &UnpackLimits,
    prepare: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<String>, String>,
) -> ExitCode {
    let unpacked = unpack(&File::from(zip), out, limits).and_then(|unpacked| match prepare(out) {
        Ok(prepared) => Ok((unpacked, prepared)),
        Err(reason) => Err(Problem::Unprepared { reason }.into()),
    });
    tell(report, unpacked)
}

/// Makes the file system of the image in `archive` in `out` and says on `report` how it went, as [`run`] does. What was
/// prepared is the image's configuration, as JSON.
#[must_use]
pub fn run_image(archive: OwnedFd, out: BorrowedFd<'_>, report: OwnedFd, limits: &UnpackLimits) -> ExitCode {
    let unpacked = image::unpack(&File::from(archive), out, limits).and_then(|(unpacked, config)| {
        let config = serde_json::to_string(&config).map_err(|error| Problem::Io(error.into()))?;
        Ok((unpacked, vec![config]))
    });
    tell(report, unpacked)
}

fn tell(report: OwnedFd, unpacked: Result<(Unpacked, Vec<String>), Rejected>) -> ExitCode {
    let (report_body, code) = match unpacked {
        Ok((Unpacked { bytes, entries, manifest }, prepared)) => {
            let manifest = manifest.iter().map(|byte| format!("{byte:02x}")).collect();
            (Report::Good { ok: true, bytes, entries, manifest, prepared }, ExitCode::SUCCESS)
        }
        Err(rejected) => {
            (Report::Bad { ok: false, code: rejected.problem.code(), reason: rejected.to_string() }, ExitCode::from(1))
        }
    };
    match File::from(report).write_all(&frame(&report_body)) {
        Ok(()) => code,
        Err(_) => ExitCode::from(2),
    }
}

fn frame(report: &Report<'_>) -> Vec<u8> {
    const END: u8 = 18;
    let body = serde_json::to_vec(report).expect("a report has string keys only");
    let mut frame = vec![0; 32];
    frame[0] = END;
    frame[12..16].copy_from_slice(&u32::try_from(body.len()).expect("names are short").to_le_bytes());
    frame.extend(body);
    frame
}
