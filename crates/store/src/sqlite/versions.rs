//! Rows of versions and aliases.

use std::sync::Arc;

use dunlin_model::{AliasKey, FunctionKey, Revision, VersionId};
use rusqlite::{Connection, params};

use super::rows::{ReadError, parse, seal, signed, unseal, unsigned};
use super::settings;
use crate::change::{Change, Done};
use crate::store::Stored;
use crate::view::View;

/// Writes a change of a version or an alias. Answers how many rows it met.
pub(super) fn write(connection: &Connection, change: &Change, view: &View, done: Done) -> Result<usize, rusqlite::Error> {
    match change {
        Change::PublishVersion { function, .. } => {
            let id = VersionId(done.number);
            let version = &view.version(function, id).expect("the change has just put it there").value;
            let (document, checksum) = seal(version)?;
            let (account, name) = (function.account().as_str(), function.name().as_str());
            connection
                .prepare_cached("UPDATE functions SET last_version = ?3 WHERE account = ?1 AND name = ?2")?
                .execute(params![account, name, signed(id.0)])?;
            connection
                .prepare_cached(
                    "INSERT INTO versions (account, function, id, revision, package, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    account,
                    name,
                    signed(id.0),
                    signed(done.revision.0),
                    version.function.code.digest.to_string(),
                    document,
                    checksum
                ])
        }
        Change::DeleteVersion { function, id } => {
            settings::remove_for(connection, function, &id.to_string())?;
            connection.prepare_cached("DELETE FROM versions WHERE account = ?1 AND function = ?2 AND id = ?3")?.execute(params![
                function.account().as_str(),
                function.name().as_str(),
                signed(id.0)
            ])
        }
        Change::CreateAlias { key, alias, .. } | Change::ReplaceAlias { key, alias, .. } => {
            let sql = if matches!(change, Change::CreateAlias { .. }) {
                "INSERT INTO aliases (account, function, name, revision, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
            } else {
                "UPDATE aliases SET revision = ?4, document = ?5, checksum = ?6 WHERE account = ?1 AND function = ?2 AND name = ?3"
            };
            let (document, checksum) = seal(alias)?;
            let (account, function, name) = names(key);
            connection.prepare_cached(sql)?.execute(params![account, function, name, signed(done.revision.0), document, checksum])
        }
        Change::DeleteAlias { key, .. } => {
            settings::remove_for(connection, &key.function, key.name.as_str())?;
            let (account, function, name) = names(key);
            connection
                .prepare_cached("DELETE FROM aliases WHERE account = ?1 AND function = ?2 AND name = ?3")?
                .execute(params![account, function, name])
        }
        _ => unreachable!("only changes of versions and aliases come here"),
    }
}

/// Removes what goes with a function.
pub(super) fn remove_of(connection: &Connection, function: &FunctionKey) -> Result<(), rusqlite::Error> {
    for sql in
        ["DELETE FROM versions WHERE account = ?1 AND function = ?2", "DELETE FROM aliases WHERE account = ?1 AND function = ?2"]
    {
        connection.prepare_cached(sql)?.execute(params![function.account().as_str(), function.name().as_str()])?;
    }
    Ok(())
}

/// Reads all of them into `view`, whose functions are there already.
pub(super) fn load(connection: &Connection, view: &mut View) -> Result<(), ReadError> {
    let mut statement =
        connection.prepare("SELECT account, function, id, revision, document, checksum FROM versions ORDER BY 1, 2, 3")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let function =
            FunctionKey::from_stored(parse("version", &row.get::<_, String>(0)?)?, parse("version", &row.get::<_, String>(1)?)?);
        let (id, revision) = (VersionId(unsigned(row.get(2)?)), Revision(unsigned(row.get(3)?)));
        let version = unseal("version", &row.get::<_, String>(4)?, row.get(5)?)?;
        // The counter has no checksum of its own; it is at least as high as what it counted.
        let last = view.last_versions.get(&function).copied().unwrap_or(0).max(id.0);
        view.last_versions.insert(function.clone(), last);
        view.versions.insert((function, id), Arc::new(Stored { value: version, revision }));
    }
    let mut statement = connection.prepare("SELECT account, function, name, revision, document, checksum FROM aliases")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let function =
            FunctionKey::from_stored(parse("alias", &row.get::<_, String>(0)?)?, parse("alias", &row.get::<_, String>(1)?)?);
        let key = AliasKey { function, name: parse("alias", &row.get::<_, String>(2)?)? };
        let alias = unseal("alias", &row.get::<_, String>(4)?, row.get(5)?)?;
        view.aliases.insert(key, Arc::new(Stored { value: alias, revision: Revision(unsigned(row.get(3)?)) }));
    }
    Ok(())
}

fn names(key: &AliasKey) -> (&str, &str, &str) {
    (key.function.account().as_str(), key.function.name().as_str(), key.name.as_str())
}
