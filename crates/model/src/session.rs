//! Sessions: which calls belong together and meet one instance (contract sections 4.10 and 12.6).
//!
//! A function's configuration says by what its calls tell their session ([`Affinity`]) and who shares an instance
//! ([`Isolation`]). The members stay where they were kept, in the wire's spelling; here they are read and checked.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::function::FunctionConfig;
use crate::ids::{InvalidId, random_u128};
use crate::limits::InvalidField;

/// The member that says by what calls tell their session.
pub const AFFINITY: &str = "sessionAffinity";
/// The member that says the rest of it, as JSON inside a string.
pub const AFFINITY_CONFIG: &str = "sessionAffinityConfig";
/// The member that says who shares an instance.
pub const ISOLATION: &str = "instanceIsolationMode";

/// Longest session, in seconds, and what is taken when nothing is said.
pub const TTL_S_MAX: u32 = 21_600;
/// How long a session may be without a call, in seconds, when nothing is said.
const IDLE_S: u32 = 1_800;
/// Sessions of one instance when nothing is said.
const PER_INSTANCE: u32 = 20;
/// Most sessions of one instance, and the calls at a time of a function's own server when sessions share it.
const PER_INSTANCE_MAX: u32 = 200;
/// Longest id that a function's own server may give a session, in bytes.
const FOREIGN_ID_BYTES_MAX: usize = 256;

/// Response fields that a session's id must not displace.
const NOT_FOR_IDS: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "keep-alive",
    "location",
    "server",
    "server-timing",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// By what a call tells its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A cookie that the platform sets.
    Cookie,
    /// The request's field of this name, in lower case.
    Header(Box<str>),
    /// The id in the address that an SSE connection to `path` is told to post to.
    McpSse {
        /// Where such a connection is made.
        path: Box<str>,
    },
    /// The `Mcp-Session-Id` that the function's own server gives.
    McpStreamable,
}

impl Affinity {
    /// As the wire spells it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cookie => "GENERATED_COOKIE",
            Self::Header(_) => "HEADER_FIELD",
            Self::McpSse { .. } => "MCP_SSE",
            Self::McpStreamable => "MCP_STREAMABLE",
        }
    }

    /// Whether the platform names sessions; otherwise the function's own server does.
    #[must_use]
    pub fn names_sessions(&self) -> bool {
        matches!(self, Self::Cookie | Self::Header(_))
    }
}

/// What a function says about its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// By what calls tell their session.
    pub affinity: Affinity,
    /// Sessions of one instance at a time.
    pub per_instance: u32,
    /// How long a session lives, in seconds.
    pub ttl_s: u32,
    /// How long it lives without a call, in seconds; 0 leaves it to `ttl_s`.
    pub idle_s: u32,
    /// Whether the id of a session that has expired is refused.
    pub disable_id_reuse: bool,
}

/// Who shares an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All calls of the version.
    #[default]
    Share,
    /// The calls of one session; the instance ends with it.
    Session,
    /// Nobody: an instance serves one call.
    Request,
}

/// Names a session within a function and qualifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", random_u128()).into())
    }

    /// One that a function's own server gave: anything visible in ASCII that is not too long.
    #[must_use]
    pub fn foreign(text: &str) -> Option<Self> {
        let fits = (1..=FOREIGN_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let fits = text.len() <= 64 && bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || byte == b'-');
        let rule = "it has 1 to 64 letters, digits, '_' and '-' and does not begin with '-'";
        if fits { Ok(Self(text.into())) } else { Err(InvalidId { what: "sessionId", rule }) }
    }
}

/// What a call says about its session, as its door read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAsk {
    /// It belongs to none yet, and wants one that the platform names.
    Begin,
    /// It belongs to this one.
    In(SessionId),
    /// It belongs to this one, and ends it.
    End(SessionId),
    /// It belongs to none, unless its answer names one.
    Alone,
    /// It is the connection that a session lives as long as.
    Connection,
}

impl FunctionConfig {
    /// What the function says about sessions, if it has any. What was stored before it was checked counts as nothing.
    #[must_use]
    pub fn sessions(&self) -> Option<SessionRules> {
        match self.kept.get(AFFINITY) {
            None => None,
            Some(value) if value == "NONE" => None,
            Some(_) => self.read_sessions().ok().flatten(),
        }
    }

