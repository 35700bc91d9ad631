//! Rewriting of request targets (contract section 9.5): the first rule that matches replaces the path.
//!
//! Rules look at the path as it was sent. The path as a whole gives way to the replacement; a query in the replacement is
//! put before the request's own.

use regex::bytes::{Regex, RegexBuilder};

use super::{RewriteConfig, RewriteRule};
use crate::limits::InvalidField;

/// Longest `match` and `replacement`, in bytes.
const RULE_BYTES_MAX: usize = 1024;
/// Most references to captures in one replacement: so often may a path be repeated in another.
const REFERENCES_MAX: usize = 20;
/// How large one compiled expression may be, in bytes.
const COMPILED_BYTES_MAX: usize = 128 << 10;

/// The rules of one route, compiled.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    equal: Vec<(String, String)>,
    /// Wildcards, then regular expressions: kinds are tried in this order.
    patterns: Vec<(Regex, Template)>,
}

impl Rewrite {
    /// Compiles rules; `field` is where they stand.
    ///
    /// # Errors
    /// The member that is wrong.
    pub fn new(config: &RewriteConfig, field: &str) -> Result<Self, InvalidField> {
        let mut rewrite = Self::default();
        for (rule, field) in numbered(config.equal_rules.as_deref(), field, "equalRules") {
            check(rule, &field)?;
            if !rule.pattern.starts_with('/') {
                return Err(InvalidField::new(format!("{field}.match"), "must begin with '/'"));
            }
            rewrite.equal.push((rule.pattern.clone(), rule.replacement.clone()));
        }
        for (rule, field) in numbered(config.wildcard_rules.as_deref(), field, "wildcardRules") {
            check(rule, &field)?;
            rewrite.patterns.push(compiled(&wildcard(&rule.pattern), rule, &field)?);
        }
        for (rule, field) in numbered(config.regex_rules.as_deref(), field, "regexRules") {
            check(rule, &field)?;
            rewrite.patterns.push(compiled(&rule.pattern, rule, &field)?);
        }
        Ok(rewrite)
    }

    /// The target that `path` with `query` becomes; nothing when no rule matches.
    #[must_use]
    pub fn apply(&self, path: &str, query: Option<&str>) -> Option<String> {
        let replaced = self.replaced(path)?;
        let mut target = if replaced.starts_with('/') { replaced } else { format!("/{replaced}") };
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        Some(target)
    }

    fn replaced(&self, path: &str) -> Option<String> {
        if let Some((_, replacement)) = self.equal.iter().find(|(pattern, _)| pattern == path) {
            return Some(replacement.clone());
        }
        self.patterns.iter().find_map(|(pattern, template)| {
            let captures = pattern.captures(path.as_bytes())?;
            template.fill(|group| captures.get(group).map_or(&[][..], |found| found.as_bytes()))
        })
    }
}

fn numbered<'a>(rules: Option<&'a [RewriteRule]>, field: &str, kind: &str) -> impl Iterator<Item = (&'a RewriteRule, String)> {
    let within = format!("{field}.{kind}");
    rules.unwrap_or_default().iter().enumerate().map(move |(index, rule)| (rule, format!("{within}[{index}]")))
}

fn check(rule: &RewriteRule, field: &str) -> Result<(), InvalidField> {
    for (member, text) in [("match", &rule.pattern), ("replacement", &rule.replacement)] {
        if text.is_empty() || text.len() > RULE_BYTES_MAX {
            let problem = format!("must have 1 to {RULE_BYTES_MAX} bytes (actual: {})", text.len());
            return Err(InvalidField::new(format!("{field}.{member}"), problem));
        }
    }
    let replacement = format!("{field}.replacement");
    if !rule.replacement.starts_with(['/', '$']) {
        return Err(InvalidField::new(replacement, "must begin with '/', or with '$' and the number of a capture"));
    }
    // What a request line could not carry; `http` has no wider idea of a target.
    if !rule.replacement.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\')) {
        return Err(InvalidField::new(replacement, "must be a path with or without a query, percent-encoded"));
    }
    Ok(())
}

