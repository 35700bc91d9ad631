-- The last number that a version of the function got, whether that version still exists or not.
ALTER TABLE functions ADD COLUMN last_version INTEGER NOT NULL DEFAULT 0;

CREATE TABLE versions (
    account  TEXT NOT NULL,
    function TEXT NOT NULL,
    id       INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    package  TEXT NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (account, function, id),
    FOREIGN KEY (account, function) REFERENCES functions (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE aliases (
    account  TEXT NOT NULL,
    function TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (account, function, name),
    FOREIGN KEY (account, function) REFERENCES functions (account, name)
) STRICT, WITHOUT ROWID;
