-- `last_version` is the last number that a version got, whether that version still exists or not.
CREATE TABLE layers (
    account      TEXT NOT NULL,
    name         TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    public       INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE layer_versions (
    account  TEXT NOT NULL,
    layer    TEXT NOT NULL,
    version  INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    package  TEXT NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (account, layer, version),
    FOREIGN KEY (account, layer) REFERENCES layers (account, name)
) STRICT, WITHOUT ROWID;
