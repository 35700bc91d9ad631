//! Sessions as resources: made ahead of their first call, looked at, changed, paused and ended by a function's owner.
//!
//! They live in the pool, with the instances that they lead to, and end with the platform.

use async_trait::async_trait;
use dunlin_invoke::Invoker;
use dunlin_model::session::TTL_S_MAX;
use dunlin_model::{AccountScope, FunctionKey, Qualifier, SessionId, SessionRules, Target};
use dunlin_pool::{Pool, SessionInfo, SessionKey, SessionRefusal, SessionStatus, SessionTerms};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::Instant;

use crate::control::Control;
use crate::error::Error;
use crate::listing::Paging;
use crate::versions::resolve;

/// How long a new session waits for its instance before it is answered for without one.
const INSTANCE_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of what is kept with a session.
const NOTES_BYTES_MAX: usize = 16 << 10;

/// What the control plane needs of whoever has the sessions.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Makes a session of what `target` is, with an instance if one comes in time.
    async fn create(&self, key: &SessionKey, target: &Target, terms: SessionTerms, notes: Box<str>)
    -> Result<SessionInfo, Error>;
    /// One session.
    fn get(&self, key: &SessionKey) -> Option<SessionInfo>;
    /// The function's, by qualifier and id.
    fn list(&self, function: &FunctionKey) -> Vec<SessionInfo>;
    /// Changes one's terms and what is kept with it.
    fn update(&self, key: &SessionKey, terms: SessionTerms, notes: Box<str>) -> Result<(), SessionRefusal>;
    /// Pauses one or lets it go on.
    fn pause(&self, key: &SessionKey, paused: bool) -> Result<(), SessionRefusal>;
    /// Ends one, with the calls of an instance that is its alone.
    fn end(&self, key: &SessionKey) -> Result<(), SessionRefusal>;
    /// The function is gone.
    fn forget(&self, function: &FunctionKey);
}

/// Sessions in the pool, of what the desk makes of a target.
pub struct PoolSessions {
    /// Knows what instances are made from.
    pub invoker: Invoker,
    /// Has them.
    pub pool: Pool,
}

#[async_trait]
impl Sessions for PoolSessions {
    async fn create(
        &self,
        key: &SessionKey,
        target: &Target,
        terms: SessionTerms,
        notes: Box<str>,
    ) -> Result<SessionInfo, Error> {
        let spec = self.invoker.spec(&key.function, target).map_err(|missing| Error::invalid("runtime", missing.to_string()))?;
        let deadline = Instant::now() + INSTANCE_PATIENCE;
        Ok(self.pool.create_session(key, &spec, terms, notes, deadline).await?)
    }
    fn get(&self, key: &SessionKey) -> Option<SessionInfo> {
        self.pool.session(key)
    }
    fn list(&self, function: &FunctionKey) -> Vec<SessionInfo> {
        self.pool.sessions(function)
    }
    fn update(&self, key: &SessionKey, terms: SessionTerms, notes: Box<str>) -> Result<(), SessionRefusal> {
        self.pool.update_session(key, |own, kept| (*own, *kept) = (terms, notes))
    }
    fn pause(&self, key: &SessionKey, paused: bool) -> Result<(), SessionRefusal> {
        self.pool.pause_session(key, paused)
    }
    fn end(&self, key: &SessionKey) -> Result<(), SessionRefusal> {
        self.pool.end_session(key, true)
    }
    fn forget(&self, function: &FunctionKey) {
        self.pool.forget_sessions(function);
    }
}

/// What is said of a session, in the wire's spelling; an absent member is left as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the contract's members")]
pub struct SessionInput {
    pub session_id: Option<String>,
    #[serde(rename = "sessionTTLInSeconds")]
    pub session_ttl_in_seconds: Option<i64>,
    pub session_idle_timeout_in_seconds: Option<i64>,
    pub disable_session_id_reuse: Option<bool>,
    pub enable_auto_pause: Option<bool>,
    pub enable_auto_resume: Option<bool>,
    pub allow_internet_access: Option<bool>,
    pub network: Option<Value>,
    pub snapshot_id: Option<String>,
    pub nas_config: Option<Value>,
    pub oss_mount_config: Option<Value>,
    pub polar_fs_config: Option<Value>,
    pub juice_fs_config: Option<Value>,
}

/// Which sessions to list; an absent member excludes none.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// Only those of calls with this qualifier.
    pub qualifier: Option<String>,
    /// Only those of this id.
    pub id: Option<String>,
    /// Only those that are `Active`, `Paused` or `Expired`.
    pub status: Option<String>,
}

