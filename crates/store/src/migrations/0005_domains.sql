-- Custom domains. A host belongs to one account, so that the name alone is the key. The document holds the certificate's private key.
CREATE TABLE domains (
    name     TEXT NOT NULL PRIMARY KEY,
    account  TEXT NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
