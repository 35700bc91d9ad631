//! Tests of the whole platform: the real binary, real sandboxes, real clients. See `tests/`.