    /// Who shares an instance of the function.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self.kept.get(ISOLATION).and_then(Value::as_str) {
            Some("SESSION_EXCLUSIVE") => Isolation::Session,
            Some("REQUEST_EXCLUSIVE") => Isolation::Request,
            _ => Isolation::Share,
        }
    }

    /// Calls at a time in one instance.
    #[must_use]
    pub fn concurrency_in_force(&self) -> u32 {
        if self.isolation() == Isolation::Request {
            return 1;
        }
        let said = self.instance_concurrency.and_then(|n| u32::try_from(n).ok());
        // Sessions that share a server of the function's own share all it can take, as at the vendor's.
        let unsaid = || if self.takes_several() && self.sessions().is_some() { PER_INSTANCE_MAX } else { 1 };
        said.unwrap_or_else(unsaid).max(1)
    }

    fn takes_several(&self) -> bool {
        self.runtime.protocol().passes_requests()
    }

    pub(crate) fn check_sessions(&self) -> Result<(), InvalidField> {
        let isolation = match self.kept.get(ISOLATION) {
            None => Isolation::Share,
            Some(Value::String(text)) if ["", "SHARE", "SESSION_EXCLUSIVE", "REQUEST_EXCLUSIVE"].contains(&text.as_str()) => {
                self.isolation()
            }
            Some(other) => {
                let allowed = "must be SHARE, SESSION_EXCLUSIVE or REQUEST_EXCLUSIVE";
                return Err(InvalidField::new(ISOLATION, format!("{allowed} (actual: {})", shown(other))));
            }
        };
        let sessions = self.read_sessions()?;
        match (isolation, &sessions) {
            (Isolation::Session, None) => {
                let problem = "must be GENERATED_COOKIE, HEADER_FIELD, MCP_SSE or MCP_STREAMABLE";
                Err(InvalidField::new(AFFINITY, format!("{problem} where {ISOLATION} is SESSION_EXCLUSIVE")))
            }
            (Isolation::Request, Some(_)) => {
                Err(InvalidField::new(AFFINITY, format!("must be NONE where {ISOLATION} is REQUEST_EXCLUSIVE")))
            }
            (_, Some(rules)) if !rules.affinity.names_sessions() => self.check_mcp(&rules.affinity),
            _ => Ok(()),
        }
    }

    /// Sessions of the Model Context Protocol are named by the function's own server, in an answer that streams.
    fn check_mcp(&self, affinity: &Affinity) -> Result<(), InvalidField> {
        if !self.takes_several() {
            let problem = format!("{} needs a runtime that serves HTTP by itself, for example custom", affinity.as_str());
            return Err(InvalidField::new(AFFINITY, format!("is not supported here: {problem}")));
        }
        let concurrency = self.concurrency_in_force();
        if concurrency < 2 {
            let why = "a session's stream is open while its messages come";
            let problem = format!("must be at least 2 with {}, where {why} (actual: {concurrency})", affinity.as_str());
            return Err(InvalidField::new("instanceConcurrency", problem));
        }
        Ok(())
    }

    fn read_sessions(&self) -> Result<Option<SessionRules>, InvalidField> {
        let kind = match self.kept.get(AFFINITY) {
            None => "NONE",
            Some(Value::String(text)) => text.as_str(),
            Some(other) => return Err(wrong_kind(other)),
        };
        let members = Members::read(self.kept.get(AFFINITY_CONFIG))?;
        let affinity = match kind {
            "" | "NONE" => return Ok(None),
            "GENERATED_COOKIE" => Affinity::Cookie,
            "HEADER_FIELD" => Affinity::Header(members.header_name()?),
            "MCP_SSE" => Affinity::McpSse { path: members.sse_path()? },
            "MCP_STREAMABLE" => Affinity::McpStreamable,
            _ => return Err(wrong_kind(&Value::from(kind))),
        };
        let per_instance = members.number("sessionConcurrencyPerInstance", 1, PER_INSTANCE_MAX)?.unwrap_or(PER_INSTANCE);
        let (ttl, idle) = match &affinity {
            // The connection is the session, and its call may run as long as any.
            Affinity::McpSse { .. } => (u32::try_from(self.timeout).unwrap_or(TTL_S_MAX).max(1), 0),
            _ => (
                members.number("sessionTTLInSeconds", 1, TTL_S_MAX)?.unwrap_or(TTL_S_MAX),
                members.number("sessionIdleTimeoutInSeconds", 0, TTL_S_MAX)?.unwrap_or(IDLE_S),
            ),
        };
        let disable_id_reuse = members.flag("disableSessionIdReuse")?.unwrap_or(false);
        let per_instance = match self.isolation() {
            Isolation::Session => 1,
            // No more than calls at a time: sessions that wait for each other are better apart.
            Isolation::Share | Isolation::Request => {
                let said = self.instance_concurrency.and_then(|n| u32::try_from(n).ok());
                let calls = said.unwrap_or(if self.takes_several() { PER_INSTANCE_MAX } else { 1 });
                per_instance.min(calls.max(1))
            }
        };
        Ok(Some(SessionRules { affinity, per_instance, ttl_s: ttl, idle_s: idle, disable_id_reuse }))
    }
}

