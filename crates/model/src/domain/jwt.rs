//! The JSON that says how tokens are accepted (contract section 9.4): `authInfo` of a domain, `authConfig` of a trigger.
//!
//! `{"jwks":{"keys":[…]},"tokenLookup":"header:Authorization:Bearer ,cookie:token","claimPassBy":"header:sub:x-user",
//! "whitelist":["/health"],"blacklist":["/admin/*"]}`; beyond the contract, `jwks` may be the address of a key set. The keys
//! themselves are read where signatures are checked.

use serde::Deserialize;
use serde_json::Value;

use super::path::PathPattern;
use crate::limits::InvalidField;

/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most entries of each list.
const ENTRIES_MAX: usize = 50;

/// How tokens are accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtConfig {
    /// The key set.
    pub jwks: Jwks,
    /// Where a token may be, in the order in which it is looked for.
    pub lookups: Vec<TokenLookup>,
    /// What a function is told of a token.
    pub claims: Vec<ClaimPass>,
    /// Which paths need one.
    pub paths: PathList,
}

/// A key set.
#[derive(Clone, Debug, PartialEq)]
pub enum Jwks {
    /// As JSON.
    Given(Value),
    /// Where it is.
    At(String),
}

/// One place where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLookup {
    /// Which part of a request.
    pub place: Place,
    /// The name in it; of a header in lower case.
    pub name: String,
    /// What stands before the token.
    pub prefix: String,
}

/// One claim that a function is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPass {
    /// Which part of the request it is put into: a header or the query.
    pub place: Place,
    /// The claim.
    pub claim: String,
    /// The name it gets; of a header in lower case.
    pub name: String,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parts of a request")]
pub enum Place {
    Header,
    Cookie,
    Query,
}

/// Which paths need a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathList {
    /// All.
    All,
    /// All but these.
    Except(Vec<PathPattern>),
    /// These alone.
    Only(Vec<PathPattern>),
}