/// `*` is any string, `^` in front means the beginning; nothing else is special.
fn wildcard(pattern: &str) -> String {
    let (anchor, rest) = pattern.strip_prefix('^').map_or(("", pattern), |rest| ("^", rest));
    let parts: Vec<String> = rest.split('*').map(regex::escape).collect();
    format!("{anchor}{}", parts.join("(.*)"))
}

fn compiled(expression: &str, rule: &RewriteRule, field: &str) -> Result<(Regex, Template), InvalidField> {
    let built = RegexBuilder::new(expression)
        .unicode(false)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(50)
        .build();
    let regex = built.map_err(|error| {
        let problem = match error {
            regex::Error::CompiledTooBig(_) => {
                "is too large an expression; repeat less, or split it into several rules".to_owned()
            }
            // The last line of its message says what is wrong, those before draw where.
            other => format!(
                "is no regular expression: {}",
                other.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("error: ")
            ),
        };
        InvalidField::new(format!("{field}.match"), problem)
    })?;
    let template = Template::parse(&rule.replacement);
    let groups = regex.captures_len() - 1;
    if let Some(beyond) = template.references().find(|group| *group > groups) {
        let problem = format!("refers to ${beyond}, but the rule's match has {groups} captures");
        return Err(InvalidField::new(format!("{field}.replacement"), problem));
    }
    if template.references().count() > REFERENCES_MAX {
        return Err(InvalidField::new(format!("{field}.replacement"), format!("may refer to captures {REFERENCES_MAX} times")));
    }
    Ok((regex, template))
}

