//! Rows of custom domains.

use std::sync::Arc;

use dunlin_model::{CustomDomain, DomainKey, Revision};
use rusqlite::{Connection, params};

use super::rows::{ReadError, parse, seal, signed, unseal, unsigned};
use crate::change::put_domain;
use crate::store::Stored;
use crate::view::View;

/// Adds a domain. Answers how many rows it met.
pub(super) fn create(
    connection: &Connection,
    key: &DomainKey,
    domain: &CustomDomain,
    at: Revision,
) -> Result<usize, rusqlite::Error> {
    put(
        connection,
        "INSERT INTO domains (name, account, revision, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5)",
        key,
        domain,
        at,
    )
}

/// Replaces a domain. Answers how many rows it met.
pub(super) fn replace(
    connection: &Connection,
    key: &DomainKey,
    domain: &CustomDomain,
    at: Revision,
) -> Result<usize, rusqlite::Error> {
    put(
        connection,
        "UPDATE domains SET revision = ?3, document = ?4, checksum = ?5 WHERE name = ?1 AND account = ?2",
        key,
        domain,
        at,
    )
}

fn put(
    connection: &Connection,
    sql: &str,
    key: &DomainKey,
    domain: &CustomDomain,
    at: Revision,
) -> Result<usize, rusqlite::Error> {
    let (document, checksum) = seal(domain)?;
    let (name, account) = names(key);
    connection.prepare_cached(sql)?.execute(params![name, account, signed(at.0), document, checksum])
}

/// Removes a domain. Answers how many rows it met.
pub(super) fn delete(connection: &Connection, key: &DomainKey) -> Result<usize, rusqlite::Error> {
    let (name, account) = names(key);
    connection.prepare_cached("DELETE FROM domains WHERE name = ?1 AND account = ?2")?.execute(params![name, account])
}

/// Reads all of them into `view`.
pub(super) fn load(connection: &Connection, view: &mut View) -> Result<(), ReadError> {
    let mut statement = connection.prepare("SELECT name, account, revision, document, checksum FROM domains")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name = row.get::<_, String>(0)?.parse();
        let name = name
            .map_err(|invalid: dunlin_model::InvalidField| ReadError::Damaged { what: "domain", detail: invalid.to_string() })?;
        let key = DomainKey::from_stored(parse("domain", &row.get::<_, String>(1)?)?, name);
        let domain: CustomDomain = unseal("domain", &row.get::<_, String>(3)?, row.get(4)?)?;
        put_domain(view, &key, Arc::new(Stored { value: domain, revision: Revision(unsigned(row.get(2)?)) }));
    }
    Ok(())
}

fn names(key: &DomainKey) -> (&str, &str) {
    (key.name().as_str(), key.account().as_str())
}
