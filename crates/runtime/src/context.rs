//! What an instance is told about itself: the environment, `Load`, and the context of each call.

use std::collections::BTreeMap;

use dunlin_model::{FunctionConfig, ImageConfig, Language, LifecycleHook, Protocol};
use serde::Serialize;

use crate::call::CallContext;
use crate::guest::LoadSpec;
use crate::http_headers;

/// Where the code is mounted, inside.
pub(crate) const CODE_PATH: &str = "/code";

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the linker looks for the user's libraries.
pub(crate) const LIBRARY_PATH: &str = "/code:/code/lib:/opt/lib:/usr/local/lib";

/// `Load`'s head.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Load<'a> {
    code_path: &'a str,
    handler: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    initializer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_stop: Option<&'a str>,
    env: BTreeMap<&'a str, String>,
    unset: [&'a str; 0],
    runtime: &'a str,
    #[serde(skip_serializing_if = "is_one")]
    concurrency: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    template: bool,
    function: About<'a>,
    service: Service<'a>,
    account_id: &'a str,
    region: &'a str,
    instance_id: &'a str,
    /// For a module: what goes into every request that stands for an event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http_headers: Vec<(String, String)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_one(n: &u32) -> bool {
    *n == 1
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    name: &'a str,
    handler: &'a str,
    memory: i64,
    timeout: i64,
    version_id: &'a str,
    qualifier: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service<'a> {
    name: &'a str,
    log_project: &'a str,
    log_store: &'a str,
    qualifier: &'a str,
    version_id: &'a str,
}

/// The head of `Load` for a built-in language.
pub(crate) fn load_head(spec: &LoadSpec) -> Vec<u8> {
    let config = &spec.function.config;
    let version_id = version_id(spec);
    let (log_project, log_store) = log_target(config);
    let load = Load {
        code_path: CODE_PATH,
        handler: &config.handler,
        initializer: config.initializer().and_then(hook_handler),
        pre_stop: config.pre_stop().and_then(hook_handler),
        env: environment(spec),
        unset: [],
        runtime: config.runtime.as_str(),
        concurrency: config.concurrency_in_force(),
        template: spec.template,
        function: About {
            name: config.function_name.as_str(),
            handler: &config.handler,
            memory: config.memory_size,
            timeout: config.timeout,
            version_id,
            qualifier: &spec.qualifier,
        },
        service: Service { name: "", log_project, log_store, qualifier: &spec.qualifier, version_id },
        account_id: spec.key.function.account().as_str(),
        region: &spec.region,
        instance_id: spec.instance.as_str(),
        http_headers: match config.runtime.protocol() {
            Protocol::Module => http_headers::as_pairs(&http_headers::common(spec)),
            Protocol::Frames | Protocol::Http | Protocol::RuntimeApi => Vec::new(),
        },
    };
    serde_json::to_vec(&load).expect("texts and numbers are JSON")
}

