//! Callers who bring a token (contract section 9.4), and what their function is told of it.
//!
//! # Invariants
//! - A name under which the function is told a claim is the door's: what a caller puts there never arrives, whether its path
//!   needs a token or not, and whether the token has the claim or not.

use dunlin_auth::{Claims, TokenKeys};
use dunlin_model::InvalidField;
use dunlin_model::domain::{Jwks, JwtConfig, Place, TokenLookup, canonical_path};
use dunlin_outbound::Outbound;
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use super::keys::Fetched;
use super::pass;
use crate::error::Problem;

/// How tokens are accepted, with the keys read.
#[derive(Debug)]
pub(crate) struct Jwt {
    config: JwtConfig,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Given(TokenKeys),
    Fetched(Fetched),
}

impl Jwt {
    pub(super) fn new(config: JwtConfig, field: &str) -> Result<Self, InvalidField> {
        let keys = match &config.jwks {
            Jwks::Given(jwks) => Keys::Given(TokenKeys::read(jwks, &format!("{field}.jwks"))?),
            Jwks::At(address) => Keys::Fetched(Fetched::new(address)),
        };
        Ok(Self { config, keys })
    }

    /// The claims of the caller's token; nothing on a path that needs none.
    pub(super) async fn check(&self, head: &Parts, outbound: &Outbound) -> Result<Option<Claims>, Problem> {
        let path = canonical_path(head.uri.path()).ok_or_else(|| Problem::invalid("the path has a malformed percent-escape"))?;
        if !self.config.paths.needs_token(&path) {
            return Ok(None);
        }
        let mut found = self.config.lookups.iter().filter_map(|at| lookup(at, head));
        let token = found.next().ok_or_else(|| denied("a token is required"))?;
        match &self.keys {
            Keys::Given(keys) => keys.verify(&token).map(Some).map_err(|error| denied(&error.to_string())),
            Keys::Fetched(fetched) => fetched.verify(&token, outbound).await.map(Some),
        }
    }

    /// Takes out what a caller says under the names of claims, and says there what the token says.
    pub(super) fn tell(&self, head: &mut Parts, claims: Option<&Claims>) -> Result<(), Problem> {
        // Before anything of ours is added: a caller must not name a claim's header as one that ends here.
        pass::end_hop(&mut head.headers);
        for pass in self.config.claims.iter().filter(|pass| pass.place == Place::Header) {
            remove_header(&mut head.headers, &pass.name);
        }
        let mine: Vec<&str> =
            self.config.claims.iter().filter(|pass| pass.place == Place::Query).map(|pass| pass.name.as_str()).collect();
        let mut query: Vec<String> = Vec::new();
        if !mine.is_empty() {
            let given = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
            // Some servers read `;` as `&`.
            let names = |pair: &str| -> Vec<String> {
                pair.split(';').map(|piece| decoded(piece.split('=').next().unwrap_or_default())).collect()
            };
            let foreign = given.filter(|pair| !names(pair).iter().any(|name| mine.contains(&name.as_str())));
            query.extend(foreign.map(str::to_owned));
        }
        for pass in &self.config.claims {
            let Some(text) = claims.and_then(|claims| claims.get(&pass.claim)).and_then(text_of) else { continue };
            if pass.place == Place::Header {
                let name: HeaderName = pass.name.parse().map_err(|_| Problem::invalid("a claim's header has an invalid name"))?;
                head.headers.append(name, header_value(&text));
            } else {
                query.push(format!(
                    "{}={}",
                    utf8_percent_encode(&pass.name, NON_ALPHANUMERIC),
                    utf8_percent_encode(&text, NON_ALPHANUMERIC)
                ));
            }
        }
        if !mine.is_empty() {
            let path = head.uri.path();
            let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
            let told: Uri = target.parse().map_err(|_| Problem::invalid("the token's claims do not fit into a query"))?;
            head.uri = told;
        }
        Ok(())
    }
}

fn lookup(at: &TokenLookup, head: &Parts) -> Option<String> {
    let found = match at.place {
        Place::Header => {
            let mut values = head.headers.get_all(&at.name).iter();
            // Two of them, and a server behind may take the other one.
            let value = values.next().filter(|_| values.next().is_none())?;
            value.to_str().ok()?.to_owned()
        }
        Place::Cookie => {
            let cookies = head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(name, _)| *name == at.name)?.1.trim_matches('"').to_owned()
        }
        Place::Query => {
            let mut pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
            decoded(pairs.find(|(name, _)| decoded(name) == at.name)?.1)
        }
    };
    Some(found.strip_prefix(&at.prefix)?.trim().to_owned())
}

