//! The front door of the metrics.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use dunlin_model::{AccountScope, Origin, Outcome, Record, RequestId};
use dunlin_telemetry::{InstanceState, Metrics};
use jiff::Timestamp;

fn record(function: &str, outcome: Outcome, cold: bool) -> Record {
    Record {
        request_id: RequestId::random(),
        account: "0000000000000001".parse().unwrap(),
        function: function.parse().unwrap(),
        version: "LATEST".into(),
        qualifier: "LATEST".into(),
        instance: None,
        origin: Origin::Http,
        trigger: None,
        started: Timestamp::UNIX_EPOCH,
        cold,
        queue_us: 10,
        bind_us: 20,
        load_us: 30,
        init_us: 40,
        handler_us: 1_500_000,
        billed_ms: 1501,
        memory_mb: 128,
        memory_peak_bytes: 0,
        cpu_millis: 0,
        cpu_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        outcome,
        error_type: None,
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
}

#[test]
fn what_a_record_says_is_counted() {
    let metrics = Metrics::new();
    metrics.call(&record("f", Outcome::Succeeded, true));
    metrics.call(&record("f", Outcome::TimedOut, false));
    metrics.set_instances(InstanceState::Idle, 3);
    metrics.set_queue_length(4);
    metrics.set_store(5, 6);
    metrics.set_store(7, 8);
    metrics.set_log_lines_dropped(9);
    let text = metrics.render();
    has(&text, r#"dunlin_calls_total{outcome="succeeded",origin="http"} 1"#);
    has(&text, r#"dunlin_calls_total{outcome="timed_out",origin="http"} 1"#);
    has(&text, r#"dunlin_function_calls_total{account="0000000000000001",function="f"} 2"#);
    has(&text, r#"dunlin_function_errors_total{account="0000000000000001",function="f"} 1"#);
    has(&text, "dunlin_cold_starts_total 1");
    has(&text, r#"dunlin_call_phase_seconds_count{phase="handler"} 2"#);
    has(&text, r#"dunlin_call_phase_seconds_count{phase="bind"} 1"#);
    has(&text, "dunlin_billed_seconds_total 3.002");
    has(&text, r#"dunlin_instances{state="idle"} 3"#);
    has(&text, "dunlin_queue_length 4");
    has(&text, "dunlin_store_commits_total 7");
    has(&text, "dunlin_store_writes_total 8");
    has(&text, "dunlin_log_lines_dropped_total 9");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_function_that_is_gone_leaves_no_series_and_their_number_is_capped() {
    let metrics = Metrics::new();
    for number in 0..=dunlin_telemetry::metrics::FUNCTIONS_MAX {
        metrics.call(&record(&format!("f{number}"), Outcome::Succeeded, false));
    }
    let text = metrics.render();
    has(&text, r#"dunlin_function_calls_total{account="_other",function="_other"} 1"#);
    let key = AccountScope::verified("0000000000000001".parse().unwrap()).function("f7".parse().unwrap());
    metrics.forget_function(&key);
    assert!(!metrics.render().contains(r#"function="f7"}"#));
    metrics.call(&record("new", Outcome::Succeeded, false));
    has(&metrics.render(), r#"dunlin_function_calls_total{account="0000000000000001",function="new"} 1"#);
}
