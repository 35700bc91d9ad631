//! Rows of images.

use std::sync::Arc;

use dunlin_model::{ImageKey, LocalImage, Revision};
use rusqlite::{Connection, params};

use super::rows::{ReadError, parse, seal, signed, unseal, unsigned};
use crate::store::Stored;
use crate::view::View;

/// Adds or replaces an image. Answers how many rows it met.
pub(super) fn put(connection: &Connection, key: &ImageKey, image: &LocalImage, at: Revision) -> Result<usize, rusqlite::Error> {
    let (document, checksum) = seal(image)?;
    connection
        .prepare_cached(
            "INSERT INTO images (account, name, revision, document, checksum) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE \
             SET revision = excluded.revision, document = excluded.document, checksum = excluded.checksum",
        )?
        .execute(params![key.account().as_str(), key.name().as_str(), signed(at.0), document, checksum])
}

/// Removes an image. Answers how many rows it met.
pub(super) fn delete(connection: &Connection, key: &ImageKey) -> Result<usize, rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM images WHERE account = ?1 AND name = ?2")?
        .execute(params![key.account().as_str(), key.name().as_str()])
}

/// Reads all of them into `view`.
pub(super) fn load(connection: &Connection, view: &mut View) -> Result<(), ReadError> {
    let mut statement = connection.prepare("SELECT account, name, revision, document, checksum FROM images")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = ImageKey::from_stored(parse("image", &row.get::<_, String>(0)?)?, parse("image", &row.get::<_, String>(1)?)?);
        let image: LocalImage = unseal("image", &row.get::<_, String>(3)?, row.get(4)?)?;
        view.images.insert(key, Arc::new(Stored { value: image, revision: Revision(unsigned(row.get(2)?)) }));
    }
    Ok(())
}
