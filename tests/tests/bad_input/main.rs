//! What a careless or hostile caller sends, on the real platform: the contract's error naming the field, nothing half-created,
//! nothing left on disk, and a server that goes on.
//!
//! After every check the platform still answers, and it has neither panicked nor found fault with itself.

mod answers;
mod framing;
mod layers;
mod lifetimes;
mod members;
mod packages;
mod signatures;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, Response};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

/// Asserts the dialect's shape: status, code, both spellings, request id; returns the message.
fn refused(reply: &Response, status: u16, code: &str) -> Result<String> {
    let body = shaped(reply)?;
    ensure!(reply.status == status && body["Code"] == code, "expected {status} {code}, got {} {body}", reply.status);
    Ok(body["Message"].as_str().unwrap_or_default().to_owned())
}

/// Asserts a refusal of the dialect's shape, of class 4xx, whatever its code; returns the body.
fn shaped(reply: &Response) -> Result<Value> {
    let body = reply.json().with_context(|| format!("status {}", reply.status))?;
    ensure!((400..500).contains(&reply.status), "expected a refusal, got {} {body}", reply.status);
    ensure!(
        body["Code"].is_string() && body["ErrorCode"] == body["Code"] && body["ErrorMessage"] == body["Message"],
        "both spellings: {body}"
    );
    let id = reply.header("x-fc-request-id").context("every answer has a request id")?;
    ensure!(body["RequestId"] == id, "one request id: {body} and {id}");
    Ok(body)
}

fn create(platform: &Platform, body: &[u8]) -> Result<Response> {
    let kind = [("content-type", "application/json; charset=utf-8")];
    platform.api.send("POST", "/2023-03-30/functions", "CreateFunction", &kind, body)
}

fn publish(platform: &Platform, layer: &str, body: &Value) -> Result<Response> {
    platform.api.json("POST", &format!("/layers/{layer}/versions"), "CreateLayerVersion", body)
}

/// Asserts that there is no layer of this name.
fn no_layer(platform: &Platform, name: &str) -> Result<()> {
    let reply = platform.api.json("GET", &format!("/layers/{name}/versions"), "ListLayerVersions", &Value::Null)?;
    refused(&reply, 404, "LayerNotFound").map(drop)
}

/// Asserts that there is no function of this name.
fn absent(platform: &Platform, name: &str) -> Result<()> {
    let reply = platform.api.json("GET", &format!("/functions/{name}"), "GetFunction", &Value::Null)?;
    refused(&reply, 404, "FunctionNotFound").map(drop)
}

/// The host of the function URL of `echo`.
fn function_host(platform: &Platform) -> Result<String> {
    let reply = platform.api.json("GET", "/functions/echo/triggers/web", "GetTrigger", &Value::Null)?;
    let url = reply.json()?["httpTrigger"]["urlInternet"].as_str().context("a URL")?.to_owned();
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

type Check = fn(&Platform) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("e01_names_are_one_of_a_kind", members::names_are_one_of_a_kind),
    ("e01_e02_e23_e25_wrong_members_are_named", members::wrong_members_are_named),
    ("e02_numbers_are_whole_and_neither_wrap_nor_clamp", members::numbers_are_whole_and_neither_wrap_nor_clamp),
    ("e03_e04_bodies_that_are_not_the_json_they_claim_to_be", members::bodies_that_are_not_the_json_they_claim_to_be),
    ("e33_strings_come_back_as_they_were_sent", members::strings_come_back_as_they_were_sent),
    ("e05_payloads_are_bounded_at_the_limit_and_not_before", framing::payloads_are_bounded_at_the_limit_and_not_before),
    ("e06_paths_of_function_urls_are_passed_as_sent", framing::paths_of_function_urls_are_passed_as_sent),
    ("e06_e07_paths_and_methods_of_the_api_mean_one_thing", framing::paths_and_methods_of_the_api_mean_one_thing),
    ("e08_e09_requests_that_frame_themselves_twice_get_one_answer", framing::requests_that_frame_themselves_twice_get_one_answer),
    ("d30_half_open_clients_hinder_nobody_and_are_closed", framing::half_open_clients_hinder_nobody_and_are_closed),
    ("e11_signatures_are_checked_strictly", signatures::signatures_are_checked_strictly),
    ("e12_dates_are_near", signatures::dates_are_near),
    ("e13_nonces_are_used_once_even_across_a_restart", signatures::nonces_are_used_once_even_across_a_restart),
    ("e17_pages_are_asked_for_in_bounds_and_with_our_tokens", lifetimes::pages_are_asked_for_in_bounds_and_with_our_tokens),
    ("e18_a_hundred_racing_creates_make_one_function", lifetimes::a_hundred_racing_creates_make_one_function),
    ("e18_racing_updates_lose_nothing", lifetimes::racing_updates_lose_nothing),
    ("e28_a_function_made_anew_runs_new_code", lifetimes::a_function_made_anew_runs_new_code),
    ("e01_e23_e31_wrong_layers_are_named", layers::wrong_layers_are_named),
    ("e16_e31_layers_of_functions_are_named", layers::layers_of_functions_are_named),
    ("e20_e22_hostile_packages_are_refused_whole", packages::hostile_packages_are_refused_whole),
    ("e21_bombs_are_refused_whole", packages::bombs_are_refused_whole),
    ("c56_hostile_answers_cannot_forge_the_platforms", answers::hostile_answers_cannot_forge_the_platforms),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        let trials = CHECKS.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let platform = Arc::new(Platform::fresh().expect("the platform starts"));
    platform
        .api
        .create(
            "echo",
            "python3.10",
            &[("index.py", "def handler(event, context):\n    return event\n")],
            json!({"timeout": 20, "memorySize": 1024}),
        )
        .expect("the function is created");
    platform.api.expose("echo").expect("the trigger is created");
    let trials = CHECKS
        .iter()
        .map(|(name, check)| {
            let platform = Arc::clone(&platform);
            let run = move || {
                check(&platform)?;
                let reply = platform.api.invoke("echo", b"alive")?;
                ensure!(reply.text() == "alive", "the platform went on: {}", reply.text());
                let printed = platform.printed();
                let fault = printed.lines().find(|line| line.contains("panicked") || line.contains(" ERROR "));
                ensure!(fault.is_none(), "the platform found fault with itself: {fault:?}");
                Ok(())
            };
            Trial::test(*name, move || run().map_err(|error: anyhow::Error| format!("{error:#}").into()))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        eprintln!("--- the platform printed:\n{}", platform.printed());
    }
    drop(platform);
    conclusion.exit_code()
}
