//! The members of `dunlin.toml`. The schema for editors is made from these tables.

use crate::serverless::props;
use crate::shape::{Field, Shape};

const TEXTS: Shape = Shape::List(&Shape::Text);

pub(super) const ROOT: &[Field] = &[
    Field::new("name", Shape::Text, "What the project is called."),
    Field::new("vars", Shape::Map(&Shape::Any), "Values of your own, used as ${vars.NAME}."),
    Field::new("functions", Shape::Map(&Shape::Members(FUNCTION)), "Functions, each as [functions.NAME]."),
    Field::new("layers", Shape::Map(&Shape::Members(LAYER)), "Packages that functions share at /opt, each as [layers.NAME]."),
    Field::new("domains", Shape::Map(&Shape::Members(DOMAIN)), "Custom domains, each as [domains.\"HOST\"]."),
];

/// Members of a function that the API has under another name.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("runtime", "runtime"),
    ("handler", "handler"),
    ("description", "description"),
    ("memory", "memorySize"),
    ("timeout", "timeout"),
    ("cpu", "cpu"),
    ("disk", "diskSize"),
    ("concurrency", "instanceConcurrency"),
    ("idle_timeout", "idleTimeout"),
    ("internet", "internetAccess"),
    ("environment", "environmentVariables"),
    ("container", "customContainerConfig"),
];

pub(super) const FUNCTION: &[Field] = &[
    Field::new("name", Shape::Text, "What it is called on the platform; as in the file unless said."),
    Field::new("runtime", Shape::Text, "For example python3.10, nodejs20 or custom.debian12; 'dunlin runtime ls' lists them.")
        .required(),
    Field::new("handler", Shape::Text, "file.function"),
    Field::new("code", Shape::Text, "A folder or a zip, from where the file lies."),
    Field::new("build", Shape::Text, "A command that runs on your machine before each deployment, where the file lies."),
    Field::new("description", Shape::Text, "Free text."),
    Field::new("memory", Shape::Integer, "MB, a multiple of 64; 128 unless said."),
    Field::new("timeout", Shape::Integer, "Seconds one call may run; 3 unless said."),
    Field::new("cpu", Shape::Number, "vCPUs, in steps of 0.05; in proportion to memory unless said."),
    Field::new("disk", Shape::Integer, "MB of writable disk."),
    Field::new("concurrency", Shape::Integer, "Calls at a time in one instance."),
    Field::new("idle_timeout", Shape::Integer, "Seconds an idle instance is kept."),
    Field::new("internet", Shape::Boolean, "Whether instances reach public addresses; they do unless said."),
    Field::new("environment", Shape::Map(&Shape::Text), "Environment variables."),
    Field::new(
        "layers",
        TEXTS,
        "Names of layers of this file, or resource names; of two that hold the same path the first counts.",
    ),
    Field::new("tags", Shape::Map(&Shape::Text), "Labels."),
    Field::new("command", TEXTS, "What starts a custom runtime's server, and its first arguments."),
    Field::new("args", TEXTS, "Further arguments."),
    Field::new("port", Shape::Integer, "Where a custom runtime's server listens; 9000 unless said."),
    Field::new("health", Shape::Members(props::HEALTH), "When a custom runtime's server counts as up."),
    Field::new("container", Shape::Any, "customContainerConfig, in the API's spelling."),
    Field::new("initializer", Shape::Members(HOOK), "Runs before an instance's first call."),
    Field::new("pre_stop", Shape::Members(HOOK), "Runs after its last."),
    Field::new(
        "http",
        Shape::Either(&Shape::Word(&["anonymous", "function"]), &Shape::Members(HTTP)),
        "Gives it a URL: for everybody ('anonymous') or for callers who sign ('function').",
    ),
    Field::new("timers", Shape::Map(&Shape::Members(TIMER)), "Times it is called at, each as timers.NAME."),
    Field::new("triggers", Shape::List(&Shape::Members(props::TRIGGER)), "Other triggers, in the API's spelling."),
    Field::new(
        "aliases",
        Shape::Map(&Shape::Either(&Shape::Text, &Shape::Members(ALIAS))),
        "Names for versions: the number of one, or 'newest', which publishes one whenever the function changes.",
    ),
    Field::new("reserved", Shape::Integer, "Instances that are set aside for it, which has no more than that."),
    Field::new("ready", Shape::Integer, "Instances that are started before the first call and kept."),
    Field::new("scaling", Shape::List(&Shape::Members(props::SCALING)), "The same by time and by load, in the API's spelling."),
    Field::new("async", Shape::Members(props::ASYNC), "How asynchronous calls are treated, in the API's spelling."),
];

