//! Claims about the book, in a time of their own.

use dunlin_model::{AccountId, Interpreters, Revision, SessionAsk, SessionId, VersionKey};
use jiff::Timestamp;
use tokio::time::Instant;

use super::book::{Entered, Moment};
use super::*;
use crate::api::InstanceSpec;
use crate::engine::{Event, SessionNo};
use crate::testing::function;

const MINUTE: Duration = Duration::from_secs(60);

fn spec(revision: u64, affinity: &str) -> std::sync::Arc<InstanceSpec> {
    let account: AccountId = "1234567890123456".parse().expect("16 digits");
    let key = FunctionKey::from_stored(account, "f".parse().expect("a name"));
    let json = format!(r#"{{"functionName":"f","runtime":"custom","handler":"h",{affinity}}}"#);
    let key = VersionKey { function: key, version: "LATEST".into(), revision: Revision(revision) };
    std::sync::Arc::new(
        InstanceSpec::new(key, std::sync::Arc::new(function(&json)), &Interpreters::usual()).expect("it is served"),
    )
}

/// Ten minutes in all, one without a call.
fn by_header(revision: u64) -> std::sync::Arc<InstanceSpec> {
    spec(
        revision,
        r#""sessionAffinity":"HEADER_FIELD","sessionAffinityConfig":"{\"affinityHeaderFieldName\":\"my-id\",\"sessionTTLInSeconds\":600,\"sessionIdleTimeoutInSeconds\":60}""#,
    )
}

fn streamable() -> std::sync::Arc<InstanceSpec> {
    spec(1, r#""sessionAffinity":"MCP_STREAMABLE""#)
}

struct Desk {
    book: Book,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        Self { book: Book::default(), now: Instant::now() }
    }

    fn at(&self) -> Moment {
        Moment { now: self.now, wall: Timestamp::UNIX_EPOCH }
    }

    fn enter(&mut self, spec: &std::sync::Arc<InstanceSpec>, ask: &SessionAsk) -> Result<Entered, SessionRefusal> {
        let (rules, at) = (spec.sessions().expect("it has sessions").clone(), self.at());
        let entered = self.book.enter(spec, &rules, "LATEST", ask, || "fresh".parse().expect("an id"), at)?;
        // An instance is at hand.
        self.book.bound(entered.session);
        Ok(entered)
    }

    /// One call, from its beginning to its end.
    fn call(&mut self, id: &str) -> Result<SessionNo, SessionRefusal> {
        let session = self.enter(&by_header(1), &named(id))?.session;
        self.book.leave(session, false, self.now);
        Ok(session)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.book.next_tick().is_some_and(|at| at <= self.now) {
            self.book.tick(self.now);
        }
        self.book.check(self.now);
    }

    fn status(&self, id: &str) -> Option<SessionStatus> {
        self.book.get(&key(id)).map(|(_, entry)| entry.status)
    }

    /// The sessions that the engine was told are over.
    fn over(&mut self) -> Vec<SessionNo> {
        let out = std::mem::take(&mut self.book.out);
        out.into_iter()
            .filter_map(|event| if let Event::SessionOver { session, .. } = event { Some(session) } else { None })
            .collect()
    }
}

fn named(id: &str) -> SessionAsk {
    SessionAsk::In(id.parse().expect("an id"))
}

fn key(id: &str) -> SessionKey {
    let function = by_header(1).key().function.clone();
    SessionKey { function, qualifier: "LATEST".into(), id: SessionId::foreign(id).expect("an id") }
}

#[test]
fn a_session_ends_when_it_had_no_call_for_its_time_and_its_id_begins_another() {
    let mut desk = Desk::new();
    let first = desk.call("a").unwrap();
    desk.pass(MINUTE / 2);
    assert_eq!(desk.call("a").unwrap(), first, "a call has it begin anew");
    desk.pass(MINUTE / 2 + MINUTE / 4);
    assert_eq!(desk.status("a"), Some(SessionStatus::Active));
    desk.pass(MINUTE / 2);
    assert_eq!((desk.status("a"), desk.over()), (Some(SessionStatus::Expired), vec![first]));
    let second = desk.call("a").unwrap();
    assert_ne!(second, first);
    assert_eq!((desk.status("a"), desk.over()), (Some(SessionStatus::Active), vec![]), "it is over once");
}

#[test]
fn no_session_idles_during_a_call_and_none_outlives_its_time() {
    let mut desk = Desk::new();
    let session = desk.enter(&by_header(1), &named("a")).unwrap().session;
    desk.pass(5 * MINUTE);
    assert_eq!(desk.status("a"), Some(SessionStatus::Active));
    desk.pass(5 * MINUTE);
    assert_eq!((desk.status("a"), desk.over()), (Some(SessionStatus::Expired), vec![session]));
    desk.book.leave(session, false, desk.now);
    desk.book.check(desk.now);
    desk.pass(6 * 60 * MINUTE);
    assert_eq!((desk.status("a"), desk.book.len()), (None, 0), "it is remembered for a while");
}

#[test]
fn an_id_that_is_not_used_again_is_refused_once_its_session_has_expired() {
    let mut desk = Desk::new();
    desk.call("a").unwrap();
    let at = desk.at();
    desk.book.update(&key("a"), |terms, _| terms.disable_id_reuse = true, at).unwrap();
    desk.pass(2 * MINUTE);
    let id = || "a".parse().unwrap();
    assert_eq!(desk.call("a"), Err(SessionRefusal::Expired { id: id() }));
    assert_eq!(desk.book.set_paused(&key("a"), true, at), Err(SessionRefusal::Expired { id: id() }));
    desk.book.end(&key("a"), true).unwrap();
    assert!(desk.call("a").is_ok(), "but for one that was deleted");
}

#[test]
fn a_paused_session_refuses_calls_until_it_is_resumed_or_resumes_itself() {
    let mut desk = Desk::new();
    let session = desk.call("a").unwrap();
    let at = desk.at();
    desk.book.set_paused(&key("a"), true, at).unwrap();
    desk.pass(2 * MINUTE);
    assert_eq!(desk.call("a"), Err(SessionRefusal::Paused { id: "a".parse().unwrap() }));
    assert_eq!(desk.status("a"), Some(SessionStatus::Paused), "it does not end for want of calls");
    let at = desk.at();
    desk.book.set_paused(&key("a"), false, at).unwrap();
    assert_eq!(desk.call("a"), Ok(session));
    desk.book.update(&key("a"), |terms, _| (terms.auto_pause, terms.auto_resume) = (true, true), at).unwrap();
    desk.pass(2 * MINUTE);
    assert_eq!(desk.status("a"), Some(SessionStatus::Paused), "nor where it is to be paused instead");
    assert_eq!(desk.call("a"), Ok(session));
    assert_eq!(desk.status("a"), Some(SessionStatus::Active));
    desk.pass(10 * MINUTE);
    assert_eq!((desk.status("a"), desk.over()), (Some(SessionStatus::Expired), vec![session]), "but when its time is up");
}

#[test]
fn what_a_call_began_and_no_instance_served_leaves_nothing() {
    let mut desk = Desk::new();
    let spec = by_header(1);
    let (rules, at) = (spec.sessions().unwrap().clone(), desk.at());
    let entered = desk.book.enter(&spec, &rules, "LATEST", &named("a"), SessionId::random, at).unwrap();
    desk.book.leave(entered.session, false, desk.now);
    assert_eq!((desk.book.len(), desk.over()), (0, vec![entered.session]));
    // What its owner made stays.
    desk.book.create(&key("a"), &spec, &rules, SessionTerms::of(&rules), "".into(), at).unwrap();
    let again = desk.book.create(&key("a"), &spec, &rules, SessionTerms::of(&rules), "".into(), at);
    assert_eq!(again, Err(SessionRefusal::Exists { id: "a".parse().unwrap() }));
    let entered = desk.book.enter(&spec, &rules, "LATEST", &named("a"), SessionId::random, at).unwrap();
    desk.book.leave(entered.session, false, desk.now);
    assert_eq!(desk.status("a"), Some(SessionStatus::Active));
}

#[test]
fn a_session_moves_to_the_newer_revision_and_keeps_its_age() {
    let mut desk = Desk::new();
    let old = desk.enter(&by_header(1), &named("a")).unwrap().session;
    desk.pass(5 * MINUTE);
    let new = desk.enter(&by_header(2), &named("a")).unwrap();
    assert_eq!((new.spec.key().revision, desk.over()), (Revision(2), vec![old]));
    desk.book.leave(old, false, desk.now);
    desk.book.check(desk.now);
    assert_eq!(desk.book.get(&key("a")).map(|(session, _)| session), Some(new.session));
    desk.pass(5 * MINUTE);
    assert_eq!(desk.status("a"), Some(SessionStatus::Expired), "ten minutes after it began");
}

#[test]
fn a_session_that_its_server_names_begins_without_a_name() {
    let mut desk = Desk::new();
    let spec = streamable();
    let unknown = desk.enter(&spec, &named("a")).map(|entered| entered.session);
    assert_eq!(unknown, Err(SessionRefusal::NotFound { id: "a".parse().unwrap() }));
    let first = desk.enter(&spec, &SessionAsk::Alone).unwrap().session;
    desk.book.name(first, "LATEST", "a".parse().unwrap());
    desk.book.leave(first, false, desk.now);
    assert_eq!(desk.enter(&spec, &named("a")).unwrap().session, first);
    // One that was not named was one call's.
    let second = desk.enter(&spec, &SessionAsk::Alone).unwrap().session;
    desk.book.leave(second, false, desk.now);
    assert_eq!(desk.over(), [second]);
    // And whoever gives a name anew has it.
    let third = desk.enter(&spec, &SessionAsk::Alone).unwrap().session;
    desk.book.name(third, "LATEST", "a".parse().unwrap());
    assert_eq!(desk.over(), [first]);
    desk.book.check(desk.now);
}

#[test]
fn a_session_that_is_a_connection_ends_with_it_and_stays_where_that_is() {
    let mut desk = Desk::new();
    let old = spec(1, r#""sessionAffinity":"MCP_SSE""#);
    let connection = desk.enter(&old, &SessionAsk::Connection).unwrap().session;
    desk.book.name(connection, "LATEST", "a".parse().unwrap());
    let message = desk.enter(&spec(2, r#""sessionAffinity":"MCP_SSE""#), &named("a")).unwrap();
    assert_eq!((message.session, message.spec.key().revision), (connection, Revision(1)));
    desk.book.leave(connection, true, desk.now);
    assert_eq!((desk.status("a"), desk.over()), (None, vec![connection]));
    desk.book.leave(message.session, false, desk.now);
    desk.book.check(desk.now);
}

#[test]
fn a_cookie_that_means_nothing_any_more_begins_a_session_of_another_name() {
    let mut desk = Desk::new();
    let entered = desk.enter(&spec(1, r#""sessionAffinity":"GENERATED_COOKIE""#), &named("old")).unwrap();
    assert_eq!(entered.begun.map(|id| id.to_string()).as_deref(), Some("fresh"));
    assert_eq!((desk.status("old"), desk.status("fresh")), (None, Some(SessionStatus::Active)));
}

#[test]
fn a_function_that_is_gone_has_no_sessions() {
    let mut desk = Desk::new();
    let sessions = [desk.call("a").unwrap(), desk.call("b").unwrap()];
    desk.book.forget(&key("a").function);
    assert_eq!((desk.book.len(), desk.over().as_slice()), (0, &sessions[..]));
}