fn wrong_kind(value: &Value) -> InvalidField {
    let allowed = "must be NONE, GENERATED_COOKIE, HEADER_FIELD, MCP_SSE or MCP_STREAMABLE";
    InvalidField::new(AFFINITY, format!("{allowed} (actual: {})", shown(value)))
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}

/// The object inside the string. Tools differ in whether its members begin with a capital.
struct Members(Map<String, Value>);

impl Members {
    fn read(value: Option<&Value>) -> Result<Self, InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new(AFFINITY_CONFIG, problem));
        let text = match value {
            None => return Ok(Self(Map::new())),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Self(Map::new())),
            Some(Value::String(text)) => text,
            Some(other) => return wrong(format!("must be a JSON object inside a string (actual: {})", shown(other))),
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(other) => wrong(format!("must hold a JSON object (actual: {})", shown(&other))),
            Err(error) => wrong(format!("must hold a JSON object: {error}")),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let found =
            self.0.get(name).or_else(|| self.0.iter().find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value)));
        found.filter(|value| !value.is_null())
    }

    fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, InvalidField> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number =
            value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| (least..=most).contains(number));
        let problem = || format!("must be a whole number between {least} and {most} (actual: {})", shown(value));
        number.map(Some).ok_or_else(|| member(name, problem()))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, InvalidField> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| member(name, format!("must be true or false (actual: {})", shown(value))))
    }

    fn header_name(&self) -> Result<Box<str>, InvalidField> {
        const NAME: &str = "affinityHeaderFieldName";
        let Some(value) = self.get(NAME) else { return Err(member(NAME, "is required with HEADER_FIELD".to_owned())) };
        let name = value.as_str().unwrap_or_default().to_ascii_lowercase();
        let letters = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !letters || !(5..=40).contains(&name.len()) || name.starts_with("x-fc-") {
            let rule = "must have 5 to 40 letters, digits, '_' and '-', begin with a letter and not with 'x-fc-'";
            return Err(member(NAME, format!("{rule} (actual: {})", shown(value))));
        }
        if NOT_FOR_IDS.contains(&name.as_str()) || name.starts_with("x-dunlin-") {
            return Err(member(NAME, format!("must not be a field that HTTP has a use for (actual: {})", shown(value))));
        }
        Ok(name.into())
    }

    fn sse_path(&self) -> Result<Box<str>, InvalidField> {
        const NAME: &str = "sseEndpointPath";
        let Some(value) = self.get(NAME) else { return Ok("/sse".into()) };
        let path = value.as_str().unwrap_or_default();
        let fits =
            path.starts_with('/') && path.len() <= 256 && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
        if fits {
            Ok(path.into())
        } else {
            Err(member(NAME, format!("must be a path, for example /sse (actual: {})", shown(value))))
        }
    }
}