/// A replacement: text, and references to captures, `$1` to `$99` (`$0` is the whole match).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Template {
    fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut pieces = text.split('$');
        parts.extend(pieces.next().filter(|first| !first.is_empty()).map(|first| Part::Text(first.to_owned())));
        for piece in pieces {
            let digits = piece.bytes().take(2).take_while(u8::is_ascii_digit).count();
            match piece[..digits].parse() {
                Ok(group) => parts.push(Part::Group(group)),
                Err(_) => parts.push(Part::Text("$".to_owned())),
            }
            if piece.len() > digits {
                parts.push(Part::Text(piece[digits..].to_owned()));
            }
        }
        Self(parts)
    }

    fn references(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|part| match part {
            Part::Group(group) => Some(*group),
            Part::Text(_) => None,
        })
    }

    fn fill<'a>(&self, capture: impl Fn(usize) -> &'a [u8]) -> Option<String> {
        let mut filled = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Part::Group(group) => filled.extend_from_slice(capture(*group)),
            }
        }
        String::from_utf8(filled).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, replacement: &str) -> Option<Vec<RewriteRule>> {
        Some(vec![RewriteRule { pattern: pattern.to_owned(), replacement: replacement.to_owned() }])
    }

    fn rewritten(config: &RewriteConfig, path: &str) -> Option<String> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Rewrite::new(config, "r").unwrap().apply(path, query)
    }

    #[test]
    fn an_equal_rule_wants_the_whole_path() {
        let config = RewriteConfig { equal_rules: rule("/old", "/new"), ..RewriteConfig::default() };
        assert_eq!(rewritten(&config, "/old").as_deref(), Some("/new"));
        assert_eq!(rewritten(&config, "/old?a=1").as_deref(), Some("/new?a=1"));
        for path in ["/test/old", "/old/", "/older", "/"] {
            assert_eq!(rewritten(&config, path), None, "{path}");
        }
        let config = RewriteConfig { equal_rules: rule("/old", "/new?x=1"), ..RewriteConfig::default() };
        assert_eq!(rewritten(&config, "/old?a=1").as_deref(), Some("/new?x=1&a=1"));
    }

    #[test]
    fn a_wildcard_rule_matches_anywhere_unless_it_is_anchored() {
        for (pattern, replacement, path, expected) in [
            ("/old", "/new", "/old", Some("/new")),
            ("/old", "/new", "/test/old", Some("/new")),
            ("^/old", "/new", "/old", Some("/new")),
            ("^/old", "/new", "/test/old", None),
            ("/api/*", "/$1", "/api/getFunctionName", Some("/getFunctionName")),
            ("/api/*", "/$1", "/api/getFunctionName&Version=1", Some("/getFunctionName&Version=1")),
            ("/css/*", "/public/static/css/$1", "/css/style.css", Some("/public/static/css/style.css")),
            ("^/a/*/b/*", "/$2/$1", "/a/x/b/y", Some("/y/x")),
            ("/a.b", "/new", "/aXb", None),
            ("/v1", "/cost$", "/v1", Some("/cost$")),
            ("^*", "$1", "/x", Some("/x")),
        ] {
            let config = RewriteConfig { wildcard_rules: rule(pattern, replacement), ..RewriteConfig::default() };
            assert_eq!(rewritten(&config, path).as_deref(), expected, "{pattern} {replacement} {path}");
        }
    }

    #[test]
    fn a_regular_expression_gives_its_captures() {
        for (pattern, replacement, path, expected) in [
            (r"^/user/(\d+)$", "/profile?id=$1", "/user/42?full=1", Some("/profile?id=42&full=1")),
            (r"^/user/(\d+)$", "/profile?id=$1", "/user/x", None),
            (r"/(a)(b)?", "/$1-$2", "/a", Some("/a-")),
            (r"^/(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", "/$11$1", "/abcdefghijk", Some("/ka")),
            (r"(?i)^/OLD", "/new", "/old", Some("/new")),
        ] {
            let config = RewriteConfig { regex_rules: rule(pattern, replacement), ..RewriteConfig::default() };
            assert_eq!(rewritten(&config, path).as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn kinds_are_tried_in_their_order_and_the_first_rule_applies() {
        let config = RewriteConfig {
            equal_rules: rule("/a", "/equal"),
            wildcard_rules: rule("/a*", "/wildcard"),
            regex_rules: rule("/[ab]", "/regex"),
        };
        assert_eq!(rewritten(&config, "/a").as_deref(), Some("/equal"));
        assert_eq!(rewritten(&config, "/ab").as_deref(), Some("/wildcard"));
        assert_eq!(rewritten(&config, "/b").as_deref(), Some("/regex"));
        assert_eq!(rewritten(&config, "/c"), None);
    }

    #[test]
    fn a_wrong_rule_is_named() {
        let long = format!("/{}", "x".repeat(2000));
        for (pattern, replacement, member) in [
            ("", "/", "match"),
            ("/a", "", "replacement"),
            ("(", "/", "match"),
            ("(a{1,1000}){1,1000}", "/", "match"),
            (r"\p{Greek}", "/", "match"),
            (r"(a)\1", "/", "match"),
            ("(?=a)", "/", "match"),
            (&"(".repeat(500), "/", "match"),
            (&long, "/", "match"),
            ("/a", &long, "replacement"),
            ("/a", "http://evil.example/", "replacement"),
            ("/a", "/b c", "replacement"),
            ("/a", "/b\r\nx: y", "replacement"),
            ("/a", "/b#c", "replacement"),
            ("/a", "/bü", "replacement"),
            ("/(a)", "/$2", "replacement"),
            ("/(a)", &"/$1".repeat(30), "replacement"),
        ] {
            let config = RewriteConfig { regex_rules: rule(pattern, replacement), ..RewriteConfig::default() };
            let refused = Rewrite::new(&config, "r").expect_err(pattern);
            assert_eq!(refused.field, format!("r.regexRules[0].{member}"), "{pattern} {replacement}: {refused}");
        }
    }

    #[test]
    fn no_expression_takes_more_than_linear_time() {
        // Exponential for a matcher that tries and goes back: 2^4000 steps.
        let config = RewriteConfig { regex_rules: rule("^/(a+)+$", "/x"), ..RewriteConfig::default() };
        let rewrite = Rewrite::new(&config, "r").unwrap();
        assert_eq!(rewrite.apply(&format!("/{}!", "a".repeat(4000)), None), None);
    }
}
