//! A folder as a zip, the same bytes for the same contents: sorted, with fixed times and modes.

use std::fs;
use std::io::{self, Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Why a folder was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A name that other systems could not read back.
    #[error("{} is not UTF-8", path.display())]
    Name {
        /// The name, as well as it can be shown.
        path: PathBuf,
    },
    /// Neither file, folder nor symbolic link.
    #[error("{} is neither a file, a folder nor a symbolic link", path.display())]
    Special {
        /// What it is called.
        path: PathBuf,
    },
    /// The archive could not be built.
    #[error("cannot build the archive")]
    Archive(#[from] zip::result::ZipError),
}

/// Packs what is in `folder`. `filter` is asked for each path below it, relative, and whether it is a folder; a
/// folder that is refused is not looked into.
///
/// # Errors
/// Something cannot be read, or has no place in a zip.
pub fn pack(folder: &Path, mut filter: impl FnMut(&Path, bool) -> bool) -> Result<Vec<u8>, PackError> {
    let mut packer = Packer { root: folder, zip: ZipWriter::new(Cursor::new(Vec::new())), filter: &mut filter };
    packer.folder(Path::new(""))?;
    Ok(packer.zip.finish()?.into_inner())
}

struct Packer<'a> {
    root: &'a Path,
    zip: ZipWriter<Cursor<Vec<u8>>>,
    filter: &'a mut dyn FnMut(&Path, bool) -> bool,
}

impl Packer<'_> {
    /// Packs the contents of `relative`, and says whether there were any.
    fn folder(&mut self, relative: &Path) -> Result<bool, PackError> {
        let path = self.root.join(relative);
        let unreadable = |source| PackError::Read { path: path.clone(), source };
        let mut names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(unreadable)?;
        names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        let mut any = false;
        for name in names {
            any |= self.one(&relative.join(name))?;
        }
        Ok(any)
    }

    fn one(&mut self, relative: &Path) -> Result<bool, PackError> {
        let path = self.root.join(relative);
        let unreadable = |source| PackError::Read { path: path.clone(), source };
        let metadata = fs::symlink_metadata(&path).map_err(unreadable)?;
        if !(self.filter)(relative, metadata.is_dir()) {
            return Ok(false);
        }
        let name = relative.to_str().ok_or_else(|| PackError::Name { path: path.clone() })?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(if executable { 0o755 } else { 0o644 });
        if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(unreadable)?;
            let target = target.to_str().ok_or_else(|| PackError::Name { path: path.clone() })?;
            self.zip.add_symlink(name, target, options.unix_permissions(0o777).compression_method(CompressionMethod::Stored))?;
        } else if metadata.is_dir() {
            // A folder with something in it is implied by what is in it.
            if !self.folder(relative)? {
                self.zip.add_directory(name, options.unix_permissions(0o755))?;
            }
        } else if metadata.is_file() {
            let contents = fs::read(&path).map_err(unreadable)?;
            self.zip.start_file(name, options)?;
            self.zip.write_all(&contents).map_err(unreadable)?;
        } else {
            return Err(PackError::Special { path });
        }
        Ok(true)
    }
}
