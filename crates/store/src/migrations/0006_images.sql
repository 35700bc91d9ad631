-- Images of accounts' own. The document is what the model calls LocalImage; its checksum is CRC-64.
CREATE TABLE images (
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
