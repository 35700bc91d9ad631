//! What is known of sessions, and what follows from the time and from calls.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::{Affinity, FunctionKey, SessionAsk, SessionId, SessionRules};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{SessionKey, SessionRefusal, SessionStatus, SessionTerms};
use crate::api::InstanceSpec;
use crate::engine::{Event, SessionNo};

/// How long a session that has expired is remembered: for lists, and so that its id is not used again.
const REMEMBERED: Duration = Duration::from_secs(6 * 3600);
/// Expired sessions that are remembered; of more the oldest is forgotten first.
const REMEMBERED_MAX: usize = 10_000;

/// One session.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Absent while nobody has named it, and once somebody else has its name.
    pub(crate) key: Option<SessionKey>,
    /// What its calls are for.
    pub(crate) spec: Arc<InstanceSpec>,
    pub(crate) affinity: &'static str,
    pub(crate) terms: SessionTerms,
    pub(crate) notes: Box<str>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) status: SessionStatus,
    began: Instant,
    /// Calls that wait or run.
    calls: usize,
    /// Since when it has none; when it expired, if it has.
    quiet_since: Instant,
    /// It has had an instance, or was made by its owner: it outlives the call that began it.
    stays: bool,
    /// It lives as long as one of its calls.
    anchored: bool,
    due: Option<Instant>,
}

/// What a call is let in with.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) session: SessionNo,
    /// What serves it: not always what its qualifier means now.
    pub(crate) spec: Arc<InstanceSpec>,
    /// The name that the platform gave, for the answer.
    pub(crate) begun: Option<SessionId>,
}

/// The moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: Timestamp,
}

/// All sessions. What the engine has to know is left in `out`.
#[derive(Debug, Default)]
pub(crate) struct Book {
    last: u64,
    entries: HashMap<SessionNo, Entry>,
    names: BTreeMap<SessionKey, SessionNo>,
    timers: BTreeSet<(Instant, SessionNo)>,
    expired: VecDeque<SessionNo>,
    pub(crate) out: Vec<Event>,
}

impl Book {
    /// When [`Book::tick`] is due.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Lets one call in. `fresh` makes a name that nobody has.
    pub(crate) fn enter(
        &mut self,
        spec: &Arc<InstanceSpec>,
        rules: &SessionRules,
        qualifier: &str,
        ask: &SessionAsk,
        fresh: impl FnOnce() -> SessionId,
        at: Moment,
    ) -> Result<Entered, SessionRefusal> {
        let key = |id: SessionId| SessionKey { function: spec.key().function.clone(), qualifier: qualifier.into(), id };
        let terms = SessionTerms::of(rules);
        let affinity = rules.affinity.as_str();
        let (SessionAsk::In(id) | SessionAsk::End(id)) = ask else {
            let begun = (*ask == SessionAsk::Begin).then(fresh);
            let session = self.add(begun.clone().map(key), spec, affinity, terms, at);
            let entry = self.entries.get_mut(&session).expect("it was just added");
            (entry.calls, entry.anchored) = (1, *ask == SessionAsk::Connection);
            self.settle(session);
            return Ok(Entered { session, spec: Arc::clone(spec), begun });
        };
        let named = key(id.clone());
        let found = self.names.get(&named).copied();
        let status = found.map(|session| self.entries[&session].status);
        match (found, status) {
            (Some(session), Some(SessionStatus::Active)) => return Ok(self.join(session, spec, at)),
            (Some(session), Some(SessionStatus::Paused)) => {
                if !self.entries[&session].terms.auto_resume {
                    return Err(SessionRefusal::Paused { id: id.clone() });
                }
                self.wake(session, at);
                return Ok(self.join(session, spec, at));
            }
            _ => {}
        }
        // There is none, or none any more.
        let begun = match &rules.affinity {
            Affinity::Cookie => Some(fresh()),
            Affinity::Header(_) => {
                if let Some(session) = found {
                    if self.entries[&session].terms.disable_id_reuse {
                        return Err(SessionRefusal::Expired { id: id.clone() });
                    }
                    self.remove(session, false);
                }
                None
            }
            Affinity::McpSse { .. } | Affinity::McpStreamable => return Err(SessionRefusal::NotFound { id: id.clone() }),
        };
        let named = begun.clone().map_or(named, key);
        let session = self.add(Some(named), spec, affinity, terms, at);
        self.entries.get_mut(&session).expect("it was just added").calls = 1;
        self.settle(session);
        Ok(Entered { session, spec: Arc::clone(spec), begun })
    }

