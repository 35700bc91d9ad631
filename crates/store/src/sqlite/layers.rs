//! Rows of layers.

use std::sync::Arc;

use dunlin_model::{Layer, LayerKey, Revision};
use rusqlite::{Connection, params};

use super::rows::{ReadError, parse, seal, signed, unseal, unsigned};
use crate::change::{Change, Done};
use crate::store::Stored;
use crate::view::View;

/// Writes a change of a layer. Answers how many rows it met.
pub(super) fn write(connection: &Connection, change: &Change, view: &View, done: Done) -> Result<usize, rusqlite::Error> {
    match change {
        Change::CreateLayerVersion { key, .. } => {
            put_layer(connection, key, view)?;
            let version = &view.layer_version(key, done.number).expect("the change has just put it there").value;
            let (document, checksum) = seal(version)?;
            connection
                .prepare_cached(
                    "INSERT INTO layer_versions (account, layer, version, revision, package, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    key.account().as_str(),
                    key.name().as_str(),
                    signed(done.number),
                    signed(done.revision.0),
                    version.code.digest.to_string(),
                    document,
                    checksum
                ])
        }
        Change::DeleteLayerVersion { key, version } => connection
            .prepare_cached("DELETE FROM layer_versions WHERE account = ?1 AND layer = ?2 AND version = ?3")?
            .execute(params![key.account().as_str(), key.name().as_str(), signed(*version)]),
        Change::PutLayerAcl { key, .. } => put_layer(connection, key, view),
        _ => unreachable!("only changes of layers come here"),
    }
}

fn put_layer(connection: &Connection, key: &LayerKey, view: &View) -> Result<usize, rusqlite::Error> {
    let layer = view.layer(key).expect("the change has just put it there");
    connection
        .prepare_cached(
            "INSERT INTO layers (account, name, last_version, public) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET last_version = excluded.last_version, public = excluded.public",
        )?
        .execute(params![key.account().as_str(), key.name().as_str(), signed(layer.last_version), layer.public])
}

/// Reads all of them into `view`.
pub(super) fn load(connection: &Connection, view: &mut View) -> Result<(), ReadError> {
    let mut statement = connection.prepare("SELECT account, name, last_version, public FROM layers")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = LayerKey::from_stored(parse("layer", &row.get::<_, String>(0)?)?, parse("layer", &row.get::<_, String>(1)?)?);
        view.layers.insert(key, Layer { last_version: unsigned(row.get(2)?), public: row.get(3)? });
    }
    let mut statement = connection
        .prepare("SELECT account, layer, version, revision, document, checksum FROM layer_versions ORDER BY 1, 2, 3")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = LayerKey::from_stored(parse("layer", &row.get::<_, String>(0)?)?, parse("layer", &row.get::<_, String>(1)?)?);
        let (number, revision) = (unsigned(row.get(2)?), Revision(unsigned(row.get(3)?)));
        let version = unseal("layer", &row.get::<_, String>(4)?, row.get(5)?)?;
        // The counter has no checksum of its own; it is at least as high as what it counted.
        let mut layer = view.layers.get(&key).copied().unwrap_or(Layer { last_version: 0, public: false });
        layer.last_version = layer.last_version.max(number);
        view.layers.insert(key.clone(), layer);
        view.layer_versions.insert((key, number), Arc::new(Stored { value: version, revision }));
    }
    Ok(())
}
