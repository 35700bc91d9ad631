-- What is said about a function beside its configuration. `qualifier` is empty where a kind concerns the whole function.
CREATE TABLE settings (
    account   TEXT NOT NULL,
    kind      TEXT NOT NULL,
    function  TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    document  TEXT NOT NULL,
    checksum  INTEGER NOT NULL,
    PRIMARY KEY (account, kind, function, qualifier),
    FOREIGN KEY (account, function) REFERENCES functions (account, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX settings_by_function ON settings (account, function);