    /// One more call of a session that is there.
    fn join(&mut self, session: SessionNo, spec: &Arc<InstanceSpec>, at: Moment) -> Entered {
        let entry = self.entries.get_mut(&session).expect("a name leads to an entry");
        let moves = entry.spec.key() != spec.key() && !entry.anchored;
        if !moves {
            // The same instances: whatever of the rest is newer counts.
            if entry.spec.key() == spec.key() {
                entry.spec = Arc::clone(spec);
            }
            entry.calls += 1;
            let spec = Arc::clone(&entry.spec);
            self.settle(session);
            return Entered { session, spec, begun: None };
        }
        // Its version has a newer revision: what runs there ends there, and the session goes on with the newer one.
        let key = entry.key.take().expect("it was found by its name");
        let (affinity, terms, notes) = (entry.affinity, entry.terms.clone(), entry.notes.clone());
        let (created, modified, began) = (entry.created, entry.modified, entry.began);
        if entry.calls == 0 {
            self.remove(session, false);
        } else {
            self.out.push(Event::SessionOver { session, at_once: false });
            self.settle(session);
        }
        self.names.remove(&key);
        let next = self.add(Some(key), spec, affinity, terms, at);
        let entry = self.entries.get_mut(&next).expect("it was just added");
        (entry.notes, entry.created, entry.modified, entry.began) = (notes, created, modified, began);
        (entry.calls, entry.stays) = (1, true);
        self.settle(next);
        Entered { session: next, spec: Arc::clone(spec), begun: None }
    }

    fn add(
        &mut self,
        key: Option<SessionKey>,
        spec: &Arc<InstanceSpec>,
        affinity: &'static str,
        terms: SessionTerms,
        at: Moment,
    ) -> SessionNo {
        self.last += 1;
        let session = SessionNo(self.last);
        if let Some(key) = &key {
            self.names.insert(key.clone(), session);
        }
        let entry = Entry {
            key,
            spec: Arc::clone(spec),
            affinity,
            terms,
            notes: "".into(),
            created: at.wall,
            modified: at.wall,
            status: SessionStatus::Active,
            began: at.now,
            calls: 0,
            quiet_since: at.now,
            stays: false,
            anchored: false,
            due: None,
        };
        self.entries.insert(session, entry);
        session
    }