impl SessionInput {
    fn change(&self, terms: &mut SessionTerms) -> Result<(), Error> {
        let seconds = |name: &str, value: i64, least: i64| {
            let wrong = || Error::invalid(name, format!("must be between {least} and {TTL_S_MAX} (actual: {value})"));
            u64::try_from(value)
                .ok()
                .filter(|_| (least..=i64::from(TTL_S_MAX)).contains(&value))
                .map(Duration::from_secs)
                .ok_or_else(wrong)
        };
        if let Some(ttl) = self.session_ttl_in_seconds {
            terms.ttl = seconds("sessionTTLInSeconds", ttl, 1)?;
        }
        if let Some(idle) = self.session_idle_timeout_in_seconds {
            let idle = seconds("sessionIdleTimeoutInSeconds", idle, 0)?;
            terms.idle = Some(idle).filter(|idle| !idle.is_zero());
        }
        terms.disable_id_reuse = self.disable_session_id_reuse.unwrap_or(terms.disable_id_reuse);
        terms.auto_pause = self.enable_auto_pause.unwrap_or(terms.auto_pause);
        terms.auto_resume = self.enable_auto_resume.unwrap_or(terms.auto_resume);
        Ok(())
    }

    /// What of the input would need more than this platform has.
    fn check(&self, reaches_internet: bool) -> Result<(), Error> {
        if self.allow_internet_access.is_some_and(|allowed| allowed != reaches_internet) {
            let problem = format!("must be the function's internetAccess, which is {reaches_internet}: instances are made ahead");
            return Err(Error::invalid("allowInternetAccess", problem));
        }
        let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
        if self.network.as_ref().is_some_and(|network| !is_empty(network)) {
            return Err(Error::invalid("network", "is not supported: all sessions of a function have its network"));
        }
        if self.snapshot_id.as_ref().is_some_and(|id| !id.is_empty()) {
            return Err(Error::invalid("snapshotId", "is not supported: there are no snapshots here"));
        }
        Ok(())
    }

    /// What is only kept, put over what was kept before.
    fn note(&self, before: &str) -> Result<Box<str>, Error> {
        let mut members: Map<String, Value> = serde_json::from_str(before).unwrap_or_default();
        let kept = [
            ("nasConfig", &self.nas_config),
            ("ossMountConfig", &self.oss_mount_config),
            ("polarFsConfig", &self.polar_fs_config),
            ("juiceFsConfig", &self.juice_fs_config),
        ];
        for (name, value) in kept {
            let Some(value) = value else { continue };
            if !value.is_object() {
                return Err(Error::invalid(name, "must be an object"));
            }
            members.insert(name.to_owned(), value.clone());
            if Value::Object(members.clone()).to_string().len() > NOTES_BYTES_MAX {
                return Err(Error::invalid(
                    name,
                    format!("is too large: at most {NOTES_BYTES_MAX} bytes are kept with a session"),
                ));
            }
        }
        Ok(if members.is_empty() { "".into() } else { Value::Object(members).to_string().into() })
    }
}

impl Control {
    /// Makes a session before its first call, and finds it an instance.
    ///
    /// # Errors
    /// When the function's calls have no sessions that the platform names, a member is wrong, or the id is taken.
    pub async fn create_session(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        input: &SessionInput,
    ) -> Result<SessionInfo, Error> {
        let (key, target, rules) = self.with_sessions(scope, function, qualifier)?;
        if !rules.affinity.names_sessions() {
            let why = "its server names its sessions itself";
            return Err(Error::NoSessions { function: key.name().clone(), affinity: rules.affinity.as_str(), why });
        }
        let id = match input.session_id.as_deref().filter(|id| !id.is_empty()) {
            None => SessionId::random(),
            Some(_) if rules.affinity == dunlin_model::Affinity::Cookie => {
                return Err(Error::invalid("sessionId", "cannot be given with GENERATED_COOKIE: the platform makes it"));
            }
            Some(id) => id.parse()?,
        };
        input.check(target.function().config.internet_access)?;
        let mut terms = SessionTerms::of(&rules);
        input.change(&mut terms)?;
        let notes = input.note("")?;
        let key = SessionKey { function: key, qualifier: Qualifier::from_wire(qualifier).to_string().into(), id };
        self.inner.sessions.create(&key, &target, terms, notes).await
    }

    /// One session, as it is now.
    ///
    /// # Errors
    /// When there is none.
    pub fn get_session(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        id: &str,
    ) -> Result<SessionInfo, Error> {
        let key = self.session_key(scope, function, qualifier, id)?;
        self.inner.sessions.get(&key).ok_or(Error::Session(SessionRefusal::NotFound { id: key.id }))
    }