/// Also in the spelling that servers make the same variable of: `X_User` and `X-User` are both `HTTP_X_USER`.
fn remove_header(headers: &mut HeaderMap, name: &str) {
    let plain = |name: &str| name.replace('_', "-");
    let alike: Vec<HeaderName> = headers.keys().filter(|given| plain(given.as_str()) == plain(name)).cloned().collect();
    for name in alike {
        headers.remove(name);
    }
}

/// A claim as text: what is no text is JSON; nothing is nothing.
fn text_of(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Visible ASCII as it is; anything else, and what could be taken for it, percent-encoded.
fn header_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b'%') && text.trim() == text;
    let written = if plain { text.to_owned() } else { utf8_percent_encode(text, NON_ALPHANUMERIC).to_string() };
    HeaderValue::from_str(&written).expect("visible ASCII is a header's value")
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

pub(super) fn denied(message: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "AccessDenied", message)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    fn jwt(members: Value) -> Jwt {
        let mut config = json!({"jwks": {"keys": [{"kty": "oct", "k": "A".repeat(43)}]}});
        config.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Jwt::new(JwtConfig::parse(&config.to_string(), "f").unwrap(), "f").unwrap()
    }

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_token_is_found_where_it_is_looked_for() {
        let jwt = jwt(json!({"tokenLookup": "header:Authorization:Bearer ,cookie:tok,query:t"}));
        let find = |head: &Parts| jwt.config.lookups.iter().find_map(|at| lookup(at, head));
        for (target, headers, found) in [
            ("/", vec![("authorization", "Bearer abc")], Some("abc")),
            ("/", vec![("authorization", "bearer abc")], None),
            ("/", vec![("authorization", "Bearer abc"), ("authorization", "Bearer def")], None),
            ("/", vec![("cookie", "a=b; tok=\"abc\"")], Some("abc")),
            ("/", vec![("cookie", "a=b"), ("cookie", "tok=abc")], Some("abc")),
            ("/?a=b&t=a%2Ec", vec![], Some("a.c")),
            ("/?xt=abc", vec![("cookie", "xtok=abc")], None),
        ] {
            assert_eq!(find(&head(target, &headers)).as_deref(), found, "{target} {headers:?}");
        }
    }

    #[test]
    fn a_caller_cannot_say_what_a_token_would() {
        let jwt = jwt(json!({"claimPassBy": "header:sub:X-User,query:role:role"}));
        let Value::Object(claims) = json!({"sub": "ann", "role": "a&b=c", "other": 1}) else { panic!("an object") };
        let spoofed = [
            ("x-user", "root"),
            ("x-user", "admin"),
            ("x_user", "root"),
            ("X-USER", "root"),
            ("x-users", "kept"),
            ("y", "kept"),
            ("connection", "close, X-User, z"),
            ("z", "gone"),
        ];
        let mut told = head("/p?role=root&r%6Fle=root&x=1&role&y=2;role=root", &spoofed);
        jwt.tell(&mut told, Some(&claims)).unwrap();
        assert_eq!(told.headers.get_all("x-user").iter().collect::<Vec<_>>(), ["ann"]);
        assert!(!told.headers.contains_key("z") && !told.headers.contains_key("connection"));
        assert!(!told.headers.contains_key("x_user") && told.headers["x-users"] == "kept" && told.headers["y"] == "kept");
        assert_eq!(told.uri, "/p?x=1&role=a%26b%3Dc");
        let mut told = head("/p?role=root", &spoofed);
        jwt.tell(&mut told, None).unwrap();
        assert!(!told.headers.contains_key("x-user") && !told.headers.contains_key("x_user"));
        assert_eq!(told.uri, "/p");
    }

    #[test]
    fn any_claim_is_a_header_of_one_line() {
        for (claim, value) in [
            (json!("ann"), "ann"),
            (json!(7), "7"),
            (json!(true), "true"),
            (json!(["a", "b"]), "[\"a\",\"b\"]"),
            (json!("a\r\nx-admin: 1"), "a%0D%0Ax%2Dadmin%3A%201"),
            (json!("ü"), "%C3%BC"),
            (json!("100%"), "100%25"),
            (json!(" a"), "%20a"),
        ] {
            assert_eq!(header_value(&text_of(&claim).unwrap()), value, "{claim}");
        }
        assert_eq!(text_of(&Value::Null), None);
    }

    #[tokio::test]
    async fn a_path_that_needs_no_token_has_one_reading() {
        let outbound = Outbound::new(false);
        let jwt = jwt(json!({"whitelist": ["/public/*"]}));
        assert!(jwt.check(&head("/public/a", &[]), &outbound).await.unwrap().is_none());
        for target in
            ["/", "/admin", "/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public", "//admin/public/"]
        {
            assert!(jwt.check(&head(target, &[]), &outbound).await.is_err(), "{target}");
        }
    }
}