impl PathList {
    /// Whether a [canonical](super::canonical_path) path needs a token.
    #[must_use]
    pub fn needs_token(&self, canonical: &str) -> bool {
        match self {
            Self::All => true,
            Self::Except(free) => !free.iter().any(|pattern| pattern.matches(canonical)),
            Self::Only(guarded) => guarded.iter().any(|pattern| pattern.matches(canonical)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    #[serde(default)]
    jwks: Option<Value>,
    #[serde(default)]
    token_lookup: Option<String>,
    #[serde(default)]
    claim_pass_by: Option<String>,
    #[serde(default)]
    whitelist: Option<Vec<String>>,
    #[serde(default)]
    blacklist: Option<Vec<String>>,
}

impl JwtConfig {
    /// Reads the JSON text that stands in `field`.
    ///
    /// # Errors
    /// The member that is wrong, with its path.
    pub fn parse(text: &str, field: &str) -> Result<Self, InvalidField> {
        if text.len() > TEXT_BYTES_MAX {
            let problem = format!("must be at most {TEXT_BYTES_MAX} bytes (actual: {})", text.len());
            return Err(InvalidField::new(field, problem));
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let read: Text = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let within = if path == "." { field.to_owned() } else { format!("{field}.{path}") };
            InvalidField::new(within, format!("is invalid: {}", error.inner()))
        })?;
        reader.end().map_err(|error| InvalidField::new(field, format!("is invalid: {error}")))?;
        let member = |name: &str| format!("{field}.{name}");
        let jwks = match read.jwks {
            None => return Err(InvalidField::new(member("jwks"), "is required for authType 'jwt'")),
            Some(Value::String(address)) => Jwks::At(address),
            Some(given) => Jwks::Given(given),
        };
        let lookup = read.token_lookup.filter(|lookup| !lookup.is_empty());
        let lookups = entries(&lookup.unwrap_or_else(|| "header:Authorization:Bearer ".to_owned()), &member("tokenLookup"))?
            .into_iter()
            .map(|parts| token_lookup(&parts, &member("tokenLookup")))
            .collect::<Result<_, _>>()?;
        let claims = entries(&read.claim_pass_by.unwrap_or_default(), &member("claimPassBy"))?
            .into_iter()
            .map(|parts| claim_pass(&parts, &member("claimPassBy")))
            .collect::<Result<_, _>>()?;
        let lists = (read.whitelist.filter(|list| !list.is_empty()), read.blacklist.filter(|list| !list.is_empty()));
        let paths = match lists {
            (None, None) => PathList::All,
            (Some(free), None) => PathList::Except(patterns(&free, &member("whitelist"))?),
            (None, Some(guarded)) => PathList::Only(patterns(&guarded, &member("blacklist"))?),
            (Some(_), Some(_)) => {
                return Err(InvalidField::new(member("blacklist"), "cannot stand beside a whitelist; give one of them"));
            }
        };
        Ok(Self { jwks, lookups, claims, paths })
    }
}

/// `a:b:c,d:e` in its parts.
fn entries(text: &str, field: &str) -> Result<Vec<Vec<String>>, InvalidField> {
    let split: Vec<Vec<String>> = text
        .split(',')
        .filter(|entry| !entry.trim().is_empty())
        .map(|entry| entry.trim_start().splitn(3, ':').map(str::to_owned).collect())
        .collect();
    if split.len() > ENTRIES_MAX {
        return Err(InvalidField::new(field, format!("may have {ENTRIES_MAX} entries at most (actual: {})", split.len())));
    }
    Ok(split)
}

fn token_lookup(parts: &[String], field: &str) -> Result<TokenLookup, InvalidField> {
    let part = |index: usize| parts.get(index).map(String::as_str).unwrap_or_default();
    let place = match part(0) {
        "header" => Place::Header,
        "cookie" => Place::Cookie,
        "query" => Place::Query,
        "form" => {
            return Err(InvalidField::new(field, "cannot be 'form': tokens are read from 'header', 'cookie' and 'query' only"));
        }
        _ => {
            return Err(InvalidField::new(
                field,
                "must be entries like 'header:Authorization:Bearer ', 'cookie:name' or 'query:name'",
            ));
        }
    };
    let name = checked_name(place, part(1), field)?;
    Ok(TokenLookup { place, name, prefix: part(2).to_owned() })
}

fn claim_pass(parts: &[String], field: &str) -> Result<ClaimPass, InvalidField> {
    let part = |index: usize| parts.get(index).map(String::as_str).unwrap_or_default();
    let place = match part(0) {
        "header" => Place::Header,
        // The vendor's tool writes nothing for the default.
        "query" | "" => Place::Query,
        _ => return Err(InvalidField::new(field, "must be entries like 'header:claim:name' or 'query:claim:name'")),
    };
    let claim = part(1).trim();
    if claim.is_empty() {
        return Err(InvalidField::new(field, "must name a claim in each entry"));
    }
    let given = part(2).trim();
    let name = checked_name(place, if given.is_empty() { claim } else { given }, field)?;
    if place == Place::Header && is_the_doors(&name) {
        return Err(InvalidField::new(field, format!("cannot set the header '{name}', which the platform or HTTP itself uses")));
    }
    Ok(ClaimPass { place, claim: claim.to_owned(), name })
}

fn checked_name(place: Place, name: &str, field: &str) -> Result<String, InvalidField> {
    let name = name.trim();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Err(InvalidField::new(field, "must have a name of 1 to 128 letters, digits, '-' and '_' in each entry"));
    }
    Ok(if place == Place::Header { name.to_ascii_lowercase() } else { name.to_owned() })
}

/// Headers that frame a message, name its host, or tell what the platform says.
fn is_the_doors(name: &str) -> bool {
    const THEIRS: &[&str] = &[
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    THEIRS.contains(&name) || ["x-fc-", "x-acs-", "x-dunlin-", "proxy-", "sec-"].iter().any(|prefix| name.starts_with(prefix))
}

fn patterns(list: &[String], field: &str) -> Result<Vec<PathPattern>, InvalidField> {
    if list.len() > ENTRIES_MAX {
        return Err(InvalidField::new(field, format!("may have {ENTRIES_MAX} entries at most (actual: {})", list.len())));
    }
    let parse = |(index, text): (usize, &String)| {
        PathPattern::parse(text).map_err(|problem| InvalidField::new(format!("{field}[{index}]"), problem))
    };
    list.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<JwtConfig, InvalidField> {
        JwtConfig::parse(&value.to_string(), "authInfo")
    }

    #[test]
    fn places_and_claims_are_read() {
        let config = parse(&json!({
            "jwks": {"keys": []},
            "tokenLookup": "header:Authentication:Bearer , cookie:tok,query:t",
            "claimPassBy": "header:name:X-Name,query:sub:user,:role:,query:id",
        }))
        .unwrap();
        let lookups: Vec<_> = config.lookups.iter().map(|at| (at.place, at.name.as_str(), at.prefix.as_str())).collect();
        let expected = [(Place::Header, "authentication", "Bearer "), (Place::Cookie, "tok", ""), (Place::Query, "t", "")];
        assert_eq!(lookups, expected);
        let claims: Vec<_> = config.claims.iter().map(|pass| (pass.place, pass.claim.as_str(), pass.name.as_str())).collect();
        let expected = [
            (Place::Header, "name", "x-name"),
            (Place::Query, "sub", "user"),
            (Place::Query, "role", "role"),
            (Place::Query, "id", "id"),
        ];
        assert_eq!(claims, expected);
        let config = parse(&json!({"jwks": {}})).unwrap();
        assert_eq!((config.lookups[0].name.as_str(), config.lookups[0].prefix.as_str()), ("authorization", "Bearer "));
    }

    #[test]
    fn lists_say_which_paths_need_a_token() {
        let needs = |value: Value, path: &str| parse(&value).unwrap().paths.needs_token(path);
        for (path, free) in [("/health", false), ("/healthy", true), ("/static/x", false), ("/", true)] {
            assert_eq!(needs(json!({"jwks": {}, "whitelist": ["/health", "/static/*"]}), path), free, "{path}");
        }
        for (path, guarded) in [("/admin", false), ("/admin/x", true), ("/", false)] {
            assert_eq!(needs(json!({"jwks": {}, "blacklist": ["/admin/*"]}), path), guarded, "{path}");
        }
        assert!(needs(json!({"jwks": {}, "whitelist": []}), "/"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, field) in [
            (json!({}), "authInfo.jwks"),
            (json!({"jwks": {}, "tokenLookup": "body:x"}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "tokenLookup": "form:x"}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "tokenLookup": "header"}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "tokenLookup": "header:a b"}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "tokenLookup": "query:a,".repeat(60)}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "tokenLookup": 1}), "authInfo.tokenLookup"),
            (json!({"jwks": {}, "claimPassBy": "body:a:b"}), "authInfo.claimPassBy"),
            (json!({"jwks": {}, "claimPassBy": "query::"}), "authInfo.claimPassBy"),
            (json!({"jwks": {}, "claimPassBy": "header:a:X-Fc-Account-Id"}), "authInfo.claimPassBy"),
            (json!({"jwks": {}, "claimPassBy": "header:a:Host"}), "authInfo.claimPassBy"),
            (json!({"jwks": {}, "claimPassBy": "header:a:b\r\nc"}), "authInfo.claimPassBy"),
            (json!({"jwks": {}, "whitelist": ["/a"], "blacklist": ["/b"]}), "authInfo.blacklist"),
            (json!({"jwks": {}, "whitelist": ["a"]}), "authInfo.whitelist[0]"),
            (json!("x"), "authInfo"),
            (json!({"jwks": {}, "x": "x".repeat(20000)}), "authInfo"),
        ] {
            assert_eq!(parse(&value).expect_err(field).field, field, "{value}");
        }
        assert_eq!(JwtConfig::parse("{\"jwks\":{}} x", "authInfo").unwrap_err().field, "authInfo");
    }
}
