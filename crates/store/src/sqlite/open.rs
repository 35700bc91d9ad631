//! Opening a store file: the lock, the checks, the migrations.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::rows::{self, ReadError};
use crate::error::OpenError;
use crate::view::View;

/// `DUNL`: what tells our files from other SQLite databases.
const APPLICATION_ID: i64 = 0x4455_4e4c;

/// Written to the lock file once the store exists, so that a lost store is not taken for a new one.
const MARK: &[u8] = b"a store lives beside this file\n";

/// Every change of the schema, in order. The file's `user_version` says how many were applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_versions.sql"),
    include_str!("../migrations/0003_settings.sql"),
    include_str!("../migrations/0004_layers.sql"),
    include_str!("../migrations/0005_domains.sql"),
    include_str!("../migrations/0006_images.sql"),
];

pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: File,
    pub(super) view: View,
    pub(super) revision: u64,
}

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let io_error = |source| OpenError::Io { path: path.to_owned(), source };
    let mut lock = take_lock(path)?;
    let mut mark = Vec::new();
    (&lock).take(MARK.len() as u64).read_to_end(&mut mark).map_err(io_error)?;
    let is_new = match fs::metadata(path) {
        Ok(metadata) => metadata.len() == 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(io_error(error)),
    };
    if is_new && mark == MARK && !has_log(path) {
        return Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: "it was there before and is missing or empty now".into(),
        });
    }

    let refused = |error: rusqlite::Error| refusal(path, error);
    // It holds the secrets of access keys. SQLite gives its log the same mode.
    File::options().append(true).create(true).mode(0o600).open(path).map(drop).map_err(io_error)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(refused)?;
    check(path, &connection)?;
    configure(&connection).map_err(refused)?;
    migrate(&mut connection).map_err(refused)?;
    let (view, revision) = rows::load(&connection).map_err(|error| match error {
        ReadError::Sqlite(error) => refused(error),
        ReadError::Damaged { what, detail } => {
            OpenError::Corrupt { path: path.to_owned(), detail: format!("a {what}: {detail}") }
        }
    })?;

    if mark != MARK {
        lock.rewind().map_err(io_error)?;
        lock.write_all(MARK).map_err(io_error)?;
        lock.sync_all().map_err(io_error)?;
    }
    // The names of the store, its log and the lock must survive a power loss as well.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(io_error)?;
    Ok(Opened { connection, lock, view, revision })
}

/// Locks a file of its own: closing any descriptor of the store file would drop SQLite's locks.
fn take_lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = sibling(path, ".lock");
    let io_error = |source| OpenError::Io { path: lock_path.clone(), source };
    let lock = File::options().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error(source)),
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Before its first checkpoint a store may live in its log alone.
fn has_log(path: &Path) -> bool {
    fs::metadata(sibling(path, "-wal")).is_ok_and(|metadata| metadata.len() > 0)
}

/// Looks before anything is written: whose file it is, from which release, and whether it is whole.
fn check(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let refused = |error| refusal(path, error);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refused)?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(refused)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(refused)?;
    if tables == 0 && version == 0 {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    let known = i64::try_from(MIGRATIONS.len()).expect("a few migrations");
    if version > known {
        return Err(OpenError::ForeignVersion { path: path.to_owned(), found: version, known });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(refused)?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), detail: verdict }) }
}

fn refusal(path: &Path, error: rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => OpenError::Corrupt { path, detail: error.to_string() },
        Some(DatabaseBusy | DatabaseLocked) => OpenError::Locked { path },
        _ => OpenError::Sqlite { path, source: error },
    }
}

fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Kept small after a burst, so that the next start replays little.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)
}

fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (applied, sql) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(applied + 1).expect("a few migrations"))?;
        transaction.commit()?;
    }
    Ok(())
}