fn member(name: &str, problem: String) -> InvalidField {
    InvalidField::new(format!("{AFFINITY_CONFIG}.{name}"), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FunctionPatch, Limits};

    fn created(members: &str) -> Result<FunctionConfig, InvalidField> {
        let json = format!(r#"{{"functionName":"f","runtime":"custom","handler":"h",{members}}}"#);
        let patch: FunctionPatch = serde_json::from_str(&json).expect("the case is JSON of the right types");
        patch.create(&Limits::default())
    }

    fn rules(affinity: &str, config: &str) -> Result<SessionRules, InvalidField> {
        let config = Value::from(config);
        created(&format!(r#""sessionAffinity":"{affinity}","sessionAffinityConfig":{config}"#))
            .map(|config| config.sessions().expect("it has sessions"))
    }

    #[test]
    fn what_is_not_said_is_the_contracts() {
        let by_cookie =
            SessionRules { affinity: Affinity::Cookie, per_instance: 20, ttl_s: 21_600, idle_s: 1_800, disable_id_reuse: false };
        assert_eq!(rules("GENERATED_COOKIE", ""), Ok(by_cookie.clone()));
        let header = r#"{"affinityHeaderFieldName":"mySessionId","SessionTTLInSeconds":60,"sessionIdleTimeoutInSeconds":0,"disableSessionIdReuse":true,"sessionConcurrencyPerInstance":3}"#;
        let by_header = SessionRules {
            affinity: Affinity::Header("mysessionid".into()),
            per_instance: 3,
            ttl_s: 60,
            idle_s: 0,
            disable_id_reuse: true,
        };
        assert_eq!(rules("HEADER_FIELD", header), Ok(by_header));
        assert_eq!(rules("MCP_SSE", "{}").map(|rules| rules.affinity), Ok(Affinity::McpSse { path: "/sse".into() }));
        assert_eq!(rules("MCP_STREAMABLE", "{}"), Ok(SessionRules { affinity: Affinity::McpStreamable, ..by_cookie }));
        assert_eq!(created(r#""description":"""#).map(|config| config.sessions()), Ok(None));
    }

    #[test]
    fn an_instance_has_no_more_sessions_than_calls_at_a_time() {
        let of = |members: &str| {
            created(members).map(|config| (config.concurrency_in_force(), config.sessions().map(|s| s.per_instance)))
        };
        assert_eq!(of(r#""sessionAffinity":"GENERATED_COOKIE""#), Ok((200, Some(20))));
        assert_eq!(of(r#""sessionAffinity":"GENERATED_COOKIE","instanceConcurrency":5"#), Ok((5, Some(5))));
        assert_eq!(of(r#""sessionAffinity":"GENERATED_COOKIE","instanceIsolationMode":"SESSION_EXCLUSIVE""#), Ok((200, Some(1))));
        assert_eq!(of(r#""instanceConcurrency":5,"instanceIsolationMode":"REQUEST_EXCLUSIVE""#), Ok((1, None)));
    }

    #[test]
    fn every_wrong_member_is_named() {
        let named = |name: &str| format!("sessionAffinityConfig.{name}");
        for (kind, config, field) in [
            ("COOKIE", "{}", AFFINITY.to_owned()),
            ("GENERATED_COOKIE", "[]", AFFINITY_CONFIG.to_owned()),
            ("GENERATED_COOKIE", "{", AFFINITY_CONFIG.to_owned()),
            ("GENERATED_COOKIE", r#"{"sessionTTLInSeconds":0}"#, named("sessionTTLInSeconds")),
            ("GENERATED_COOKIE", r#"{"sessionTTLInSeconds":"9"}"#, named("sessionTTLInSeconds")),
            ("GENERATED_COOKIE", r#"{"sessionIdleTimeoutInSeconds":21601}"#, named("sessionIdleTimeoutInSeconds")),
            ("MCP_STREAMABLE", r#"{"sessionConcurrencyPerInstance":201}"#, named("sessionConcurrencyPerInstance")),
            ("HEADER_FIELD", r#"{"disableSessionIdReuse":1,"affinityHeaderFieldName":"abcde"}"#, named("disableSessionIdReuse")),
            ("HEADER_FIELD", "{}", named("affinityHeaderFieldName")),
            ("HEADER_FIELD", r#"{"affinityHeaderFieldName":"abcd"}"#, named("affinityHeaderFieldName")),
            ("HEADER_FIELD", r#"{"affinityHeaderFieldName":"X-Fc-Id"}"#, named("affinityHeaderFieldName")),
            ("HEADER_FIELD", r#"{"affinityHeaderFieldName":"Content-Length"}"#, named("affinityHeaderFieldName")),
            ("MCP_SSE", r#"{"sseEndpointPath":"sse"}"#, named("sseEndpointPath")),
        ] {
            assert_eq!(rules(kind, config).expect_err(config).field, field, "{kind} {config}");
        }
        for (members, field) in [
            (r#""instanceIsolationMode":"ALONE""#, ISOLATION),
            (r#""instanceIsolationMode":1"#, ISOLATION),
            (r#""instanceIsolationMode":"SESSION_EXCLUSIVE""#, AFFINITY),
            (r#""instanceIsolationMode":"REQUEST_EXCLUSIVE","sessionAffinity":"GENERATED_COOKIE""#, AFFINITY),
            (r#""sessionAffinity":"MCP_SSE","instanceConcurrency":1"#, "instanceConcurrency"),
            (r#""sessionAffinity":"GENERATED_COOKIE","sessionAffinityConfig":{}"#, AFFINITY_CONFIG),
        ] {
            assert_eq!(created(members).expect_err(members).field, field, "{members}");
        }
        let python = r#"{"functionName":"f","runtime":"python3.10","handler":"a.b","sessionAffinity":"MCP_SSE"}"#;
        let python: FunctionPatch = serde_json::from_str(python).expect("JSON");
        assert_eq!(python.create(&Limits::default()).expect_err("not there").field, AFFINITY);
    }

    #[test]
    fn an_id_is_held_to_its_rule() {
        for id in ["a", "_", "9-_a", &"x".repeat(64)] {
            assert!(id.parse::<SessionId>().is_ok(), "{id}");
        }
        for id in ["", "-a", "a b", "ä", "a.b", &"x".repeat(65)] {
            assert!(id.parse::<SessionId>().is_err(), "{id}");
        }
        assert!(SessionId::random().as_str().parse::<SessionId>().is_ok());
        assert!(
            SessionId::foreign("a.b/c=").is_some() && SessionId::foreign("a b").is_none() && SessionId::foreign("").is_none()
        );
    }
}
