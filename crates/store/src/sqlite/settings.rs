//! Rows of settings.

use std::sync::Arc;

use dunlin_model::{FunctionKey, Revision, Setting, SettingKey, SettingKind};
use rusqlite::{Connection, params};

use super::rows::{ReadError, parse, seal, signed, unseal, unsigned};
use crate::change::put_setting;
use crate::store::Stored;
use crate::view::View;

/// Writes a setting, whether it is there already or not. Answers how many rows it met.
pub(super) fn put(connection: &Connection, key: &SettingKey, setting: &Setting, at: Revision) -> Result<usize, rusqlite::Error> {
    let (document, checksum) = seal(setting)?;
    let (account, kind, function, qualifier) = names(key);
    connection
        .prepare_cached(
            "INSERT INTO settings (account, kind, function, qualifier, revision, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT DO UPDATE SET revision = excluded.revision, document = excluded.document, checksum = excluded.checksum",
        )?
        .execute(params![account, kind, function, qualifier, signed(at.0), document, checksum])
}

/// Removes a setting. Answers how many rows it met.
pub(super) fn delete(connection: &Connection, key: &SettingKey) -> Result<usize, rusqlite::Error> {
    let (account, kind, function, qualifier) = names(key);
    connection
        .prepare_cached("DELETE FROM settings WHERE account = ?1 AND kind = ?2 AND function = ?3 AND qualifier = ?4")?
        .execute(params![account, kind, function, qualifier])
}

/// Removes what goes with a function.
pub(super) fn remove_of(connection: &Connection, function: &FunctionKey) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM settings WHERE account = ?1 AND function = ?2")?
        .execute(params![function.account().as_str(), function.name().as_str()])
        .map(drop)
}

/// Removes what goes with a version or an alias.
pub(super) fn remove_for(connection: &Connection, function: &FunctionKey, qualifier: &str) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM settings WHERE account = ?1 AND function = ?2 AND qualifier = ?3")?
        .execute(params![function.account().as_str(), function.name().as_str(), qualifier])
        .map(drop)
}

/// Reads all of them into `view`.
pub(super) fn load(connection: &Connection, view: &mut View) -> Result<(), ReadError> {
    let mut statement =
        connection.prepare("SELECT account, kind, function, qualifier, revision, document, checksum FROM settings")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let function =
            FunctionKey::from_stored(parse("setting", &row.get::<_, String>(0)?)?, parse("setting", &row.get::<_, String>(2)?)?);
        let kind: SettingKind = parse("setting", &row.get::<_, String>(1)?)?;
        let key = SettingKey::for_qualifier(&function, kind, &row.get::<_, String>(3)?);
        let setting: Setting = unseal("setting", &row.get::<_, String>(5)?, row.get(6)?)?;
        if setting.content.kind() != kind {
            return Err(ReadError::Damaged { what: "setting", detail: format!("it says something else than {kind}") });
        }
        put_setting(view, &key, Arc::new(Stored { value: setting, revision: Revision(unsigned(row.get(4)?)) }));
    }
    Ok(())
}

fn names(key: &SettingKey) -> (&str, &str, &str, &str) {
    (key.account().as_str(), key.kind().as_str(), key.function_name().as_str(), key.qualifier())
}
