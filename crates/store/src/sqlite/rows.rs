//! Rows: how the nouns are laid out in tables, and the queries over them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{AccountId, Crc64, Function, FunctionKey, Record, Revision, TriggerKey};
use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::writer::classify;
use super::{domains, images, layers, settings, versions};
use crate::change::{Change, Done, put_trigger};
use crate::error::StoreError;
use crate::store::{AccessKey, Page, RecordQuery, Stored};
use crate::view::View;

/// Connections that read, handed out one per query.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Self, rusqlite::Error> {
        let open = || {
            let connection =
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            Ok(connection)
        };
        let idle = (0..count).map(|_| open()).collect::<Result<Vec<_>, rusqlite::Error>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Semaphore::new(count) })
    }

    pub(super) async fn run<T, F>(self: &Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let readers = Arc::clone(self);
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let work = move || {
            let connection = readers.lock().pop();
            let Some(connection) = connection else { return Err(StoreError::Closed) };
            let result = query(&connection);
            readers.lock().push(connection);
            result.map_err(StoreError::from)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Failed { detail: error.to_string() }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why rows could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Damaged { what: &'static str, detail: String },
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => classify(&error),
            ReadError::Damaged { what, detail } => Self::Damaged { what, detail },
        }
    }
}

/// Writes what `change` did to `view`. Each statement must meet exactly one row: the view said that it would.
pub(super) fn write(connection: &Connection, change: &Change, view: &View, done: Done) -> Result<(), rusqlite::Error> {
    let next = done.revision;
    let touched = match change {
        Change::CreateFunction { key, function, .. } => put_function(connection, CREATE_FUNCTION, key, function, next)?,
        Change::ReplaceFunction { key, function, .. } => put_function(connection, REPLACE_FUNCTION, key, function, next)?,
        Change::ReplaceFunctions(all) => {
            for (key, function, _) in all {
                expect_one(put_function(connection, REPLACE_FUNCTION, key, function, next)?)?;
            }
            1
        }
        Change::DeleteFunction { key, .. } => {
            versions::remove_of(connection, key)?;
            settings::remove_of(connection, key)?;
            connection
                .prepare_cached("DELETE FROM functions WHERE account = ?1 AND name = ?2")?
                .execute(params![key.account().as_str(), key.name().as_str()])?
        }
        Change::CreateTrigger { key, .. } | Change::ReplaceTrigger { key, .. } => {
            let sql = if matches!(change, Change::CreateTrigger { .. }) {
                "INSERT INTO triggers (account, function, name, revision, url_prefix, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
            } else {
                "UPDATE triggers SET revision = ?4, url_prefix = ?5, document = ?6, checksum = ?7 WHERE account = ?1 AND function = ?2 AND name = ?3"
            };
            let trigger = &view.trigger(key).expect("the change has just put it there").value;
            let (document, checksum) = seal(trigger)?;
            let (account, function, name) = names(key);
            connection.prepare_cached(sql)?.execute(params![
                account,
                function,
                name,
                signed(next.0),
                trigger.url_prefix,
                document,
                checksum
            ])?
        }
        Change::DeleteTrigger { key, .. } => {
            let (account, function, name) = names(key);
            connection
                .prepare_cached("DELETE FROM triggers WHERE account = ?1 AND function = ?2 AND name = ?3")?
                .execute(params![account, function, name])?
        }
        Change::PublishVersion { .. }
        | Change::DeleteVersion { .. }
        | Change::CreateAlias { .. }
        | Change::ReplaceAlias { .. }
        | Change::DeleteAlias { .. } => versions::write(connection, change, view, done)?,
        Change::CreateLayerVersion { .. } | Change::DeleteLayerVersion { .. } | Change::PutLayerAcl { .. } => {
            layers::write(connection, change, view, done)?
        }
        Change::PutSetting { key, setting, .. } => settings::put(connection, key, setting, next)?,
        Change::DeleteSetting { key, .. } => settings::delete(connection, key)?,
        Change::CreateDomain { key, domain, .. } => domains::create(connection, key, domain, next)?,
        Change::ReplaceDomain { key, domain, .. } => domains::replace(connection, key, domain, next)?,
        Change::DeleteDomain { key, .. } => domains::delete(connection, key)?,
        Change::PutImage { key, image, .. } => images::put(connection, key, image, next)?,
        Change::DeleteImage { key } => images::delete(connection, key)?,
        Change::PutAccessKey(key) => connection
            .prepare_cached("INSERT OR REPLACE INTO access_keys (id, account, secret) VALUES (?1, ?2, ?3)")?
            .execute(params![key.id.as_str(), key.account.as_str(), key.secret])?,
    };
    expect_one(touched)
}

