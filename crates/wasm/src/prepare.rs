//! Compiles a package's programs, where it was unpacked and before it is sealed.
//!
//! Runs in the disposable sandbox that unpacked the package: compilers are large, and what they are fed is a tenant's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use wasmtime::Engine;

use crate::program::{Code, FILE_BYTES_MAX, Program, Provided, Refused};

/// The folder of a package that holds what was compiled. A package that brings its own is refused.
pub(crate) const FOLDER: &str = ".dunlin-wasm";
/// How files with programs end.
pub(crate) const EXTENSION: &str = ".wasm";
/// How files with compiled programs end, behind the program's own name.
pub(crate) const COMPILED: &str = ".compiled";

/// Most programs of a package.
const PROGRAMS_MAX: usize = 16;

/// Why a package's programs are not compiled.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No file in the package's top folder ends with `.wasm`.
    #[error("there is no .wasm file in its top folder")]
    Nothing,
    /// More than anybody has use for.
    #[error("there are more than {PROGRAMS_MAX} .wasm files in its top folder; put those that are no programs somewhere else")]
    TooMany,
    /// The package uses a name that is the platform's.
    #[error("it holds '{FOLDER}', a name the platform keeps for itself; remove it")]
    Reserved,
    /// A file is no program.
    #[error("'{}' {why}", file.escape_debug())]
    Refused {
        /// Its name.
        file: String,
        /// What is wrong with it.
        #[source]
        why: Refused,
    },
    /// The engine cannot be made.
    #[error("the compiler does not start: {0}")]
    Engine(wasmtime::Error),
    /// A file cannot be read or written.
    #[error("a file cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// Compiles every `.wasm` file in the top folder of the package that was unpacked into `tree`, and names them, sorted.
///
/// # Errors
/// See [`PrepareError`]; the tree is for the caller to throw away then.
pub fn prepare(tree: BorrowedFd<'_>) -> Result<Vec<String>, PrepareError> {
    let files = programs(tree)?;
    if files.is_empty() {
        return Err(PrepareError::Nothing);
    }
    if files.len() > PROGRAMS_MAX {
        return Err(PrepareError::TooMany);
    }
    match rustix::fs::mkdirat(tree, FOLDER, Mode::RWXU) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(PrepareError::Reserved),
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(tree, FOLDER, flags, Mode::empty()).map_err(io::Error::from)?;
    let engine = crate::engine::make().map_err(PrepareError::Engine)?;
    let provided = Provided::new(&engine).map_err(PrepareError::Engine)?;
    for file in &files {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(tree, file.as_str(), flags, Mode::empty()).map_err(io::Error::from)?;
        let compiled = compile(&engine, &provided, File::from(source)).map_err(|why| match why {
            Problem::Refused(why) => PrepareError::Refused { file: file.clone(), why },
            Problem::Io(error) => error.into(),
        })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(folder.as_fd(), format!("{file}{COMPILED}"), flags, Mode::RUSR | Mode::WUSR);
        File::from(target.map_err(io::Error::from)?).write_all(&compiled)?;
    }
    Ok(files)
}

enum Problem {
    Refused(Refused),
    Io(io::Error),
}

fn compile(engine: &Engine, provided: &Provided, file: File) -> Result<Vec<u8>, Problem> {
    let mut wasm = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut wasm).map_err(Problem::Io)?;
    if wasm.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::Refused(Refused::TooLarge));
    }
    let code = Code::compile(engine, &wasm).map_err(Problem::Refused)?;
    Program::link(provided, &code).map_err(Problem::Refused)?;
    code.bytes().map_err(|error| Problem::Refused(Refused::Compile(format!("{error:#}"))))
}

/// The names of the programs, sorted.
fn programs(tree: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(tree)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.ends_with(EXTENSION) && is_file(tree, name)? {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_file(tree: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let seen = rustix::fs::statat(tree, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(seen.st_mode) == FileType::RegularFile)
}
