//! The desk's front door: every way a call can go leaves exactly one record, and the bill is their sum. Time is paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_invoke::{Config, Invoker, Limit, OutcomeSink, Refusal, Reply, Throttled};
use dunlin_model::{
    AccountId, AccountScope, ErrorType, FunctionError, FunctionKey, Invocation, LayerUse, LogType, Origin, Outcome, Qualifier,
    Record, RequestId,
};
use dunlin_pool::Pool;
use dunlin_pool::testing::{Act, Script, function, no_logs};
use dunlin_runtime::{Answer, Body, BoxError, CallError, Payload, StartError};
use dunlin_sandbox::testing::Fake;
use dunlin_sandbox::{Ended, Exit};
use dunlin_store::{Memory, Store};
use http_body_util::{BodyExt, Full, StreamBody};

#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<Record>>>);

impl OutcomeSink for Records {
    fn record(&self, record: Record) {
        self.0.lock().expect("no test panics here").push(record);
    }
}

impl Records {
    fn all(&self) -> Vec<Record> {
        self.0.lock().expect("no test panics here").clone()
    }

    fn only(&self) -> Record {
        let all = self.all();
        assert_eq!(all.len(), 1, "exactly one record: {all:?}");
        all[0].clone()
    }
}

struct Bench {
    invoker: Invoker,
    records: Records,
    script: Script,
    pool: Pool,
    key: FunctionKey,
    store: Arc<dyn Store>,
}

const PYTHON: &str = r#"{"functionName":"f","runtime":"python3.10","handler":"index.handler","timeout":3}"#;
const CUSTOM: &str = r#"{"functionName":"f","runtime":"custom","instanceConcurrency":2,"timeout":3}"#;

async fn bench(json: &str, script: Script) -> Bench {
    let account: AccountId = "1234567890123456".parse().expect("16 digits");
    let key = AccountScope::verified(account).function("f".parse().expect("a name"));
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    store.create_function(&key, &function(json), 10).await.expect("stored");
    let (cells, _) = Fake::new();
    let config = dunlin_pool::Config {
        memory_bytes_max: 64 << 30,
        available_bytes_min: 0,
        instances_per_account_max: 1,
        ..dunlin_pool::Config::default()
    };
    let pool = Pool::with_boot(config, Arc::new(cells), Arc::new(script.clone()), no_logs(), Arc::new(()));
    let records = Records::default();
    let config = Config { queue_wait_max: Duration::from_secs(60), payload_bytes_max: 100, wrapped_bytes_max: 200 };
    let invoker = Invoker::new(config, Arc::clone(&store), pool.clone(), Arc::new(records.clone()));
    Bench { invoker, records, script, pool, key, store }
}

impl Bench {
    fn invocation(&self) -> Invocation {
        Invocation {
            request_id: RequestId::random(),
            function: self.key.clone(),
            qualifier: Qualifier::Latest,
            target: None,
            origin: Origin::Api,
            trigger: None,
            log_type: LogType::None,
            session: None,
        }
    }

    async fn call(&self) -> Result<Reply, Refusal> {
        self.invoker.call(self.invocation(), Payload::Event(Bytes::from_static(b"event"))).await
    }

    async fn call_http(&self) -> http::Response<Body> {
        let body = Full::new(Bytes::new()).map_err(|never| -> BoxError { match never {} }).boxed_unsync();
        let reply = self.invoker.call(self.invocation(), Payload::Http(http::Request::new(body))).await.expect("a reply");
        match reply.result {
            Ok(Answer::Http(response)) => response,
            other => panic!("not a response: {other:?}"),
        }
    }
}

fn on_call(act: impl Fn() -> Act + Send + Sync + 'static) -> Script {
    let mut script = Script::default();
    script.on_call = Arc::new(move |_, _| act());
    script
}

fn on_load(problem: impl Fn() -> StartError + Send + Sync + 'static) -> Script {
    let mut script = Script::default();
    script.on_load = Arc::new(move |_, _| Err(problem()));
    script
}

fn ended(out_of_memory: bool) -> Ended {
    Ended { exit: Exit::Code(1), out_of_memory, cpu_us: 0 }
}

