//! Patterns of paths: one path, or all that begin with it.

use std::borrow::Cow;

/// `/a`, or `/a/*` for everything below `/a/`. Compared with paths in [canonical](canonical_path) form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    /// The path, or for a prefix what stands before the `*`.
    path: String,
    is_prefix: bool,
}

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong, to be read after the member's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("must begin with '/'".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("must be at most {PATTERN_BYTES_MAX} bytes (actual: {})", text.len()));
        }
        if text.contains(['?', '#', '\\']) || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must be a path: no '?', '#', '\\', spaces or control characters".to_owned());
        }
        let (path, is_prefix) = match text.strip_suffix("/*") {
            Some(before) => (format!("{before}/"), true),
            None => (text.to_owned(), false),
        };
        if path.contains('*') {
            return Err("may have one '*', at its end behind a '/'".to_owned());
        }
        let canonical = canonical_path(&path).ok_or("has a malformed percent-escape")?;
        if canonical != path && percent_decoded(&path).as_deref() != Some(&*canonical) {
            return Err("must not have empty, '.' or '..' segments".to_owned());
        }
        Ok(Self { path: canonical.into_owned(), is_prefix })
    }

    /// Whether a canonical path is meant.
    #[must_use]
    pub fn matches(&self, canonical: &str) -> bool {
        if self.is_prefix { canonical.starts_with(&self.path) } else { canonical == self.path }
    }

    /// Orders patterns that match the same path: one path before a prefix, a long prefix before a short one.
    #[must_use]
    pub fn specificity(&self) -> (bool, usize) {
        (!self.is_prefix, self.path.len())
    }

    /// What stands before `/*`; empty for one path, and for `/*`.
    #[must_use]
    pub fn base(&self) -> &str {
        if self.is_prefix { self.path.trim_end_matches('/') } else { "" }
    }
}

/// The path that a request means, in one spelling: escapes decoded once, no empty and no dot segments. A rule about
/// `/admin` then holds for `//admin`, `/%61dmin` and `/public/..%2fadmin` as well, whichever a function's server would make
/// of them. Nothing when an escape is malformed or the path is not UTF-8.
#[must_use]
pub fn canonical_path(path: &str) -> Option<Cow<'_, str>> {
    let plain = |path: &str| !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if path.starts_with('/') && plain(path) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = percent_decoded(path)?;
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    // What ends in a slash, or in a segment that means a folder, is a folder.
    let is_folder = matches!(decoded.rsplit('/').next(), Some("" | "." | ".."));
    let mut canonical = format!("/{}", segments.join("/"));
    if is_folder && canonical.len() > 1 {
        canonical.push('/');
    }
    Some(Cow::Owned(canonical))
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_canonical_spelling() {
        for (path, canonical) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/..%2fadmin", "/admin"),
            ("/public%2F..%2Fadmin/", "/admin/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.hidden", "/.hidden"),
            ("/%25%32%65", "/%2e"),
            ("/b%C3%BCcher", "/bücher"),
        ] {
            assert_eq!(canonical_path(path).as_deref(), Some(canonical), "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/%ff"] {
            assert_eq!(canonical_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_pattern_is_a_path_or_all_below_it() {
        let matching = |pattern: &str, path: &str| PathPattern::parse(pattern).unwrap().matches(path);
        for (pattern, path) in [("/a", "/a"), ("/a/*", "/a/"), ("/a/*", "/a/b/c"), ("/*", "/"), ("/*", "/x"), ("/%61", "/a")] {
            assert!(matching(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("/a", "/a/"), ("/a", "/A"), ("/a/*", "/a"), ("/a/*", "/ab"), ("/", "/x")] {
            assert!(!matching(pattern, path), "{pattern} {path}");
        }
        let long = format!("/{}", "x".repeat(2000));
        for text in
            ["", "a", "*", "/a*", "/*/b", "/a/**", "/a?b", "/a#b", "/a b", "/a\n", "/a/../b", "//a", "/./a", "/%", "/a\\b", &long]
        {
            assert!(PathPattern::parse(text).is_err(), "{text:?}");
        }
    }
}
