//! Calls in their sessions, and what the control plane does with sessions: the book and the engine under one lock.

use std::sync::Arc;

use dunlin_model::{FunctionKey, Qualifier, RequestId, SessionAsk, SessionId, VersionKey};
use jiff::Timestamp;
use tokio::time::Instant;

use super::book::{Book, Entered, Entry, Moment};
use super::{SessionInfo, SessionKey, SessionRefusal, SessionTerms};
use crate::api::InstanceSpec;
use crate::engine::SessionNo;
use crate::service::{Inner, Pool};

/// One call's part in a session. When the last clone of it is dropped the call is over.
pub struct SessionCall {
    pool: Arc<Inner>,
    session: SessionNo,
    spec: Arc<InstanceSpec>,
    qualifier: Box<str>,
    begun: Option<SessionId>,
    anchor: bool,
}

impl SessionCall {
    /// What serves the session: the version it began with.
    #[must_use]
    pub fn spec(&self) -> &Arc<InstanceSpec> {
        &self.spec
    }

    /// The name that the platform has given to a session that this call began.
    #[must_use]
    pub fn begun(&self) -> Option<&SessionId> {
        self.begun.as_ref()
    }

    /// The function's own server has named the session. Nothing happens to one that has a name.
    pub fn name(&self, id: SessionId) {
        self.pool.with_book(|book, _| book.name(self.session, &self.qualifier, id));
    }

    pub(crate) fn session(&self) -> SessionNo {
        self.session
    }
}

impl Drop for SessionCall {
    fn drop(&mut self) {
        self.pool.with_book(|book, at| book.leave(self.session, self.anchor, at.now));
    }
}

impl std::fmt::Debug for SessionCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionCall").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Pool {
    /// Lets a call into its session; nothing where the function has none.
    ///
    /// # Errors
    /// The session is not there, or takes no calls.
    pub fn enter(
        &self,
        spec: &Arc<InstanceSpec>,
        qualifier: &Qualifier,
        ask: Option<&SessionAsk>,
    ) -> Result<Option<Arc<SessionCall>>, SessionRefusal> {
        let Some(rules) = spec.sessions() else { return Ok(None) };
        let ask = ask.unwrap_or(&SessionAsk::Alone);
        let qualifier = qualifier.to_string();
        let enter = |book: &mut Book, at| book.enter(spec, rules, &qualifier, ask, SessionId::random, at);
        let Entered { session, spec, begun } = self.inner.with_book(enter)?;
        let (pool, anchor) = (Arc::clone(&self.inner), *ask == SessionAsk::Connection);
        Ok(Some(Arc::new(SessionCall { pool, session, spec, qualifier: qualifier.into(), begun, anchor })))
    }

    /// The version that a session began with, unless that is the head.
    #[must_use]
    pub fn session_version(&self, function: &FunctionKey, qualifier: &Qualifier, id: &SessionId) -> Option<VersionKey> {
        let key = SessionKey { function: function.clone(), qualifier: qualifier.to_string().into(), id: id.clone() };
        let version = self.inner.with_book(|book, _| book.get(&key).map(|(_, entry)| entry.spec.key().clone()));
        version.filter(|key| &*key.version != "LATEST")
    }

    /// Makes a session and finds it an instance, as far as there is one before `deadline`; otherwise its first call does.
    ///
    /// # Errors
    /// There is one of that id, or its id is not used again.
    pub async fn create_session(
        &self,
        key: &SessionKey,
        spec: &Arc<InstanceSpec>,
        terms: SessionTerms,
        notes: Box<str>,
        deadline: Instant,
    ) -> Result<SessionInfo, SessionRefusal> {
        let not_found = || SessionRefusal::NotFound { id: key.id.clone() };
        let rules = spec.sessions().ok_or_else(not_found)?;
        self.inner.with_book(|book, at| book.create(key, spec, rules, terms, notes, at))?;
        let qualifier = Qualifier::from_wire(Some(&key.qualifier));
        if let Some(call) = self.enter(spec, &qualifier, Some(&SessionAsk::In(key.id.clone())))?
            && let Err(error) = self.lease_in(spec, Some(&call), &RequestId::random(), deadline).await
        {
            tracing::info!(function = %key.function, %error, "a session was made without an instance");
        }
        self.session(key).ok_or_else(not_found)
    }

    /// One session.
    #[must_use]
    pub fn session(&self, key: &SessionKey) -> Option<SessionInfo> {
        self.inner.with_sessions(|book, describe| book.get(key).and_then(|(session, entry)| describe(session, entry)))
    }

    /// The function's sessions, by qualifier and id.
    #[must_use]
    pub fn sessions(&self, function: &FunctionKey) -> Vec<SessionInfo> {
        self.inner
            .with_sessions(|book, describe| book.of(function).filter_map(|(session, entry)| describe(session, entry)).collect())
    }

    /// Changes the terms of a session, and what is kept with it.
    ///
    /// # Errors
    /// It is not there or has expired.
    pub fn update_session(
        &self,
        key: &SessionKey,
        change: impl FnOnce(&mut SessionTerms, &mut Box<str>),
    ) -> Result<(), SessionRefusal> {
        self.inner.with_book(|book, at| book.update(key, change, at))
    }

    /// Pauses a session, or lets it go on.
    ///
    /// # Errors
    /// It is not there or has expired.
    pub fn pause_session(&self, key: &SessionKey, paused: bool) -> Result<(), SessionRefusal> {
        self.inner.with_book(|book, at| book.set_paused(key, paused, at))
    }

    /// Ends a session. With `at_once`, an instance that is its alone ends with the calls in it.
    ///
    /// # Errors
    /// It is not there.
    pub fn end_session(&self, key: &SessionKey, at_once: bool) -> Result<(), SessionRefusal> {
        self.inner.with_book(|book, _| book.end(key, at_once))
    }

    /// The function is gone, and its sessions with it.
    pub fn forget_sessions(&self, function: &FunctionKey) {
        self.inner.with_book(|book, _| book.forget(function));
    }
}

impl Inner {
    /// Lets `change` work on the book and tells the engine what follows.
    fn with_book<R>(self: &Arc<Self>, change: impl FnOnce(&mut Book, Moment) -> R) -> R {
        let mut table = self.table();
        let at = Moment { now: Instant::now(), wall: Timestamp::now() };
        let result = change(&mut table.book, at);
        self.follow(table, at.now);
        result
    }

    /// Shows `look` the book, with a way to describe its entries.
    fn with_sessions<R>(&self, look: impl FnOnce(&Book, &dyn Fn(SessionNo, &Entry) -> Option<SessionInfo>) -> R) -> R {
        let table = self.table();
        let describe = |session: SessionNo, entry: &Entry| {
            let instance = table.engine.cell_of(session).and_then(|cell| Some(table.slots.get(&cell)?.id.clone()));
            Some(SessionInfo {
                key: entry.key.clone()?,
                affinity: entry.affinity,
                status: entry.status,
                terms: entry.terms.clone(),
                created: entry.created,
                modified: entry.modified,
                instance,
                notes: entry.notes.clone(),
            })
        };
        look(&table.book, &describe)
    }
}
