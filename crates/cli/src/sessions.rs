//! `dunlin session`: calls that meet one instance.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::{Format, OneSession, SessionCommand, SessionTerms};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::{Output, text};

pub(crate) fn run(client: &Client, output: &Output, command: &SessionCommand) -> Result<ExitCode, Failure> {
    match command {
        SessionCommand::Ls { name, qualifier, status } => {
            let path = format!("/functions/{}/sessions", segment(name));
            let call = |token| {
                Call::new("ListSessions", "GET", path.clone())
                    .query("limit", Some(100))
                    .query("nextToken", token)
                    .query("qualifier", qualifier.as_deref())
                    .query("sessionStatus", status.as_deref())
            };
            let sessions = client.list(&format!("cannot list the sessions of '{name}'"), "sessions", usize::MAX, call)?;
            if sessions.is_empty() && output.format == Format::Table {
                output.note(&format!("'{name}' has no such sessions; calls make them where its sessionAffinity is not NONE"));
                return Ok(ExitCode::SUCCESS);
            }
            output.list(
                &sessions,
                "sessionId",
                &[
                    ("SESSION", &|session| text(&session["sessionId"])),
                    ("STATUS", &|session| text(&session["sessionStatus"])),
                    ("QUALIFIER", &|session| text(&session["qualifier"])),
                    ("INSTANCE", &|session| session["containerId"].as_str().unwrap_or("-").to_owned()),
                    ("TTL", &|session| format!("{} s", text(&session["sessionTTLInSeconds"]))),
                    ("IDLE", &|session| format!("{} s", text(&session["sessionIdleTimeoutInSeconds"]))),
                    ("CREATED", &|session| text(&session["createdTime"])),
                ],
            );
        }
        SessionCommand::Get(of) => {
            let call = Call::new("GetSession", "GET", path(of, "")).query("qualifier", Some(&of.qualifier));
            output.json(&client.json(&format!("cannot show session '{}' of '{}'", of.session, of.name), call)?);
        }
        SessionCommand::Create { name, session, qualifier, terms } => {
            let mut body = members(terms);
            if let Some(session) = session {
                body.insert("sessionId".to_owned(), session.as_str().into());
            }
            let call = Call::new("CreateSession", "POST", format!("/functions/{}/sessions", segment(name)))
                .query("qualifier", Some(qualifier))
                .json(&json!(body));
            show(output, &client.json(&format!("cannot create a session of '{name}'"), call)?);
        }
        SessionCommand::Set { of, terms } => {
            let body = members(terms);
            let call = Call::new("UpdateSession", "PUT", path(of, "")).query("qualifier", Some(&of.qualifier)).json(&json!(body));
            show(output, &client.json(&format!("cannot change session '{}' of '{}'", of.session, of.name), call)?);
        }
        SessionCommand::Rm { of, yes } => {
            let what = format!("cannot remove session '{}' of '{}'", of.session, of.name);
            let question = format!("End session '{}' of '{}'? An instance of its own ends with it. [y/N] ", of.session, of.name);
            if !yes && !confirmed(&what, &question)? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            let call = Call::new("DeleteSession", "DELETE", path(of, "")).query("qualifier", Some(&of.qualifier));
            client.send(&what, call)?;
            output.note(&format!("ended session {} of {}", of.session, of.name));
        }
        SessionCommand::Pause(of) => {
            let call = Call::new("PauseSession", "PUT", path(of, "/pause")).query("qualifier", Some(&of.qualifier));
            show(output, &client.json(&format!("cannot pause session '{}' of '{}'", of.session, of.name), call)?);
        }
        SessionCommand::Resume(of) => {
            let call = Call::new("ResumeSession", "PUT", path(of, "/resume")).query("qualifier", Some(&of.qualifier));
            show(output, &client.json(&format!("cannot resume session '{}' of '{}'", of.session, of.name), call)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(of: &OneSession, then: &str) -> String {
    format!("/functions/{}/sessions/{}{then}", segment(&of.name), segment(&of.session))
}

fn members(terms: &SessionTerms) -> Map<String, Value> {
    let said = [
        ("sessionTTLInSeconds", terms.ttl.map(Value::from)),
        ("sessionIdleTimeoutInSeconds", terms.idle.map(Value::from)),
        ("disableSessionIdReuse", terms.single_use.map(Value::from)),
        ("enableAutoPause", terms.auto_pause.map(Value::from)),
        ("enableAutoResume", terms.auto_resume.map(Value::from)),
    ];
    said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn show(output: &Output, session: &Value) {
    match output.format {
        Format::Json => output.json(session),
        Format::Name => output.line(&text(&session["sessionId"])),
        Format::Table => {
            output.note(&format!("session {} is {}", text(&session["sessionId"]), text(&session["sessionStatus"])));
            output.line(&text(&session["sessionId"]));
        }
    }
}