/// The head of `Init`, `Invoke` and `PreStop`. Written by hand because it is on the warm path; a request id has no
/// character that JSON would escape.
pub(crate) fn call_head(call: &CallContext) -> String {
    let CallContext { request_id, deadline_ms, retry_count, takes_parts, .. } = call;
    let takes_parts = if *takes_parts { r#","takesParts":true"# } else { "" };
    format!(r#"{{"requestId":"{request_id}","deadlineMs":{deadline_ms},"retryCount":{retry_count}{takes_parts}}}"#)
}

/// The version's number, empty for the head.
pub(crate) fn version_id(spec: &LoadSpec) -> &str {
    match &*spec.key.version {
        "LATEST" => "",
        number => number,
    }
}

/// `logConfig`'s project and store; empty when not set.
pub(crate) fn log_target(config: &FunctionConfig) -> (&str, &str) {
    let member = |name| config.kept.get("logConfig").and_then(|log| log.get(name)).and_then(|value| value.as_str());
    (member("project").unwrap_or(""), member("logstore").unwrap_or(""))
}

/// What a program for AWS Lambda's runtime API finds in its environment on top.
pub(crate) fn lambda_environment(spec: &LoadSpec, api: &str) -> [(&'static str, String); 12] {
    let config = &spec.function.config;
    let version = match version_id(spec) {
        "" => "$LATEST",
        number => number,
    };
    [
        ("AWS_LAMBDA_RUNTIME_API", api.to_owned()),
        ("_HANDLER", config.handler.clone()),
        ("LAMBDA_TASK_ROOT", CODE_PATH.to_owned()),
        ("LAMBDA_RUNTIME_DIR", "/opt".to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", config.function_name.to_string()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", config.memory_size.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", version.to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", config.function_name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", spec.instance.to_string()),
        ("AWS_REGION", spec.region.clone()),
        ("AWS_DEFAULT_REGION", spec.region.clone()),
    ]
}

/// The handler of a hook, when it has one.
pub(crate) fn hook_handler(hook: &LifecycleHook) -> Option<&str> {
    hook.handler.as_deref().filter(|handler| !handler.is_empty())
}

/// Where the interpreter that runs the function is found by name as well, ahead of the system's.
fn own_programs(config: &FunctionConfig) -> String {
    if config.runtime.language().has_interpreter() {
        format!("/var/fc/lang/{}/bin:", config.runtime.as_str())
    } else {
        String::new()
    }
}

/// What an image sets, and what every program expects.
fn of_image(image: &ImageConfig) -> BTreeMap<&str, String> {
    let home = if image.user.uid == 0 { "/root" } else { "/" };
    let mut env = BTreeMap::from([("HOME", home.to_owned()), ("PATH", SYSTEM_PATH.to_owned())]);
    let set = image.env.iter().filter_map(|variable| variable.split_once('='));
    env.extend(set.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name, value.to_owned())));
    env
}

/// Everything in an instance's environment, by name (contract section 6.1). The user's own variables win over ours,
/// except over `FC_…`, which always say the truth.
pub(crate) fn environment(spec: &LoadSpec) -> BTreeMap<&str, String> {
    let config = &spec.function.config;
    let mut env = match &config.image {
        Some(image) => of_image(&image.config),
        None => BTreeMap::from([
            ("HOME", "/tmp".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("PATH", format!("/code:/code/bin:/opt:/opt/bin:{}{SYSTEM_PATH}", own_programs(config))),
            ("LD_LIBRARY_PATH", LIBRARY_PATH.to_owned()),
        ]),
    };
    if config.runtime.language() == Language::Python {
        let layers = if config.layers.is_some() { ":/opt/python" } else { "" };
        env.insert("PYTHONPATH", format!("{CODE_PATH}{layers}"));
    }
    for (name, value) in config.environment_variables.iter().flatten() {
        // Checked when it was stored; what slipped through must not break the frame.
        if !name.starts_with("FC_") && !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            env.insert(name, value.clone());
        }
    }
    env.extend([
        ("FC_FUNC_CODE_PATH", CODE_PATH.to_owned()),
        ("FC_ACCOUNT_ID", spec.key.function.account().to_string()),
        ("FC_REGION", spec.region.clone()),
        ("FC_FUNCTION_NAME", config.function_name.to_string()),
        ("FC_FUNCTION_HANDLER", config.handler.clone()),
        ("FC_FUNCTION_MEMORY_SIZE", config.memory_size.to_string()),
        ("FC_TIMEOUT", config.timeout.to_string()),
        ("FC_RUNTIME", config.runtime.as_str().to_owned()),
        ("FC_INSTANCE_ID", spec.instance.to_string()),
        ("FC_FUNCTION_VERSION", version_id(spec).to_owned()),
        ("FC_VER_ID", version_id(spec).to_owned()),
        ("FC_QUALIFIER", spec.qualifier.clone()),
    ]);
    if let Some(hook) = config.initializer() {
        env.insert("FC_INITIALIZER_HANDLER", hook_handler(hook).unwrap_or("").to_owned());
        env.insert("FC_INITIALIZATION_TIMEOUT", hook.timeout_in_force().to_string());
    }
    if config.runtime.language() == Language::Custom {
        env.insert("FC_CUSTOM_LISTEN_PORT", config.server_in_force().port_in_force().to_string());
    }
    env
}
