//! Files of both formats: what they mean, and what is said about those that mean nothing.

#![expect(clippy::unwrap_used, reason = "a broken fixture is a failed test")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_project::plan::{self, Found, FoundFunction, Verb};
use dunlin_project::{Content, Outputs, Project, Version, World, own, read};
use serde_json::{Value, json};

/// A machine that has these files and this environment, and nothing else.
#[derive(Default)]
struct Machine {
    files: BTreeMap<PathBuf, String>,
    environment: BTreeMap<&'static str, &'static str>,
}

impl World for Machine {
    fn env(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(|value| (*value).to_owned())
    }

    fn config(&self, name: &str) -> Option<String> {
        (name == "AccountID").then(|| "1234567890123456".to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A machine with one project file in `/p`.
fn machine(name: &str, text: &str) -> Machine {
    Machine { files: BTreeMap::from([(Path::new("/p").join(name), text.to_owned())]), ..Machine::default() }
}

fn project(name: &str, machine: &Machine) -> Project {
    let read = read(&Path::new("/p").join(name), machine, &Outputs::new());
    read.unwrap_or_else(|problems| panic!("{problems}"))
}

fn yaml(text: &str) -> Project {
    project("s.yaml", &machine("s.yaml", text))
}

fn toml(text: &str) -> Project {
    project("dunlin.toml", &machine("dunlin.toml", text))
}

fn function<'a>(project: &'a Project, name: &str) -> &'a dunlin_project::Function {
    let resource = project.resources.iter().find(|resource| resource.name == name);
    match &resource.unwrap_or_else(|| panic!("no {name}")).content {
        Content::Function(function) => function,
        other => panic!("{other:?}"),
    }
}

/// What is said about a file, without the file's name.
fn problems(name: &str, machine: &Machine) -> Vec<String> {
    let problems = read(&Path::new("/p").join(name), machine, &Outputs::new()).expect_err("it is wrong");
    problems.0.iter().map(|problem| problem.to_string().replace("/p/", "")).collect()
}

fn function_with(props: &str) -> String {
    format!(
        "edition: 3.0.0\nresources:\n  f:\n    component: fc3\n    props:\n      functionName: f\n      runtime: python3.10\n      code: ./f\n{props}"
    )
}

#[test]
fn a_project_of_serverless_devs_is_read_whole() {
    let mut machine = machine("s.yaml", include_str!("fixtures/full.yaml"));
    machine.files.insert("/p/payload.json".into(), r#"{"kind": "nightly"}"#.into());
    machine.environment.insert("TOKEN", "secret-token");
    let project = project("s.yaml", &machine);
    assert_eq!(project.name.as_deref(), Some("shop"));
    let order: Vec<&str> = project.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(order, ["worker", "api", "site"], "what is needed comes first");
    let api = function(&project, "api");
    let expected: Value = serde_json::from_str(include_str!("fixtures/full.json")).unwrap();
    assert_eq!(Value::Object(api.config.clone()), expected["config"]);
    assert_eq!(api.code.as_deref(), Some(Path::new("/p/./api")));
    assert_eq!(api.triggers[0].config, expected["http"]);
    assert_eq!(api.keepings[0].config, *expected["async"].as_object().unwrap());
    assert_eq!(api.reserved_concurrency, Some(json!(5)));
    assert_eq!(api.domain.as_ref().unwrap().routes, [expected["route"].as_object().unwrap().clone()]);
    let resource = project.resources.iter().find(|resource| resource.name == "api").unwrap();
    assert_eq!((&resource.needs, &resource.waits_for), (&vec!["worker".to_owned()], &vec!["worker".to_owned()]));
    assert_eq!(resource.actions[0].run, "pip install -t api");
    assert_eq!(resource.actions[0].folder, Path::new("/p/./api"));
    let warned: Vec<String> = project.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warned.len(), 2, "{warned:#?}");
    assert!(warned.iter().any(|warning| warning.contains("logConfig is left out: 'auto'")), "{warned:#?}");
}

#[test]
fn what_others_result_in_is_put_in_once_it_is_known() {
    let text = include_str!("fixtures/full.yaml");
    let mut machine = machine("s.yaml", text);
    machine.files.insert("/p/payload.json".into(), r#"{"kind": "x"}"#.into());
    machine.environment.insert("TOKEN", "t");
    let outputs = Outputs::from([("worker".to_owned(), json!({ "functionArn": "acs:fc:r:1:functions/w" }))]);
    let project = read(Path::new("/p/s.yaml"), &machine, &outputs).unwrap();
    assert_eq!(function(&project, "api").config["environmentVariables"]["WORKER"], "acs:fc:r:1:functions/w");
    assert!(project.resources.iter().all(|resource| resource.waits_for.is_empty()));
    let outputs = Outputs::from([("worker".to_owned(), json!({ "functionName": "w" }))]);
    let problems = read(Path::new("/p/s.yaml"), &machine, &outputs).unwrap_err();
    assert!(problems.to_string().contains("there is no 'functionArn'; there are functionName"), "{problems}");
}

#[test]
fn templates_anchors_and_extended_files_are_laid_under_what_is_written() {
    let base = "edition: 3.0.0\nvars:\n  size: 256\n  stage: dev\nresources:\n  f:\n    component: fc3\n    props:\n      functionName: f-${vars.stage}\n      runtime: python3.10\n      code: ./f\n      memorySize: ${vars.size}\n";
    let over = "extend: base.yaml\nvars:\n  stage: prod\nresources:\n  f:\n    props:\n      timeout: 9\n";
    let mut machine = machine("s.yaml", over);
    machine.files.insert("/p/base.yaml".into(), base.into());
    let read = project("s.yaml", &machine);
    let f = function(&read, "f");
    assert_eq!((f.name.as_str(), &f.config["memorySize"], &f.config["timeout"]), ("f-prod", &json!(256), &json!(9)));

    let read = yaml(
        "edition: 3.0.0\ntemplate:\n  base: &base\n    runtime: python3.10\n    code: ./f\n    timeout: 7\n    internetAccess: false\nresources:\n  a:\n    component: fc3\n    extend:\n      name: base\n      ignore: [internetAccess]\n    props:\n      functionName: a\n      timeout: 8\n  b:\n    component: fc3\n    props:\n      <<: *base\n      functionName: b\n",
    );
    let (a, b) = (function(&read, "a"), function(&read, "b"));
    assert_eq!((&a.config["timeout"], a.config.get("internetAccess")), (&json!(8), None));
    assert_eq!((&b.config["timeout"], &b.config["internetAccess"]), (&json!(7), &json!(false)));
}

#[test]
fn every_mistake_is_told_with_its_line_and_what_to_write() {
    let cases = [
        ("      memroySize: 128\n", "s.yaml:9: 'memroySize' is unknown; did you mean 'memorySize'?"),
        ("      memorySize: lots\n", "s.yaml:9: memorySize must be a whole number, and is text"),
        ("      memorySize: \"128\"\n", "s.yaml:9: memorySize must be a whole number, and is text; leave out the quotes"),
        ("      internetAccess: maybe\n", "s.yaml:9: internetAccess must be true or false, and is text"),
        ("      environmentVariables: [A]\n", "s.yaml:9: environmentVariables must be a set of members, and is a list"),
        ("      timeout: 3\n      timeout: 4\n", "s.yaml:10: 'timeout' is there already, on line 9"),
        (
            "      description: ${env('NOPE')}\n",
            "s.yaml:9: the environment has no variable NOPE; set it, or write ${env('NOPE', 'a default')}",
        ),
        ("      description: ${file('nope.txt')}\n", "s.yaml:9: ${file('nope.txt')}: cannot read nope.txt: entity not found"),
        ("      description: ${vars.nope}\n", "s.yaml:9: ${vars.nope}: the file has no vars"),
        ("      description: ${resources.g.output.x}\n", "s.yaml:9: ${resources.g.output.x}: there is no resource 'g'"),
        (
            "      description: ${this.props.runtme}\n",
            "s.yaml:9: ${this.props.runtme}: resources.f.props has no 'runtme'; did you mean 'runtime'?",
        ),
        (
            "      description: ${nope('x')}\n",
            "s.yaml:9: ${nope('x')}: 'nope' is unknown; known are env, file, json, path and config",
        ),
        (
            "      description: ${config('Nope')}\n",
            "s.yaml:9: ${config('Nope')}: the account's configuration has no member 'Nope'",
        ),
        (
            "      description: ${this.props.description}\n",
            "s.yaml:9: resources.f.props.description refers to itself: resources.f.props.description -> resources.f.props.description",
        ),
        (
            "      triggers:\n        - triggerName: t\n          triggerType: http\n          triggerConfig:\n            authType: anonymus\n",
            "s.yaml:13: triggers[0].triggerConfig.authType must be one of anonymous, function, jwt, and is 'anonymus' (did you mean 'anonymous'?)",
        ),
        ("      triggers:\n        - triggerType: http\n", "s.yaml:10: triggers[0].triggerName is required"),
        (
            "      customDomain:\n        domainName: auto\n",
            "s.yaml:10: domainName 'auto' asks the vendor for a name; write one of your own",
        ),
        (
            "      provisionConfig: {defaultTarget: 1}\n      scalingConfig: {minInstances: 1}\n",
            "s.yaml:10: scalingConfig and provisionConfig say the same thing; write one of them",
        ),
        (
            "    actions:\n      pre-deploy:\n        - plugin: x\n",
            "s.yaml:11: pre-deploy: plugin actions are not supported; write 'run' with a command",
        ),
        (
            "    actions:\n      pre-deploy:\n        - component: fc3 build\n",
            "s.yaml:11: pre-deploy: component actions are not supported; write 'run' with a command",
        ),
        ("    acess: x\n", "s.yaml:9: 'acess' is unknown in resources.f; did you mean 'access'?"),
        ("  g: {component: oss, props: {}}\n", "s.yaml:9: component 'oss' is not supported; fc3 and fc3-domain are"),
        (
            "  g: {component: fc3, props: {functionName: f, runtime: go1, code: .}}\n",
            "s.yaml:9: 'f' and 'g' are both function 'f'",
        ),
        ("services: {}\n", "s.yaml:9: services cannot be done here: it is of an edition before 3.0.0; write 'resources'"),
        ("      a: [\n", "s.yaml:10: is not YAML: while parsing a node, did not find expected node content"),
    ];
    for (props, expected) in cases {
        let told = problems("s.yaml", &machine("s.yaml", &function_with(props)));
        let told = told.iter().map(|problem| problem.replace("cannot read /p/", "cannot read ")).collect::<Vec<_>>();
        assert_eq!(told, [expected], "{props}");
    }
    let told = problems("s.yaml", &machine("s.yaml", "edition: 1.0.0\nresources:\n  f:\n    component: fc3\n    props: {}\n"));
    let expected = [
        "s.yaml:1: edition must be 3.0.0, and is '1.0.0'",
        "s.yaml:5: functionName is required",
        "s.yaml:5: runtime is required",
        "s.yaml:5: code is required: the path of a folder or a zip",
    ];
    assert_eq!(told, expected, "all at once");
    assert_eq!(problems("s.yaml", &Machine::default()), ["s.yaml: cannot read s.yaml: entity not found"]);
}

#[test]
fn resources_that_need_each_other_are_refused_with_the_way_round() {
    let resource = |name: &str, needs: &str| {
        format!(
            "  {name}:\n    component: fc3\n    props:\n      functionName: {name}\n      runtime: go1\n      code: .\n      description: ${{resources.{needs}.output.functionArn}}\n"
        )
    };
    let text = format!("edition: 3.0.0\nresources:\n{}{}{}", resource("a", "b"), resource("b", "c"), resource("c", "a"));
    assert_eq!(
        problems("s.yaml", &machine("s.yaml", &text)),
        ["s.yaml:3: resources need each other's results: a -> b -> c -> a"]
    );
}

#[test]
fn aliases_and_variables_that_multiply_are_refused() {
    let mut bomb = String::from("edition: 3.0.0\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("  a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    let told = problems("s.yaml", &machine("s.yaml", &bomb));
    assert!(told[0].contains("more than 50000 values"), "{told:?}");
    let mut bomb = String::from("edition: 3.0.0\nvars:\n  a0: xxxxxxxxxx\n");
    for level in 1..12 {
        bomb.push_str(&format!("  a{level}: {}\n", format!("${{vars.a{}}}", level - 1).repeat(10)));
    }
    bomb.push_str(&function_with("      description: ${vars.a11}\n").replace("edition: 3.0.0\n", ""));
    let told = problems("s.yaml", &machine("s.yaml", &bomb));
    assert!(told.len() == 1 && told[0].contains("more than 50000 values"), "{told:?}");
    let deep = format!("edition: 3.0.0\nvars: {}x{}\n", "[".repeat(200), "]".repeat(200));
    assert!(problems("s.yaml", &machine("s.yaml", &deep))[0].contains("deeper than 64 levels"));
}

#[test]
fn our_own_format_means_the_same() {
    let mut machine = machine("dunlin.toml", include_str!("fixtures/full.toml"));
    machine.environment.insert("TOKEN", "secret-token");
    machine.files.insert("/p/cert.pem".into(), "CERT\n".into());
    machine.files.insert("/p/key.pem".into(), "KEY\n".into());
    let project = project("dunlin.toml", &machine);
    let order: Vec<&str> = project.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(order, ["tools", "api", "www.example.com"]);
    let api = function(&project, "api");
    let expected: Value = serde_json::from_str(include_str!("fixtures/own.json")).unwrap();
    assert_eq!(Value::Object(api.config.clone()), expected["config"]);
    let triggers: Vec<Value> =
        api.triggers.iter().map(|trigger| json!([trigger.name, trigger.kind, trigger.qualifier, trigger.config])).collect();
    assert_eq!(Value::from(triggers), expected["triggers"]);
    let aliases: Vec<_> = api.aliases.iter().flatten().map(|alias| (alias.name.as_str(), alias.version)).collect();
    assert_eq!(aliases, [("prod", Version::Newest), ("old", Version::Number(1))]);
    let Content::Domain(domain) = &project.resources[2].content else { panic!("a domain") };
    assert_eq!(Value::Object(domain.config.clone()), expected["domain"]);
    assert_eq!(json!(domain.routes), expected["routes"]);
    assert!(domain.whole);
}

#[test]
fn mistakes_in_our_own_format_are_told_with_their_line() {
    let with = |text: &str| format!("[functions.f]\nruntime = \"go1\"\ncode = \".\"\n{text}\n");
    for (text, expected) in [
        ("memroy = 1", "dunlin.toml:4: 'memroy' is unknown in functions.f; did you mean 'memory'?"),
        ("memory = \"x\"", "dunlin.toml:4: functions.f.memory must be a whole number, and is text"),
        (
            "layers = [\"tols\"]\n[layers.tools]\ncode = \".\"",
            "dunlin.toml:4: 'tols' is unknown in functions.f.layers; did you mean 'tools'?",
        ),
        ("aliases = { prod = \"newst\" }", "dunlin.toml:4: functions.f.aliases.prod must be 'newest' or the number of a version"),
        ("http = \"anyone\"", "dunlin.toml:4: functions.f.http must be one of anonymous, function, and is 'anyone'"),
        ("[layers.f]\ncode = \".\"", "dunlin.toml:1: 'f' is there already, on line 4; names are of one resource each"),
        ("[fuctions.g]", "dunlin.toml:4: 'fuctions' is unknown; did you mean 'functions'?"),
        ("a = = 1", "dunlin.toml:4: is not TOML: "),
    ] {
        let told = problems("dunlin.toml", &machine("dunlin.toml", &with(text)));
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        // What the parser says about a line is its own.
        let told = if expected.ends_with("TOML: ") { &told[0][..expected.len()] } else { &told[0] };
        assert_eq!(told, expected);
    }
    assert_eq!(
        problems("dunlin.toml", &machine("dunlin.toml", "")),
        ["dunlin.toml: there is nothing to deploy; write a function as [functions.NAME]"]
    );
}

#[test]
fn the_schema_for_editors_is_the_one_that_is_committed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dunlin.schema.json");
    let schema = format!("{:#}\n", own::schema());
    if std::env::var_os("DUNLIN_WRITE_SCHEMA").is_some() {
        std::fs::write(file, &schema).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(committed, schema, "DUNLIN_WRITE_SCHEMA=1 cargo test -p dunlin-project writes it anew");
}

fn planned(project: &Project, name: &str, found: FoundFunction, checksum: &str) -> Vec<plan::Change> {
    let resource = project.resources.iter().find(|resource| resource.name == name).unwrap();
    plan::plan(resource, &Found::Function(Box::new(found)), Some(checksum))
}

/// A function as the API shows one that was made from `f`.
fn shown(f: &dunlin_project::Function, checksum: &str) -> Value {
    let mut shown = json!({
        "functionArn": "acs:fc:r:1:functions/f", "codeChecksum": checksum, "internetAccess": true, "description": "", "timeout": 3,
        "memorySize": 128, "sessionAffinity": "NONE", "instanceIsolationMode": "SHARE", "disableOndemand": false,
    });
    shown.as_object_mut().unwrap().extend(f.config.clone());
    shown["functionName"] = f.name.clone().into();
    shown
}

#[test]
fn a_plan_holds_what_differs_and_nothing_else() {
    let project = toml(
        "[functions.f]\nruntime = \"go1\"\ncode = \".\"\nhttp = \"anonymous\"\ntags = { team = \"a\" }\nenvironment = { A = \"1\" }\nready = 2\nreserved = 4\n",
    );
    let f = function(&project, "f");
    let new = planned(&project, "f", FoundFunction::default(), "1");
    let told: Vec<_> = new.iter().map(|change| (change.verb, change.kind)).collect();
    assert_eq!(told, [(Verb::Add, "function"), (Verb::Add, "trigger"), (Verb::Add, "concurrency"), (Verb::Add, "scaling")]);

    let config = json!({ "authType": "anonymous", "methods": ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] });
    let trigger = |name: &str, config: &Value| json!({ "triggerName": name, "triggerType": "http", "qualifier": "LATEST", "description": "", "triggerConfig": config.to_string() });
    let scaling = json!({
        "functionArn": "acs:fc:r:1:functions/f/LATEST", "minInstances": 2, "currentInstances": 1, "targetInstances": 2,
        "enableOnDemandScaling": true, "horizontalScalingPolicies": [], "scheduledPolicies": [], "currentError": "",
    });
    let same = FoundFunction {
        function: Some(shown(f, "1")),
        triggers: vec![trigger("http", &config)],
        reserved_concurrency: Some(json!(4)),
        keepings: vec![(dunlin_project::KeepingKind::Scaling, "LATEST".into(), scaling)],
        ..FoundFunction::default()
    };
    assert_eq!(planned(&project, "f", same.clone(), "1"), []);

    let mut other = same.clone();
    let function = other.function.as_mut().unwrap();
    function["memorySize"] = 512.into();
    function["environmentVariables"] = json!({ "A": "2", "B": "3" });
    function["tags"] = json!([{ "Key": "old", "Value": "x" }]);
    function["layers"] = json!([{ "arn": "acs:fc:r:1:layers/l/versions/1", "size": 1 }]);
    other.triggers = vec![trigger("web", &config)];
    other.keepings.push((dunlin_project::KeepingKind::AsyncInvoke, "prod".into(), json!({ "maxAsyncRetryAttempts": 1 })));
    let told: Vec<_> = planned(&project, "f", other, "2")
        .iter()
        .map(|change| {
            json!([
                change.kind,
                change.name,
                change.members.iter().map(|member| json!([member.path, member.old, member.new])).collect::<Vec<_>>(),
                change.operation.as_ref().map(|operation| (operation.action, operation.with_code)),
            ])
        })
        .collect();
    let arn = json!(["acs:fc:r:1:layers/l/versions/1"]);
    assert_eq!(
        Value::from(told),
        json!([
            [
                "function",
                "f",
                [
                    ["environmentVariables.A", "2", "1"],
                    ["environmentVariables.B", "3", null],
                    ["layers", arn, []],
                    ["memorySize", 512, 128],
                    ["code", "crc64 1", "crc64 2"],
                ],
                ["UpdateFunction", true]
            ],
            ["tags", "f", [["tags.old", "x", null]], ["UntagResources", false]],
            ["tags", "f", [["tags.team", null, "a"]], ["TagResources", false]],
            ["trigger", "f/web", [], ["DeleteTrigger", false]],
            [
                "trigger",
                "f/http",
                [
                    ["triggerConfig.authType", null, "anonymous"],
                    ["triggerConfig.methods", null, config["methods"]],
                    ["qualifier", null, "LATEST"],
                ],
                ["CreateTrigger", false]
            ],
        ]),
        "an alias that the file does not name keeps its settings"
    );
}

#[test]
fn an_alias_for_the_newest_version_publishes_one_when_the_function_changed() {
    let project = toml("[functions.f]\nruntime = \"go1\"\ncode = \".\"\naliases = { prod = \"newest\" }\n");
    let f = function(&project, "f");
    let kinds = |found: &FoundFunction, checksum: &str| {
        let changes = planned(&project, "f", found.clone(), checksum);
        changes.iter().map(|change| (change.kind, change.operation.is_some())).collect::<Vec<_>>()
    };
    let mut found = FoundFunction { function: Some(shown(f, "1")), ..FoundFunction::default() };
    assert_eq!(kinds(&found, "1"), [("version", true), ("alias", false)]);
    found.newest = Some(("1".into(), shown(f, "1")));
    assert_eq!(kinds(&found, "1"), [("alias", true)]);
    found.aliases = vec![json!({ "aliasName": "prod", "versionId": "1", "description": "" })];
    assert_eq!(kinds(&found, "1"), []);
    assert_eq!(kinds(&found, "2"), [("function", true), ("version", true), ("alias", false)]);
    found.function = Some(shown(f, "2"));
    assert_eq!(kinds(&found, "2"), [("version", true), ("alias", false)], "cut off after the function was changed");
    found.aliases.push(json!({ "aliasName": "gone", "versionId": "1" }));
    found.function = Some(shown(f, "1"));
    assert_eq!(kinds(&found, "1"), [("alias", true)], "an alias that the file has no more");
}

#[test]
fn a_route_is_put_beside_those_of_others_and_taken_away_alone() {
    let text = function_with("      customDomain:\n        domainName: a.example.com\n        route: {path: /f/*}\n");
    let project = yaml(&text);
    let f = function(&project, "f");
    let others = json!({ "path": "/*", "functionName": "g" });
    let found = |routes: Value| FoundFunction {
        function: Some(shown(f, "1")),
        domain: Some(json!({ "domainName": "a.example.com", "protocol": "HTTP", "routeConfig": { "routes": routes } })),
        ..FoundFunction::default()
    };
    let added = planned(&project, "f", found(json!([others])), "1");
    let body = added[0].operation.as_ref().unwrap().body.clone().unwrap();
    let own = json!({ "path": "/f/*", "functionName": "f" });
    assert_eq!(body["routeConfig"]["routes"], json!([others, own]));
    assert_eq!(planned(&project, "f", found(json!([own, others])), "1"), []);
    let removed = |routes: Value| plan::removal(&project.resources[0], &Found::Function(Box::new(found(routes))));
    let change = &removed(json!([own, others]))[0];
    assert_eq!(change.operation.as_ref().unwrap().body.as_ref().unwrap()["routeConfig"]["routes"], json!([others]));
    assert_eq!(removed(json!([own]))[0].operation.as_ref().unwrap().action, "DeleteCustomDomain");
}
