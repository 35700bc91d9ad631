-- The counter that revisions come from. One row.
CREATE TABLE counter (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO counter (id, revision) VALUES (1, 0);

-- `document` is JSON, `checksum` its CRC-64/XZ: SQLite's pages carry none of their own.
CREATE TABLE functions (
    account  TEXT NOT NULL,
    name     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    runtime  TEXT NOT NULL,
    package  TEXT NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX functions_by_package ON functions (package);

CREATE TABLE triggers (
    account    TEXT NOT NULL,
    function   TEXT NOT NULL,
    name       TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    url_prefix TEXT NOT NULL UNIQUE,
    document   TEXT NOT NULL,
    checksum   INTEGER NOT NULL,
    PRIMARY KEY (account, function, name),
    FOREIGN KEY (account, function) REFERENCES functions (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE access_keys (
    id      TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    secret  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `hash` is an unsigned 64-bit number in two's complement; `expires` is in seconds since 1970.
CREATE TABLE nonces (
    hash    INTEGER PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX nonces_by_expiry ON nonces (expires);

-- `started` is in nanoseconds since 1970.
CREATE TABLE records (
    sequence INTEGER PRIMARY KEY,
    request  TEXT NOT NULL UNIQUE,
    account  TEXT NOT NULL,
    function TEXT NOT NULL,
    started  INTEGER NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX records_by_account ON records (account, sequence);
CREATE INDEX records_by_function ON records (account, function, sequence);