fn message(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.result.as_ref().expect_err("a function error").body).into_owned()
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_good_call_is_recorded_and_billed_by_the_handlers_time() {
    let bench =
        bench(PYTHON, on_call(|| Act::Answer(87 * MS + Duration::from_micros(20), Answer::Event(Bytes::from_static(b"ok")))))
            .await;
    let mut invocation = bench.invocation();
    invocation.log_type = LogType::Tail;
    let request = invocation.request_id.clone();
    let reply = bench.invoker.call(invocation, Payload::Event(Bytes::from_static(b"event"))).await.expect("a reply");
    assert!(matches!(reply.result, Ok(Answer::Event(ref result)) if result == "ok"));
    let record = bench.records.only();
    assert_eq!((record.outcome, record.cold, record.bytes_in, record.bytes_out), (Outcome::Succeeded, true, 5, 2));
    assert!((88..=89).contains(&record.billed_ms), "{record:?}");
    assert_eq!((record.cpu_us, record.memory_peak_bytes, record.cpu_millis), (1000, 9 << 20, 63));
    assert_eq!(record.instance, reply.instance);
    let tail = String::from_utf8(reply.log_tail.expect("asked for")).expect("text");
    assert!(
        tail.starts_with(&format!(
            "loading\nFC Invoke Start RequestId: {request}\nprinted\nFC Invoke End RequestId: {request}\n\nDuration: "
        )) && tail.ends_with("Memory Size: 128 MB, Max Memory Used: 9.00 MB\n"),
        "{tail}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_is_refused_while_a_layer_of_the_function_is_withdrawn() {
    let bench = bench(PYTHON, on_call(|| Act::Answer(MS, Answer::Event(Bytes::from_static(b"ok"))))).await;
    let owner = dunlin_store::contract::scope(7);
    let tools = dunlin_store::contract::layer_key(&owner, "tools");
    let version = dunlin_store::contract::layer_version(&tools, "one");
    bench.store.create_layer_version(&tools, &version, 10).await.expect("stored");
    let stored = bench.store.view().function(&bench.key).expect("there").clone();
    let mut function = stored.value.clone();
    let arn = format!("acs:fc:cn-hangzhou:{}:layers/tools/versions/1", owner.account());
    function.config.layers = Some(vec![LayerUse { arn: arn.clone(), digest: version.code.digest, size: 3 }]);
    bench.store.replace_function(&bench.key, &function, stored.revision).await.expect("replaced");
    for shared in [false, true, false] {
        bench.store.put_layer_acl(&tools, shared).await.expect("there");
        let answer = bench.call().await;
        match answer {
            Err(Refusal::LayerWithdrawn { arn: named }) => assert!(!shared && named == arn, "{named}"),
            other => assert!(shared && other.is_ok(), "{other:?}"),
        }
    }
    assert_eq!(bench.records.all().len(), 1, "a call that was not let in is not billed");
}

#[tokio::test(start_paused = true)]
async fn a_function_error_keeps_the_instance() {
    let script = on_call(|| {
        let error = FunctionError::worded(ErrorType::HandledInvocationError, None, "no");
        Act::Fail(MS, CallError::Function(error))
    });
    let bench = bench(PYTHON, script).await;
    for _ in 0..2 {
        let reply = bench.call().await.expect("a reply");
        assert_eq!(reply.outcome, Outcome::FunctionError);
    }
    assert_eq!(bench.script.loads(), 1);
    let records = bench.records.all();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.error_type.as_deref() == Some("HandledInvocationError")));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_billed_to_the_timeout_and_ends_the_instance() {
    let bench = bench(PYTHON, on_call(|| Act::Hang)).await;
    let reply = bench.call().await.expect("a reply");
    assert!(message(&reply).contains("Function timed out after 3 seconds"));
    let record = bench.records.only();
    assert_eq!((record.outcome, record.billed_ms), (Outcome::TimedOut, 3000));
    assert_eq!(record.error_type.as_deref(), Some("FunctionTimeoutError"));
    bench.call().await.expect("a reply");
    assert_eq!(bench.script.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn exit_out_of_memory_and_a_broken_wire_each_have_their_class() {
    type Case = (fn() -> CallError, Outcome, &'static str, &'static str);
    let cases: [Case; 4] = [
        (|| CallError::Exited(ended(false)), Outcome::Exited, "FunctionUnhandledError", "(duration: 6ms, maxMemoryUsage: 9MB)"),
        (|| CallError::Exited(ended(true)), Outcome::OutOfMemory, "FunctionOOMError", "out of memory"),
        (|| CallError::Protocol("x".to_owned()), Outcome::Exited, "FunctionUnhandledError", "protocol"),
        (|| CallError::TooLarge { limit: 9 }, Outcome::FunctionError, "FunctionUnhandledError", "larger than 9 bytes"),
    ];
    for (error, outcome, error_type, words) in cases {
        let bench = bench(PYTHON, on_call(move || Act::Fail(6 * MS, error()))).await;
        let reply = bench.call().await.expect("a reply");
        assert!(message(&reply).contains(words), "{}", message(&reply));
        assert_eq!(reply.result.expect_err("failed").error_type, ErrorType::UnhandledInvocationError);
        let record = bench.records.only();
        assert_eq!((record.outcome, record.error_type.as_deref()), (outcome, Some(error_type)));
        bench.call().await.expect("a reply");
        assert_eq!(bench.script.loads(), 2, "the instance served no further call");
    }
}

#[tokio::test(start_paused = true)]
async fn starts_that_fail_are_told_apart() {
    type Case = (&'static str, fn() -> StartError, Outcome, &'static str);
    let cases: [Case; 5] = [
        (CUSTOM, || StartError::FileNotFound, Outcome::InitFailed, "CAFileNotFound"),
        (CUSTOM, || StartError::FilePermission, Outcome::InitFailed, "CAFilePermission"),
        (CUSTOM, || StartError::Exited(ended(false)), Outcome::InitFailed, "CAExited"),
        (PYTHON, || StartError::Exited(ended(true)), Outcome::OutOfMemory, "UnhandledInvocationError"),
        (PYTHON, || StartError::TimedOut, Outcome::InitFailed, "InitializationError"),
    ];
    for (json, problem, outcome, error_type) in cases {
        let bench = bench(json, on_load(problem)).await;
        let answer = bench.call().await;
        assert_eq!(answer.is_err(), error_type.starts_with("CA"), "{answer:?}");
        let record = bench.records.only();
        assert_eq!((record.outcome, record.error_type.as_deref()), (outcome, Some(error_type)));
        assert!(record.instance.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn the_initializer_is_billed_with_the_call_that_caused_it() {
    let json = r#"{"functionName":"f","runtime":"python3.10","handler":"index.handler",
        "instanceLifecycleConfig":{"initializer":{"handler":"index.init","timeout":9}}}"#;
    let mut script = on_call(|| Act::Answer(5 * MS, Answer::Event(Bytes::new())));
    script.init_time = 20 * MS;
    let bench = bench(json, script).await;
    bench.call().await.expect("a reply");
    bench.call().await.expect("a reply");
    let billed: Vec<_> = bench.records.all().iter().map(|record| record.billed_ms).collect();
    assert!((25..=27).contains(&billed[0]) && (5..=6).contains(&billed[1]), "{billed:?}");
    let [first, second] = &bench.records.all()[..] else { panic!("two records") };
    assert!(first.cold && !second.cold && second.init_us == 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_throttled_and_free() {
    let json = r#"{"functionName":"f","runtime":"python3.10","handler":"index.handler","timeout":300}"#;
    let bench = bench(json, on_call(|| Act::Hang)).await;
    let busy = bench.call();
    let late = async {
        tokio::time::sleep(MS).await;
        bench.call().await
    };
    tokio::select! {
        _ = busy => panic!("the first call hangs"),
        answer = late => assert!(matches!(answer, Err(Refusal::Throttled(Throttled::Waited { limit: Some(Limit::Account(1)), .. }))), "{answer:?}"),
    }
    let records = bench.records.all();
    assert_eq!((records[0].outcome, records[0].billed_ms, records[0].instance.is_none()), (Outcome::Throttled, 0, true));
    assert!(records[0].queue_us >= 60_000_000);
    assert_eq!(records.len(), 2, "and the one whose caller went away");
    assert_eq!(records[1].outcome, Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_a_record_and_no_instance_in_an_unknown_state() {
    let bench = bench(PYTHON, on_call(|| Act::Hang)).await;
    let gone = tokio::time::timeout(Duration::from_secs(1), bench.call()).await;
    assert!(gone.is_err());
    let record = bench.records.only();
    assert_eq!(record.outcome, Outcome::Cancelled);
    assert!((990..=1000).contains(&record.billed_ms), "{record:?}");
    assert_eq!(bench.invoker.in_flight(), 0);
    bench.pool.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_names_nothing_or_is_too_large_is_no_call() {
    let bench = bench(PYTHON, Script::default()).await;
    let mut unknown = bench.invocation();
    unknown.function = AccountScope::of_owner(&bench.key).function("g".parse().expect("a name"));
    let event = || Payload::Event(Bytes::new());
    assert!(matches!(bench.invoker.call(unknown, event()).await, Err(Refusal::FunctionNotFound)));
    for (qualifier, is_version) in [("7", true), ("prod", false)] {
        let mut invocation = bench.invocation();
        invocation.qualifier = Qualifier::from_wire(Some(qualifier));
        match bench.invoker.call(invocation, event()).await {
            Err(Refusal::VersionNotFound { .. }) => assert!(is_version),
            Err(Refusal::AliasNotFound) => assert!(!is_version),
            other => panic!("{other:?}"),
        }
    }
    let large = Payload::Event(Bytes::from_static(&[0; 101]));
    assert!(matches!(bench.invoker.call(bench.invocation(), large).await, Err(Refusal::PayloadTooLarge { limit: 100 })));
    let wrapped = Invocation { origin: Origin::Http, ..bench.invocation() };
    let large = Payload::Event(Bytes::from_static(&[0; 201]));
    assert!(matches!(bench.invoker.call(wrapped, large).await, Err(Refusal::PayloadTooLarge { limit: 200 })));
    assert!(bench.records.all().is_empty());
    assert_eq!(bench.script.calls(), 0);
    let wrapped = Invocation { origin: Origin::Http, ..bench.invocation() };
    assert!(
        bench.invoker.call(wrapped, Payload::Event(Bytes::from_static(&[0; 200]))).await.is_ok(),
        "the door has seen its body"
    );
}

fn streaming(frames: usize, pause: Duration) -> Script {
    on_call(move || {
        let frames = (0..frames).map(move |_| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(b"12345"))));
        let body = StreamBody::new(futures_util::StreamExt::then(futures_util::stream::iter(frames), move |frame| async move {
            tokio::time::sleep(pause).await;
            frame
        }));
        Act::Answer(MS, Answer::Http(http::Response::new(body.boxed_unsync())))
    })
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_recorded_when_its_body_ends() {
    let bench = bench(CUSTOM, streaming(3, 100 * MS)).await;
    let response = bench.call_http().await;
    assert!(bench.records.all().is_empty() && bench.invoker.in_flight() == 1);
    let body = response.into_body().collect().await.expect("all of it").to_bytes();
    assert_eq!(body.len(), 15);
    let record = bench.records.only();
    assert_eq!((record.outcome, record.bytes_out), (Outcome::Succeeded, 15));
    assert!((301..=306).contains(&record.billed_ms), "{record:?}");
    assert_eq!(bench.invoker.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_held_to_the_functions_deadline() {
    let bench = bench(CUSTOM, streaming(100, 100 * MS)).await;
    assert!(bench.call_http().await.into_body().collect().await.is_err());
    let record = bench.records.only();
    assert_eq!((record.outcome, record.billed_ms), (Outcome::TimedOut, 3000));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_that_nobody_reads_is_recorded_too() {
    let bench = bench(CUSTOM, streaming(3, MS)).await;
    drop(bench.call_http().await);
    assert_eq!(bench.records.only().outcome, Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn an_empty_response_is_over_before_anybody_reads_it() {
    let script = on_call(|| {
        let body = Full::new(Bytes::new()).map_err(|never| -> BoxError { match never {} }).boxed_unsync();
        Act::Answer(MS, Answer::Http(http::Response::new(body)))
    });
    let bench = bench(CUSTOM, script).await;
    drop(bench.call_http().await);
    assert_eq!(bench.records.only().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_bad_response_is_refused_and_recorded() {
    let bench = bench(CUSTOM, on_call(|| Act::Fail(MS, CallError::BadResponse("headers".to_owned())))).await;
    assert!(matches!(bench.call().await, Err(Refusal::BadResponse(_))));
    let record = bench.records.only();
    assert_eq!((record.outcome, record.error_type.as_deref()), (Outcome::FunctionError, Some("BadResponse")));
}

#[tokio::test(start_paused = true)]
async fn a_closed_door_lets_calls_finish() {
    let bench = bench(PYTHON, on_call(|| Act::Answer(500 * MS, Answer::Event(Bytes::new())))).await;
    let call = bench.call();
    let drain = async {
        tokio::time::sleep(MS).await;
        let drained = bench.invoker.drain();
        let late = async { assert!(matches!(bench.call().await, Err(Refusal::ShuttingDown))) };
        tokio::join!(drained, late);
    };
    let (reply, ()) = tokio::join!(call, drain);
    assert_eq!(reply.expect("a reply").outcome, Outcome::Succeeded);
    assert_eq!(bench.records.all().len(), 1);
}

async fn tail_of(script: Script) -> (String, RequestId) {
    let bench = bench(PYTHON, script).await;
    let invocation = Invocation { log_type: LogType::Tail, ..bench.invocation() };
    let request = invocation.request_id.clone();
    let reply = bench.invoker.call(invocation, Payload::Event(Bytes::new())).await.expect("a reply");
    (String::from_utf8(reply.log_tail.expect("asked for")).expect("text"), request)
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_brings_what_was_printed_before_it_failed() {
    let failures: [fn() -> CallError; 3] = [
        || CallError::TimedOut,
        || CallError::Exited(ended(true)),
        || CallError::Function(FunctionError::worded(ErrorType::UnhandledInvocationError, None, "no")),
    ];
    for failure in failures {
        let (tail, request) = tail_of(on_call(move || Act::Fail(MS, failure()))).await;
        let expected = format!(
            "loading\nFC Invoke Start RequestId: {request}\nprinted\nFC Invoke End RequestId: {request}, Error: Unhandled function error\n\nDuration: "
        );
        assert!(tail.starts_with(&expected), "{tail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_brings_what_was_printed_while_it_loaded() {
    let (tail, request) = tail_of(on_load(|| StartError::Exited(ended(false)))).await;
    let expected = format!(
        "FC Invoke Start RequestId: {request}\nloading\nFC Invoke End RequestId: {request}, Error: Unhandled function error\n\nDuration: "
    );
    assert!(tail.starts_with(&expected), "{tail}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_delivered_is_tried_on_another_instance_but_not_for_ever() {
    for (undelivered, succeeds) in [(1, true), (3, true), (4, false), (100, false)] {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let bench = bench(
            PYTHON,
            on_call(move || {
                if counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < undelivered {
                    Act::Fail(MS, CallError::NotDelivered)
                } else {
                    Act::Answer(MS, Answer::Event(Bytes::from_static(b"ok")))
                }
            }),
        )
        .await;
        let reply = bench.call().await.expect("a reply");
        assert_eq!(reply.result.is_ok(), succeeds, "{undelivered}");
        assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), (undelivered + 1).min(4));
        let record = bench.records.only();
        assert_eq!(record.outcome, if succeeds { Outcome::Succeeded } else { Outcome::Exited });
        assert_eq!((record.billed_ms, record.cpu_us), (1, 1000), "only the last attempt counts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_reached_its_handler_is_never_repeated() {
    for failure in [|| CallError::Exited(ended(false)), || CallError::Protocol("x".to_owned())] as [fn() -> CallError; 2] {
        let bench = bench(PYTHON, on_call(move || Act::Fail(MS, failure()))).await;
        assert!(bench.call().await.expect("a reply").result.is_err());
        assert_eq!(bench.script.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_says_it_is_spent_serves_no_further_call() {
    let bench = bench(PYTHON, Script::default()).await;
    for _ in 0..2 {
        assert!(bench.call().await.expect("a reply").result.is_ok());
    }
    assert_eq!(bench.script.loads(), 1);
    // Answered well, and yet about to end.
    let spent = Arc::clone(&bench.script.spent);
    spent.store(true, std::sync::atomic::Ordering::SeqCst);
    let _ = bench.call().await;
    spent.store(false, std::sync::atomic::Ordering::SeqCst);
    let loads = bench.script.loads();
    assert!(loads > 1, "the spent instance was not used again");
    assert!(bench.call().await.expect("a reply").result.is_ok());
}