fn expect_one(touched: usize) -> Result<(), rusqlite::Error> {
    if touched == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(touched)) }
}

const CREATE_FUNCTION: &str =
    "INSERT INTO functions (account, name, revision, runtime, package, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const REPLACE_FUNCTION: &str = "UPDATE functions SET revision = ?3, runtime = ?4, package = ?5, document = ?6, checksum = ?7 WHERE account = ?1 AND name = ?2";

fn put_function(
    connection: &Connection,
    sql: &str,
    key: &FunctionKey,
    function: &Function,
    at: Revision,
) -> Result<usize, rusqlite::Error> {
    let (document, checksum) = seal(function)?;
    let (account, name) = (key.account().as_str(), key.name().as_str());
    let (runtime, package) = (function.config.runtime.as_str(), function.code.digest.to_string());
    connection.prepare_cached(sql)?.execute(params![account, name, signed(at.0), runtime, package, document, checksum])
}

fn names(key: &TriggerKey) -> (&str, &str, &str) {
    (key.function.account().as_str(), key.function.name().as_str(), key.name.as_str())
}

pub(super) fn put_nonces(connection: &Connection, nonces: &[(u64, i64)]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO nonces (hash, expires) VALUES (?1, ?2)")?;
    nonces.iter().try_for_each(|(hash, expires)| statement.execute(params![signed(*hash), expires]).map(drop))
}

pub(super) fn forget_nonces(connection: &Connection, second: i64) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("DELETE FROM nonces WHERE expires <= ?1")?.execute([second]).map(drop)
}

pub(super) fn nonces_after(connection: &Connection, second: i64) -> Result<Vec<(u64, i64)>, ReadError> {
    let mut statement = connection.prepare_cached("SELECT hash, expires FROM nonces WHERE expires > ?1")?;
    let rows = statement.query_map([second], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn append_records(connection: &Connection, records: &[Record]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO records (request, account, function, started, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (request) DO NOTHING",
    )?;
    for record in records {
        let (document, checksum) = seal(record)?;
        let (request, account, function) = (record.request_id.as_str(), record.account.as_str(), record.function.as_str());
        statement.execute(params![request, account, function, nanoseconds(record.started), document, checksum])?;
    }
    Ok(())
}

pub(super) fn records(connection: &Connection, account: &AccountId, query: &RecordQuery) -> Result<Page<Record>, ReadError> {
    let Some(below) = query.below() else { return Ok(Page { items: Vec::new(), next: None }) };
    let mut sql = String::from("SELECT sequence, document, checksum FROM records WHERE account = ?1 AND sequence < ?2");
    sql += if query.function.is_some() { " AND function = ?3" } else { " AND ?3 IS NULL" };
    sql += if query.request.is_some() { " AND request = ?4" } else { " AND ?4 IS NULL" };
    sql += " AND started >= ?5 AND started < ?6 ORDER BY sequence DESC LIMIT ?7";
    let limit = query.limit_in_force();
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(
        params![
            account.as_str(),
            i64::try_from(below).unwrap_or(i64::MAX),
            query.function.as_ref().map(|function| function.as_str()),
            query.request.as_ref().map(|request| request.as_str()),
            query.since.map_or(i64::MIN, nanoseconds),
            query.until.map_or(i64::MAX, nanoseconds),
            i64::try_from(limit + 1).expect("a page is short"),
        ],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)),
    )?;
    let mut found = rows.collect::<Result<Vec<_>, _>>()?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(|(sequence, ..)| sequence.to_string()) } else { None };
    let items = found.iter().map(|(_, document, checksum)| unseal("record", document, *checksum)).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