    /// Changes how long a session lives and what becomes of it then.
    ///
    /// # Errors
    /// When a member is wrong, or the session is not there or has expired.
    pub fn update_session(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        id: &str,
        input: &SessionInput,
    ) -> Result<SessionInfo, Error> {
        let session = self.get_session(scope, function, qualifier, id)?;
        let (_, current) = self.function(scope, function)?;
        if input.session_id.as_deref().is_some_and(|given| given != id) {
            return Err(Error::invalid("sessionId", "cannot be changed"));
        }
        input.check(current.value.config.internet_access)?;
        let mut terms = session.terms;
        input.change(&mut terms)?;
        self.inner.sessions.update(&session.key, terms, input.note(&session.notes)?)?;
        self.get_session(scope, function, qualifier, id)
    }

    /// Ends a session; calls that say they belong to it begin another one. An instance that was its alone ends at once.
    ///
    /// # Errors
    /// When there is none.
    pub fn delete_session(&self, scope: &AccountScope, function: &str, qualifier: Option<&str>, id: &str) -> Result<(), Error> {
        let key = self.session_key(scope, function, qualifier, id)?;
        Ok(self.inner.sessions.end(&key)?)
    }

    /// Pauses a session, or lets it go on.
    ///
    /// # Errors
    /// When it is not there or has expired.
    pub fn pause_session(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
        id: &str,
        paused: bool,
    ) -> Result<SessionInfo, Error> {
        let key = self.session_key(scope, function, qualifier, id)?;
        self.inner.sessions.pause(&key, paused)?;
        self.get_session(scope, function, qualifier, id)
    }

    /// One page of a function's sessions by qualifier and id, those included that have expired lately.
    ///
    /// # Errors
    /// When the function does not exist, or the filter or the page makes no sense.
    pub fn list_sessions(
        &self,
        scope: &AccountScope,
        function: &str,
        filter: &SessionFilter,
        paging: &Paging,
    ) -> Result<(Vec<SessionInfo>, Option<String>), Error> {
        let (key, _) = self.function(scope, function)?;
        let status = match filter.status.as_deref() {
            None => None,
            Some("Active") => Some(SessionStatus::Active),
            Some("Paused") => Some(SessionStatus::Paused),
            Some("Expired") => Some(SessionStatus::Expired),
            Some(other) => {
                let shown: String = other.chars().flat_map(char::escape_debug).take(64).collect();
                return Err(Error::invalid("sessionStatus", format!("must be Active, Paused or Expired (actual: {shown})")));
            }
        };
        if let Some(qualifier) = &filter.qualifier {
            resolve(&self.inner.store.view(), &key, Some(qualifier))?;
        }
        let limit = paging.limit_in_force()?;
        let purpose = ["sessions", scope.account().as_str(), key.name().as_str()];
        let after = paging.after(&self.inner.seal, &purpose)?;
        let mark = |session: &SessionInfo| format!("{}\0{}", session.key.qualifier, session.key.id);
        let mut sessions = self.inner.sessions.list(&key);
        sessions.retain(|session| {
            filter.qualifier.as_deref().is_none_or(|qualifier| *qualifier == *session.key.qualifier)
                && filter.id.as_deref().is_none_or(|id| id == session.key.id.as_str())
                && status.is_none_or(|status| status == session.status)
                && after.as_deref().is_none_or(|after| *mark(session) > *after)
        });
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let next = sessions.last().filter(|_| more).map(|last| self.inner.seal.close(&purpose, mark(last).as_bytes()));
        Ok((sessions, next))
    }

    fn with_sessions(
        &self,
        scope: &AccountScope,
        function: &str,
        qualifier: Option<&str>,
    ) -> Result<(FunctionKey, Target, SessionRules), Error> {
        let (key, _) = self.function(scope, function)?;
        let target = resolve(&self.inner.store.view(), &key, qualifier)?;
        let none = || Error::NoSessions {
            function: key.name().clone(),
            affinity: "NONE",
            why: "set it to HEADER_FIELD or GENERATED_COOKIE first",
        };
        let rules = target.function().config.sessions().ok_or_else(none)?;
        Ok((key, target, rules))
    }

    fn session_key(&self, scope: &AccountScope, function: &str, qualifier: Option<&str>, id: &str) -> Result<SessionKey, Error> {
        let (function, _) = self.function(scope, function)?;
        resolve(&self.inner.store.view(), &function, qualifier)?;
        let rule = "is invalid: it must have 1 to 256 visible ASCII characters";
        let id = SessionId::foreign(id).ok_or_else(|| Error::invalid("sessionId", rule))?;
        Ok(SessionKey { function, qualifier: Qualifier::from_wire(qualifier).to_string().into(), id })
    }
}
