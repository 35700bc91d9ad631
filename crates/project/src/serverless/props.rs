//! The members that components `fc3` and `fc3-domain` of Serverless Devs know (contract section 16.1).

use crate::shape::{Fate, Field, Shape};

const AWAY: Fate = Fate::Kept("it belongs to the vendor's data centres; the platform stores it and gives it back");

/// A member whose meaning the vendor documents.
const fn field(name: &'static str, shape: Shape) -> Field {
    Field::new(name, shape, "")
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const AUTO_OR_ANY: Shape = Shape::Either(&Shape::Text, &Shape::Any);

pub(crate) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

pub(crate) const HEALTH: &[Field] = &[
    Field::new("httpGetUrl", Shape::Text, "The path to ask for."),
    Field::new("initialDelaySeconds", Shape::Integer, "How long to wait before the first time."),
    Field::new("periodSeconds", Shape::Integer, "How long to wait between two times."),
    Field::new("timeoutSeconds", Shape::Integer, "How long an answer may take."),
    Field::new("failureThreshold", Shape::Integer, "How many failures mean that it is down."),
    Field::new("successThreshold", Shape::Integer, "How many successes mean that it is up."),
];

pub(crate) const CUSTOM_RUNTIME: &[Field] = &[
    Field::new("command", TEXTS, "The program that is started, and its first arguments."),
    Field::new("args", TEXTS, "Further arguments."),
    Field::new("port", Shape::Integer, "Where its server listens; 9000 unless said."),
    Field::new("healthCheckConfig", Shape::Members(HEALTH), "When it counts as up."),
];

const CONTAINER: &[Field] = &[
    field("image", Shape::Text),
    field("command", TEXTS),
    field("entrypoint", TEXTS),
    field("port", Shape::Integer),
    field("healthCheckConfig", Shape::Members(HEALTH)),
    field("registryConfig", Shape::Any),
    field("acrInstanceId", Shape::Text).fate(AWAY),
    field("accelerationType", Shape::Text).fate(AWAY),
    field("accelerationInfo", Shape::Any).fate(AWAY),
    field("resolvedImageUri", Shape::Text).fate(Fate::Dropped("the platform tells it")),
];

const HOOK: &[Field] = &[
    Field::new("handler", Shape::Text, "A function of the code, as file.function."),
    Field::new("command", TEXTS, "A program and its arguments."),
    Field::new("timeout", Shape::Integer, "Seconds it may run."),
];

pub(crate) const LIFECYCLE: &[Field] = &[
    Field::new("initializer", Shape::Members(HOOK), "Runs before an instance's first call."),
    Field::new("preStop", Shape::Members(HOOK), "Runs after its last."),
];

const CODE: &[Field] =
    &[field("src", Shape::Text).required(), field("ossBucketName", Shape::Text), field("ossObjectName", Shape::Text)];

const TAG: &[Field] =
    &[field("Key", Shape::Text), field("key", Shape::Text), field("Value", Shape::Text), field("value", Shape::Text)];

const RULES: Shape =
    Shape::List(&Shape::Members(&[field("match", Shape::Text).required(), field("replacement", Shape::Text).required()]));

pub(crate) const REWRITE: &[Field] = &[field("equalRules", RULES), field("wildcardRules", RULES), field("regexRules", RULES)];

const CORS: &[Field] = &[
    field("allowCredentials", Shape::Boolean),
    field("allowHeaders", TEXTS),
    field("allowMethods", TEXTS),
    field("allowOrigins", TEXTS),
    field("exposeHeaders", TEXTS),
    field("maxAge", Shape::Integer),
];

pub(crate) const HTTP: &[Field] = &[
    Field::new(
        "authType",
        Shape::Word(&["anonymous", "function", "jwt"]),
        "Who may call: everybody, signers, bearers of a token.",
    ),
    Field::new("methods", Shape::List(&Shape::Word(METHODS)), "Which methods are served; all unless said."),
    Field::new("disableURLInternet", Shape::Boolean, "Whether the URL answers nobody."),
    Field::new("authConfig", Shape::Any, "For jwt: the keys, where the token is found, and which of its claims are passed on."),
    Field::new("corsConfig", Shape::Members(CORS), "What pages of other origins may do."),
];

pub(crate) const TIMER: &[Field] = &[
    Field::new("cronExpression", Shape::Text, "When: '@every 5m', or second, minute, hour, day, month and day of the week.")
        .required(),
    Field::new("enable", Shape::Boolean, "Whether it runs."),
    Field::new("payload", Shape::Text, "What the function is given."),
];

const OSS: &[Field] = &[
    field("events", TEXTS).required(),
    field(
        "filter",
        Shape::Members(&[field("key", Shape::Members(&[field("prefix", Shape::Text), field("suffix", Shape::Text)]))]),
    ),
];

/// What a trigger of a type is configured with; types that are not named here are handed on.
pub(crate) fn trigger_config(kind: &str) -> Shape {
    match kind {
        "http" => Shape::Members(HTTP),
        "timer" => Shape::Members(TIMER),
        "oss" => Shape::Members(OSS),
        _ => Shape::Any,
    }
}

pub(crate) const TRIGGER: &[Field] = &[
    field("triggerName", Shape::Text).required(),
    field("triggerType", Shape::Text).required(),
    field("qualifier", Shape::Text),
    field("description", Shape::Text),
    field("sourceArn", Shape::Text),
    field("invocationRole", Shape::Text),
    field("triggerConfig", Shape::Any),
];

const SCHEDULED: Shape = Shape::List(&Shape::Members(&[
    Field::new("name", Shape::Text, "Its name, once in the list.").required(),
    Field::new("scheduleExpression", Shape::Text, "When: 'cron(…)' or 'at(…)'.").required(),
    Field::new("target", Shape::Integer, "How many instances from then on.").required(),
    Field::new("startTime", Shape::Text, "It counts from here on."),
    Field::new("endTime", Shape::Text, "It counts until then."),
    Field::new("timeZone", Shape::Text, "Whose clocks; UTC unless said."),
]));

const TRACKING: &[Field] = &[
    field("name", Shape::Text).required(),
    field("metricType", Shape::Text).required(),
    field("metricTarget", Shape::Number).required(),
    field("minCapacity", Shape::Integer),
    field("maxCapacity", Shape::Integer),
    field("startTime", Shape::Text),
    field("endTime", Shape::Text),
    field("timeZone", Shape::Text),
];

pub(crate) const PROVISION: &[Field] = &[
    field("qualifier", Shape::Text),
    field("mode", Shape::Text).fate(Fate::Dropped("instances are started at once, and the deployment does not wait for them")),
    field("defaultTarget", Shape::Integer),
    field("target", Shape::Integer),
    field("alwaysAllocateCPU", Shape::Boolean),
    field("alwaysAllocateGPU", Shape::Boolean),
    field("scheduledActions", SCHEDULED),
    field("targetTrackingPolicies", Shape::List(&Shape::Members(TRACKING))),
];

const POLICY: &[Field] = &[
    Field::new("name", Shape::Text, "Its name, once in the list.").required(),
    Field::new("metricType", Shape::Text, "What is measured.").required(),
    Field::new("metricTarget", Shape::Number, "What the measure is held at, above 0 and at most 1.").required(),
    Field::new("minInstances", Shape::Integer, "Never fewer."),
    Field::new("maxInstances", Shape::Integer, "Never more."),
    Field::new("startTime", Shape::Text, "It counts from here on."),
    Field::new("endTime", Shape::Text, "It counts until then."),
    Field::new("timeZone", Shape::Text, "Whose clocks; UTC unless said."),
];

pub(crate) const SCALING: &[Field] = &[
    Field::new("qualifier", Shape::Text, "Which version or alias is meant; LATEST unless said."),
    Field::new("minInstances", Shape::Integer, "How many instances are kept ready."),
    Field::new("enableOnDemandScaling", Shape::Boolean, "Whether there may be more than are kept ready."),
    Field::new("enableMixMode", Shape::Boolean, "Stored.").fate(AWAY),
    Field::new("requestDispatchPolicy", Shape::Text, "Stored.").fate(AWAY),
    Field::new("residentPoolId", Shape::Text, "Stored.").fate(AWAY),
    Field::new("scheduledPolicies", SCHEDULED, "How many at which time."),
    Field::new("horizontalScalingPolicies", Shape::List(&Shape::Members(POLICY)), "How many by the load."),
];

const DESTINATION: Shape = Shape::Members(&[Field::new("destination", Shape::Text, "A resource name.")]);

pub(crate) const ASYNC: &[Field] = &[
    Field::new("qualifier", Shape::Text, "Which version or alias is meant; LATEST unless said."),
    Field::new("asyncTask", Shape::Boolean, "Whether calls are tasks that can be looked up."),
    Field::new("maxAsyncEventAgeInSeconds", Shape::Integer, "How old a call may get before it is given up."),
    Field::new("maxAsyncRetryAttempts", Shape::Integer, "How often a call that failed is tried again."),
    Field::new(
        "destinationConfig",
        Shape::Members(&[
            Field::new("onSuccess", DESTINATION, "Who hears of calls that went well."),
            Field::new("onFailure", DESTINATION, "Who hears of those that did not."),
        ]),
        "Who hears of how it ended.",
    ),
];

const CONCURRENCY: &[Field] = &[field("reservedConcurrency", Shape::Integer).required()];

const CERTIFICATE: &[Field] = &[
    field("certName", Shape::Text),
    field("certificate", Shape::Text),
    field("privateKey", Shape::Text),
    field("certId", Shape::Text).fate(Fate::Refused("give certificate and privateKey, for example with ${file('…')}")),
];

const TLS: &[Field] = &[field("minVersion", Shape::Text), field("maxVersion", Shape::Text), field("cipherSuites", TEXTS)];

const AUTH: &[Field] =
    &[field("authType", Shape::Word(&["anonymous", "function", "jwt"])).required(), field("authInfo", Shape::Any)];

const FIREWALL: Fate = Fate::Kept("the platform has no web application firewall");

/// Over what a domain is served.
pub(crate) const PROTOCOLS: Shape = Shape::Word(&["HTTP", "HTTPS", "HTTP,HTTPS"]);

const REGION: Field = field("region", Shape::Text);

const ROUTE: &[Field] = &[
    field("path", Shape::Text).required(),
    field("functionName", Shape::Text),
    field("qualifier", Shape::Text),
    field("methods", Shape::List(&Shape::Word(METHODS))),
    field("rewriteConfig", Shape::Members(REWRITE)),
];

const FUNCTION_DOMAIN: &[Field] = &[
    field("domainName", Shape::Text).required(),
    field("protocol", PROTOCOLS),
    field("route", Shape::Members(ROUTE)),
    field("certConfig", Shape::Members(CERTIFICATE)),
    field("tlsConfig", Shape::Members(TLS)),
    field("authConfig", Shape::Members(AUTH)),
    field("corsConfig", Shape::Members(CORS)),
    field("wafConfig", Shape::Any).fate(FIREWALL),
];

/// Component `fc3-domain`.
pub(crate) const DOMAIN: &[Field] = &[
    REGION,
    field("domainName", Shape::Text).required(),
    field("protocol", PROTOCOLS).required(),
    field("routeConfig", Shape::Members(&[field("routes", Shape::List(&Shape::Members(ROUTE))).required()])).required(),
    field("certConfig", Shape::Members(CERTIFICATE)),
    field("tlsConfig", Shape::Members(TLS)),
    field("authConfig", Shape::Members(AUTH)),
    field("corsConfig", Shape::Members(CORS)),
    field("wafConfig", Shape::Any).fate(FIREWALL),
];

/// Component `fc3`.
pub(crate) const FUNCTION: &[Field] = &[
    REGION,
    field("functionName", Shape::Text).required(),
    field("runtime", Shape::Text).required(),
    field("handler", Shape::Text),
    field("code", Shape::Either(&Shape::Text, &Shape::Members(CODE))),
    field("description", Shape::Text),
    field("cpu", Shape::Number),
    field("memorySize", Shape::Integer),
    field("diskSize", Shape::Integer),
    field("timeout", Shape::Integer),
    field("idleTimeout", Shape::Integer),
    field("instanceConcurrency", Shape::Integer),
    field("internetAccess", Shape::Boolean),
    field("disableOndemand", Shape::Boolean),
    field("environmentVariables", Shape::Map(&Shape::Text)),
    field("layers", TEXTS),
    field("role", Shape::Text).fate(AWAY),
    field("logConfig", AUTO_OR_ANY).fate(Fate::Kept("logs are kept by the platform itself; read them with 'dunlin logs'")),
    field("vpcConfig", AUTO_OR_ANY).fate(AWAY),
    field("nasConfig", AUTO_OR_ANY).fate(AWAY),
    field("ossMountConfig", AUTO_OR_ANY).fate(AWAY),
    field("polarFsConfig", Shape::Any).fate(AWAY),
    field("customDNS", Shape::Any).fate(AWAY),
    field("customRuntimeConfig", Shape::Members(CUSTOM_RUNTIME)),
    field("customContainerConfig", Shape::Members(CONTAINER)),
    field("gpuConfig", Shape::Any).fate(AWAY),
    field("instanceLifecycleConfig", Shape::Members(LIFECYCLE)),
    field("tracingConfig", AUTO_OR_ANY).fate(AWAY),
    field("tags", Shape::List(&Shape::Members(TAG))),
    field("sessionAffinity", Shape::Text),
    field("sessionAffinityConfig", Shape::Any),
    field("instanceIsolationMode", Shape::Text),
    field("enableLongLiving", Shape::Boolean),
    field("disableInjectCredentials", Shape::Text),
    field("resourceGroupId", Shape::Text).fate(AWAY),
    field("annotations", Shape::Any).fate(Fate::Dropped("it sends headers that mean something in the vendor's cloud only")),
    field("endpoint", Shape::Text).fate(Fate::Dropped("--endpoint and --data say where the platform is")),
    field("triggers", Shape::List(&Shape::Members(TRIGGER))),
    field("asyncInvokeConfig", Shape::Members(ASYNC)),
    field("vpcBinding", Shape::Any).fate(Fate::Dropped("the platform has no private networks of the vendor's")),
    field("customDomain", Shape::Members(FUNCTION_DOMAIN)),
    field("provisionConfig", Shape::Members(PROVISION)),
    field("scalingConfig", Shape::Members(SCALING)),
    field("concurrencyConfig", Shape::Members(CONCURRENCY)),
];