pub(super) fn set_revision(connection: &Connection, revision: u64) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("UPDATE counter SET revision = ?1")?.execute([signed(revision)]).map(drop)
}

/// Reads everything a view holds, and the counter.
pub(super) fn load(connection: &Connection) -> Result<(View, u64), ReadError> {
    let mut view = View::default();
    let mut statement = connection
        .prepare("SELECT account, name, revision, document, checksum, last_version FROM functions ORDER BY account, name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let account: AccountId = parse("function", &row.get::<_, String>(0)?)?;
        let key = FunctionKey::from_stored(account.clone(), parse("function", &row.get::<_, String>(1)?)?);
        let function = unseal("function", &row.get::<_, String>(3)?, row.get(4)?)?;
        let count = view.count_of(&account);
        view.counts.insert(account, count + 1);
        match unsigned(row.get(5)?) {
            0 => {}
            last => view.last_versions.insert(key.clone(), last),
        }
        view.functions.insert(key, Arc::new(Stored { value: function, revision: Revision(unsigned(row.get(2)?)) }));
    }
    versions::load(connection, &mut view)?;
    settings::load(connection, &mut view)?;
    layers::load(connection, &mut view)?;
    domains::load(connection, &mut view)?;
    images::load(connection, &mut view)?;
    let mut statement = connection.prepare("SELECT account, function, name, revision, document, checksum FROM triggers")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let function =
            FunctionKey::from_stored(parse("trigger", &row.get::<_, String>(0)?)?, parse("trigger", &row.get::<_, String>(1)?)?);
        let key = TriggerKey { function, name: parse("trigger", &row.get::<_, String>(2)?)? };
        let trigger = unseal("trigger", &row.get::<_, String>(4)?, row.get(5)?)?;
        put_trigger(&mut view, &key, Arc::new(Stored { value: trigger, revision: Revision(unsigned(row.get(3)?)) }));
    }
    let mut statement = connection.prepare("SELECT id, account, secret FROM access_keys")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = AccessKey {
            id: parse("access key", &row.get::<_, String>(0)?)?,
            account: parse("access key", &row.get::<_, String>(1)?)?,
            secret: row.get(2)?,
        };
        view.access_keys.insert(key.id.clone(), Arc::new(key));
    }
    let revision = connection.query_row("SELECT revision FROM counter", [], |row| row.get(0).map(unsigned))?;
    Ok((view, revision))
}

pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(what: &'static str, text: &str) -> Result<T, ReadError> {
    text.parse().map_err(|error: T::Err| ReadError::Damaged { what, detail: error.to_string() })
}

/// The JSON of `value` and its checksum.
pub(super) fn seal<T: Serialize>(value: &T) -> Result<(String, i64), rusqlite::Error> {
    let document = serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let checksum = signed(Crc64::of(document.as_bytes()).0);
    Ok((document, checksum))
}

pub(super) fn unseal<T: DeserializeOwned>(what: &'static str, document: &str, checksum: i64) -> Result<T, ReadError> {
    if signed(Crc64::of(document.as_bytes()).0) != checksum {
        return Err(ReadError::Damaged { what, detail: "its checksum does not hold".into() });
    }
    serde_json::from_str(document).map_err(|error| ReadError::Damaged { what, detail: error.to_string() })
}

fn nanoseconds(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time.as_nanosecond() < 0 { i64::MIN } else { i64::MAX })
}

/// SQLite's integers are signed; the bits are the same.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}
