//! What can be wrong with an archive.

use std::fmt;
use std::io;

/// Why an archive was refused. Reads as a sentence that names the entry.
#[derive(Debug, thiserror::Error)]
pub struct Rejected {
    /// The entry's name as the archive spells it, when one entry is at fault.
    pub entry: Option<Box<[u8]>>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        if let Some(entry) = &self.entry {
            let shown = &entry[..entry.len().min(SHOWN)];
            let dots = if entry.len() > SHOWN { "…" } else { "" };
            write!(f, "entry '{}{dots}': ", shown.escape_ascii())?;
        }
        self.problem.fmt(f)
    }
}

impl Rejected {
    pub(crate) fn entry(name: &[u8], problem: Problem) -> Self {
        Self { entry: Some(name.into()), problem }
    }
}

impl From<Problem> for Rejected {
    fn from(problem: Problem) -> Self {
        Self { entry: None, problem }
    }
}

macro_rules! problems {
    ($($(#[$attribute:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $kind:ty),* })? $(($inner:ty))? = $code:literal, $text:literal;)*) => {
        /// What is wrong with an archive or an entry.
        #[derive(Debug, thiserror::Error)]
        pub enum Problem {
            $($(#[$attribute])* #[error($text)] $name $({ $($(#[$field_doc])* $field: $kind),* })? $((#[source] $inner))?,)*
        }

        impl Problem {
            /// A word for programs.
            #[must_use]
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $code,)*
                }
            }
        }
    };
}

problems! {
    /// No zip at all.
    NotAZip = "not_a_zip", "the code is not a zip archive";
    /// It ends too early.
    Truncated = "truncated", "the archive is cut short";
    /// Nothing in it.
    Empty = "empty", "the archive has no entries";
    /// Parts of it are somewhere else.
    Split = "split", "the archive is one part of several";
    /// More entries than allowed.
    TooManyEntries {
        /// How many are allowed.
        limit: u64
    } = "too_many_entries", "the archive has more than {limit} entries";
    /// The names take too much room.
    DirectoryTooLarge = "too_many_entries", "the archive's directory is too large";
    /// Bytes that belong to nothing.
    ForeignData {
        /// Where they are.
        place: &'static str
    } = "foreign_data", "the archive has bytes {place} that belong to no entry";
    /// The directory is not what its end says.
    Directory {
        /// What does not hold.
        what: &'static str
    } = "bad_directory", "the archive's directory is damaged: {what}";
    /// The 64-bit members are wrong.
    Zip64 {
        /// What does not hold.
        what: &'static str
    } = "zip64", "the archive's 64-bit sizes are wrong: {what}";
    /// Encrypted.
    Encrypted = "encrypted", "is encrypted; upload it without a password";
    /// Compressed in a way that is not read.
    Method {
        /// The method's number.
        method: u16
    } = "unsupported_compression", "uses compression method {method}; only stored and deflate are supported";
    /// The two headers of an entry differ.
    HeaderMismatch {
        /// In what.
        what: &'static str
    } = "header_mismatch", "its header and the archive's directory differ in {what}";
    /// Two entries share bytes.
    Overlap = "overlap", "overlaps another entry";
    /// What follows the data does not agree with the directory.
    Descriptor = "bad_descriptor", "the descriptor after its data does not agree with the archive's directory";
    /// A name that is none.
    Name {
        /// What is wrong with it.
        what: &'static str
    } = "bad_name", "its name {what}";
    /// A name that leads out.
    Traversal = "traversal", "its name leads out of the package";
    /// Twice the same name.
    Duplicate = "duplicate", "is in the archive twice";
    /// Names that differ only in case.
    CaseDuplicate = "duplicate", "differs from another entry in upper and lower case only";
    /// Something is both a file and a folder.
    Conflict = "conflict", "is used both as a folder and as a file or link";
    /// Kind and name do not go together.
    Kind = "bad_kind", "a folder's name ends in '/' and no other does, and a folder has no contents";
    /// Neither file, folder nor link.
    Special = "special_file", "is neither a file, a folder nor a symbolic link";
    /// A hard link.
    HardLink = "hard_link", "is a hard link";
    /// A link that leads out.
    LinkOut = "link_out", "is a link that leads out of the package";
    /// A link that is none.
    Link {
        /// What is wrong with it.
        what: &'static str
    } = "bad_link", "is a link whose target {what}";
    /// More bytes than allowed.
    TooLarge {
        /// How many are allowed.
        limit: u64
    } = "too_large", "the archive unpacks to more than {limit} bytes";
    /// Small in, huge out.
    Bomb = "bomb", "the archive unpacks to more than a hundred times its size";
    /// The contents are not as long as declared.
    Size = "bad_size", "its contents are not as long as the archive says";
    /// The contents are not what they were.
    Checksum = "bad_checksum", "its contents do not match their checksum";
    /// The compressed data is damaged.
    Corrupt = "corrupt", "its compressed data is damaged";
    /// No image at all.
    NotAnImage {
        /// What does not hold.
        what: &'static str
    } = "not_an_image", "the archive is no image: {what}";
    /// A part of an image is missing.
    NoBlob {
        /// How the image calls it.
        name: String
    } = "missing_blob", "the image is not whole: it lacks {name}";
    /// A part of an image is another one.
    Digest {
        /// How the image calls it.
        name: String
    } = "bad_digest", "the image is damaged: {name} does not have the digest that it should have";
    /// A part of an image cannot be read.
    Document {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        why: String
    } = "bad_document", "the image's {name} cannot be read: {why}";
    /// For another machine.
    Platform {
        /// What there is.
        found: String
    } = "platform", "the image is not for linux/amd64 but for {found}";
    /// The image's user is not in the image.
    User {
        /// As the image calls it.
        user: String
    } = "bad_user", "the image's user '{user}' is in neither /etc/passwd nor /etc/group of the image, or has an id above 65535";
    /// No tar.
    Tar {
        /// What does not hold.
        what: &'static str
    } = "bad_tar", "a tar archive is damaged: {what}";
    /// A file with holes.
    Sparse = "sparse", "is stored as a sparse file; store it as a plain one";
    /// An owner that a container does not have.
    Owner = "bad_owner", "belongs to a user or group above 65535";
    /// A hard link to nothing.
    LinkTarget = "bad_link", "is a hard link to something that is not there, or is a folder";
    /// A place that the platform needs.
    Place = "bad_place", "must be a folder: the platform mounts something on it";
    /// Unpacked well, but useless.
    Unprepared {
        /// Why, as it is told.
        reason: String
    } = "unprepared", "{reason}";
    /// Our side failed.
    Io(io::Error) = "io", "it could not be unpacked";
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        // Every position was checked against the length, so an early end means that the file is shorter than it said.
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}
