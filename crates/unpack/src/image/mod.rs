//! Container images: an archive of layers becomes one file system.
//!
//! ```text
//! archive (tar) ──▶ contents ──▶ manifest ──▶ configuration, layers ──▶ one after the other ──▶ folder
//!   OCI layout, or as `docker save` writes it      digests verified        whiteouts first, then files
//! ```
//! The layers are merged here, so that nobody has to stack them later: a whiteout removes, and is gone.
//!
//! # Invariants
//! - Nothing of a layer is written before the whole of it was read once and has the digest that the image says.
//! - Every path is resolved by the kernel with the folder as its root: no link, whatever it says, leads out.
//! - There are no devices and no pipes; no file gives rights to whoever runs it.
//! - The places that the platform mounts something on are folders and files, never links.
//! - The tree is no deeper than [`DEPTH_MAX`], and has no more entries than the limits say.

mod bundle;
mod layer;
mod tar;
mod tree;
mod user;

use std::fs::File;
use std::os::fd::BorrowedFd;

use dunlin_model::ImageConfig;
use sha2::{Digest as _, Sha256};

use crate::error::{Problem, Rejected};
use crate::{UnpackLimits, Unpacked};

/// The deepest path in an image.
pub const DEPTH_MAX: usize = 60;

/// Checks `archive` and makes its image's file system in the empty folder `out`. The caller has a range of ids, and may give
/// files to each of them.
///
/// # Errors
/// What is wrong with the image. `out` may hold files then; throw it away.
pub fn unpack(archive: &File, out: BorrowedFd<'_>, limits: &UnpackLimits) -> Result<(Unpacked, ImageConfig), Rejected> {
    let length = archive.metadata().map_err(Problem::from)?.len();
    // What is uploaded and what becomes of it count together.
    let too_large = Problem::TooLarge { limit: limits.bytes };
    let bytes_left = limits.bytes.checked_sub(length).ok_or(too_large)?;
    let image = bundle::open(archive, length)?;
    let tree = tree::Root::new(out);
    let mut budget = layer::Budget { bytes: bytes_left, entries: limits.entries, limits: *limits };
    let mut manifest = Sha256::new();
    for layer in &image.layers {
        layer::apply(archive, layer, &tree, &mut budget)?;
        manifest.update(layer.diff);
    }
    tree.make_places()?;
    let mut config = image.config;
    config.user = user::resolve(&tree, &image.user)?;
    tree.make_directories(config.working_dir.as_bytes())?;
    let (bytes, entries) = tree.measure(limits)?;
    Ok((Unpacked { bytes, entries, manifest: manifest.finalize().into() }, config))
}