const HOOK: &[Field] = &[
    Field::new("handler", Shape::Text, "A function of the code, as file.function."),
    Field::new("command", TEXTS, "A program and its arguments."),
    Field::new("timeout", Shape::Integer, "Seconds it may run."),
];

const HTTP: &[Field] = &[
    Field::new("auth", Shape::Word(&["anonymous", "function", "jwt"]), "Who may call: everybody, signers, bearers of a token.")
        .required(),
    Field::new("methods", Shape::List(&Shape::Word(props::METHODS)), "Which methods are served; all unless said."),
    Field::new("jwt", Shape::Any, "For jwt: the keys, where the token is found, and which of its claims are passed on."),
    Field::new("cors", Shape::Any, "What pages of other origins may do, in the API's spelling."),
    Field::new("qualifier", Shape::Text, "Which version or alias is called; LATEST unless said."),
];

const TIMER: &[Field] = &[
    Field::new("cron", Shape::Text, "'@every 5m', or second, minute, hour, day, month and day of the week.").required(),
    Field::new("payload", Shape::Text, "What the function is given."),
    Field::new("enabled", Shape::Boolean, "Whether it runs; it does unless said."),
    Field::new("qualifier", Shape::Text, "Which version or alias is called; LATEST unless said."),
];

const ALIAS: &[Field] = &[
    Field::new("version", Shape::Text, "The number of a version, or 'newest'.").required(),
    Field::new("description", Shape::Text, "Free text."),
];

pub(super) const LAYER: &[Field] = &[
    Field::new("name", Shape::Text, "What it is called on the platform; as in the file unless said."),
    Field::new("code", Shape::Text, "A folder or a zip, from where the file lies.").required(),
    Field::new("description", Shape::Text, "Free text."),
    Field::new("runtimes", TEXTS, "What it is meant for."),
];

pub(super) const ROUTE: &[Field] = &[
    Field::new("function", Shape::Text, "A function of this file, or of the platform.").required(),
    Field::new("qualifier", Shape::Text, "Which version or alias; LATEST unless said."),
    Field::new("methods", Shape::List(&Shape::Word(props::METHODS)), "Which methods; all unless said."),
    Field::new("rewrite", Shape::Members(props::REWRITE), "How the path is rewritten, in the API's spelling."),
];

pub(super) const DOMAIN: &[Field] = &[
    Field::new("protocol", props::PROTOCOLS, "Over what it is served; HTTP unless there is a certificate."),
    Field::new(
        "routes",
        Shape::Map(&Shape::Either(&Shape::Text, &Shape::Members(ROUTE))),
        "Where paths lead, for example { \"/*\" = \"hello\" }.",
    )
    .required(),
    Field::new("certificate", Shape::Text, "PEM, for example \"${file('fullchain.pem')}\"."),
    Field::new("key", Shape::Text, "The certificate's key in PEM."),
    Field::new("auth", Shape::Word(&["anonymous", "function", "jwt"]), "Who may call."),
    Field::new("jwt", Shape::Any, "For jwt: the keys, where the token is found, and which of its claims are passed on."),
    Field::new("cors", Shape::Any, "What pages of other origins may do, in the API's spelling."),
    Field::new("tls", Shape::Any, "Which TLS is spoken, in the API's spelling."),
];