    /// The session has an instance.
    pub(crate) fn bound(&mut self, session: SessionNo) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.stays = true;
        }
    }

    /// A call is over. With the one that the session lived as long as (`anchor`), it is too.
    pub(crate) fn leave(&mut self, session: SessionNo, anchor: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        entry.calls -= 1;
        if entry.calls == 0 && entry.status != SessionStatus::Expired {
            entry.quiet_since = now;
        }
        let nameless = entry.key.is_none() || !entry.stays;
        if anchor || (entry.calls == 0 && nameless && entry.status != SessionStatus::Expired) {
            return self.remove(session, false);
        }
        self.settle(session);
    }

    /// The function's own server has named the session. Whoever had the name before has it no more.
    pub(crate) fn name(&mut self, session: SessionNo, qualifier: &str, id: SessionId) {
        let Some(entry) = self.entries.get(&session).filter(|entry| entry.key.is_none()) else { return };
        let key = SessionKey { function: entry.spec.key().function.clone(), qualifier: qualifier.into(), id };
        if let Some(before) = self.names.get(&key).copied() {
            self.remove(before, false);
        }
        self.names.insert(key.clone(), session);
        self.entries.get_mut(&session).expect("it was there a line ago").key = Some(key);
        self.settle(session);
    }

    /// A session of its owner's making. It has no instance before its first call.
    pub(crate) fn create(
        &mut self,
        key: &SessionKey,
        spec: &Arc<InstanceSpec>,
        rules: &SessionRules,
        terms: SessionTerms,
        notes: Box<str>,
        at: Moment,
    ) -> Result<(), SessionRefusal> {
        if let Some(session) = self.names.get(key).copied() {
            let entry = &self.entries[&session];
            let id = key.id.clone();
            match entry.status {
                SessionStatus::Active | SessionStatus::Paused => return Err(SessionRefusal::Exists { id }),
                SessionStatus::Expired if entry.terms.disable_id_reuse => return Err(SessionRefusal::Expired { id }),
                SessionStatus::Expired => self.remove(session, false),
            }
        }
        let session = self.add(Some(key.clone()), spec, rules.affinity.as_str(), terms, at);
        let entry = self.entries.get_mut(&session).expect("it was just added");
        (entry.notes, entry.stays) = (notes, true);
        self.settle(session);
        Ok(())
    }

    /// Changes what its owner says of a session that has not expired.
    pub(crate) fn update(
        &mut self,
        key: &SessionKey,
        change: impl FnOnce(&mut SessionTerms, &mut Box<str>),
        at: Moment,
    ) -> Result<(), SessionRefusal> {
        let session = self.living(key)?;
        let entry = self.entries.get_mut(&session).expect("a name leads to an entry");
        change(&mut entry.terms, &mut entry.notes);
        entry.modified = at.wall;
        self.settle(session);
        Ok(())
    }

    /// Pauses a session or lets it go on.
    pub(crate) fn set_paused(&mut self, key: &SessionKey, paused: bool, at: Moment) -> Result<(), SessionRefusal> {
        let session = self.living(key)?;
        if paused {
            self.doze(session);
        } else {
            self.wake(session, at);
        }
        self.entries.get_mut(&session).expect("a name leads to an entry").modified = at.wall;
        Ok(())
    }

    fn doze(&mut self, session: SessionNo) {
        let entry = self.entries.get_mut(&session).expect("a name leads to an entry");
        if entry.status == SessionStatus::Active {
            entry.status = SessionStatus::Paused;
            self.out.push(Event::SessionPaused { session, paused: true });
            self.settle(session);
        }
    }

    fn wake(&mut self, session: SessionNo, at: Moment) {
        let entry = self.entries.get_mut(&session).expect("a name leads to an entry");
        if entry.status == SessionStatus::Paused {
            (entry.status, entry.quiet_since) = (SessionStatus::Active, at.now);
            self.out.push(Event::SessionPaused { session, paused: false });
            self.settle(session);
        }
    }

    /// Forgets a session. With `at_once`, an instance that is its alone ends with the calls in it.
    pub(crate) fn end(&mut self, key: &SessionKey, at_once: bool) -> Result<(), SessionRefusal> {
        let found = self.names.get(key).copied();
        let session = found.ok_or_else(|| SessionRefusal::NotFound { id: key.id.clone() })?;
        self.remove(session, at_once);
        Ok(())
    }

    /// Forgets every session of a function.
    pub(crate) fn forget(&mut self, function: &FunctionKey) {
        let own = self.names.iter().filter(|(key, _)| key.function == *function);
        for session in own.map(|(_, session)| *session).collect::<Vec<_>>() {
            self.remove(session, false);
        }
    }

    /// A session by its name.
    pub(crate) fn get(&self, key: &SessionKey) -> Option<(SessionNo, &Entry)> {
        let session = self.names.get(key)?;
        Some((*session, &self.entries[session]))
    }

    /// The sessions of a function, by qualifier and id.
    pub(crate) fn of<'a>(&'a self, function: &'a FunctionKey) -> impl Iterator<Item = (SessionNo, &'a Entry)> {
        let own = self.names.iter().filter(move |(key, _)| key.function == *function);
        own.map(|(_, session)| (*session, &self.entries[session]))
    }

    fn living(&self, key: &SessionKey) -> Result<SessionNo, SessionRefusal> {
        let id = || key.id.clone();
        let session = self.names.get(key).copied().ok_or_else(|| SessionRefusal::NotFound { id: id() })?;
        match self.entries[&session].status {
            SessionStatus::Expired => Err(SessionRefusal::Expired { id: id() }),
            SessionStatus::Active | SessionStatus::Paused => Ok(session),
        }
    }

    fn remove(&mut self, session: SessionNo, at_once: bool) {
        let Some(entry) = self.entries.remove(&session) else { return };
        if let Some(due) = entry.due {
            self.timers.remove(&(due, session));
        }
        if let Some(key) = entry.key.filter(|key| self.names.get(key) == Some(&session)) {
            self.names.remove(&key);
        }
        if entry.status != SessionStatus::Expired {
            self.out.push(Event::SessionOver { session, at_once });
        }
    }

    /// Ends what is over, and forgets what was over for long.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((at, session)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, session));
            let entry = self.entries.get_mut(&session).expect("a timer goes with its session");
            entry.due = None;
            if entry.status == SessionStatus::Expired {
                self.remove(session, false);
            } else if now < entry.began + entry.terms.ttl && entry.terms.auto_pause {
                self.doze(session);
            } else {
                self.expire(session, now);
            }
        }
    }

    fn expire(&mut self, session: SessionNo, now: Instant) {
        let entry = self.entries.get_mut(&session).expect("it was just looked at");
        (entry.status, entry.quiet_since) = (SessionStatus::Expired, now);
        self.out.push(Event::SessionOver { session, at_once: false });
        self.settle(session);
        self.expired.push_back(session);
        while self.expired.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.expired.pop_front()
                && self.entries.get(&oldest).is_some_and(|entry| entry.status == SessionStatus::Expired)
            {
                self.remove(oldest, false);
            }
        }
    }

    /// Sets the timer of a session to when something becomes of it.
    fn settle(&mut self, session: SessionNo) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        let over = entry.began + entry.terms.ttl;
        let due = match entry.status {
            // It ends with its calls.
            SessionStatus::Active if entry.key.is_none() => None,
            SessionStatus::Active => {
                let idle = entry.terms.idle.filter(|_| entry.calls == 0).map(|idle| entry.quiet_since + idle);
                Some(idle.map_or(over, |idle| idle.min(over)))
            }
            SessionStatus::Paused => Some(over),
            SessionStatus::Expired => Some(entry.quiet_since + REMEMBERED),
        };
        if let Some(before) = std::mem::replace(&mut entry.due, due) {
            self.timers.remove(&(before, session));
        }
        if let Some(due) = due {
            self.timers.insert((due, session));
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self, now: Instant) {
        let timers: BTreeSet<_> = self.entries.iter().filter_map(|(session, entry)| Some((entry.due?, *session))).collect();
        assert_eq!(self.timers, timers);
        assert!(self.timers.first().is_none_or(|(at, _)| *at > now), "nothing outlives its time");
        let named: BTreeMap<_, _> =
            self.entries.iter().filter_map(|(session, entry)| Some((entry.key.clone()?, *session))).collect();
        assert_eq!(self.names, named, "a name leads to its session and back");
        let nameless = self.entries.values().filter(|entry| entry.key.is_none());
        assert!(nameless.into_iter().all(|entry| entry.calls > 0), "nobody is left behind without a name or a call");
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
