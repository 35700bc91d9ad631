//! Projects: what `dunlin plan`, `deploy` and `remove` make of files, on a platform.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunlin_testkit::{Platform, Response};
use serde_json::Value;

/// A folder with a project in it.
struct Project {
    folder: tempfile::TempDir,
    file: &'static str,
}

/// What a run of the command line left.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Project {
    fn new(file: &'static str, files: &[(&str, &str)]) -> Result<Self> {
        let project = Self { folder: tempfile::tempdir()?, file };
        files.iter().try_for_each(|(name, text)| project.write(name, text))?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(fs::write(path, text)?)
    }

    fn replace(&self, old: &str, new: &str) -> Result<()> {
        let text = fs::read_to_string(self.path(self.file))?;
        ensure!(text.contains(old), "{old} is in the file");
        self.write(self.file, &text.replace(old, new))
    }

    fn run(&self, platform: &Platform, command: &str, more: &[&str]) -> Result<Ran> {
        let file = self.path(self.file).display().to_string();
        let args: Vec<&str> = [command, "-f", &file].into_iter().chain(more.iter().copied()).collect();
        let ran = platform.cli(&args)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { code: ran.status.code(), out: text(&ran.stdout), err: text(&ran.stderr) })
    }

    fn succeeds(&self, platform: &Platform, command: &str, more: &[&str]) -> Result<Ran> {
        let ran = self.run(platform, command, more)?;
        ensure!(ran.code == Some(0), "{command} {more:?} ended with {:?}: {}{}", ran.code, ran.out, ran.err);
        Ok(ran)
    }

    /// The headings of what a plan holds.
    fn plan(&self, platform: &Platform) -> Result<Vec<String>> {
        let ran = self.run(platform, "plan", &["--json"])?;
        let plan: Value = serde_json::from_str(&ran.out).with_context(|| format!("{}{}", ran.out, ran.err))?;
        let changes = plan["changes"].as_array().context("changes")?;
        ensure!(ran.code == Some(if changes.is_empty() { 0 } else { 2 }), "plan ended with {:?}", ran.code);
        let word = |change: &Value, member: &str| change[member].as_str().unwrap_or("?").to_owned();
        Ok(changes.iter().map(|change| ["verb", "kind", "name"].map(|member| word(change, member)).join(" ")).collect())
    }

    /// Deploys, and sees that nothing is left to do: not for a plan, and not for another deployment.
    fn converges(&self, platform: &Platform) -> Result<Ran> {
        let deployed = self.succeeds(platform, "deploy", &[])?;
        let left = self.plan(platform)?;
        ensure!(left.is_empty(), "left after {}{}: {left:?}", deployed.out, deployed.err);
        let again = self.succeeds(platform, "deploy", &["--json"])?;
        let again: Value = serde_json::from_str(&again.out)?;
        let idle = again.as_array().context("a list")?.iter().all(|resource| resource["changes"] == Value::Array(Vec::new()));
        ensure!(idle, "a second deployment did {again:#}");
        Ok(deployed)
    }
}

fn answer(platform: &Platform, name: &str) -> Result<String> {
    let reply = platform.api.invoke(name, b"")?;
    ensure!(reply.status == 200 && reply.header("x-fc-error-type").is_none(), "{name}: {}", reply.text());
    Ok(reply.text())
}

fn get(platform: &Platform, path: &str, action: &str) -> Result<Response> {
    platform.api.send("GET", &format!("/2023-03-30{path}"), action, &[], b"")
}

fn count(platform: &Platform, path: &str, action: &str, member: &str) -> Result<usize> {
    let reply = get(platform, path, action)?;
    ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.text());
    Ok(reply.json()?[member].as_array().map_or(0, Vec::len))
}

fn is_bare(platform: &Platform) -> Result<bool> {
    Ok(count(platform, "/functions", "ListFunctions", "functions")? == 0
        && count(platform, "/custom-domains", "ListCustomDomains", "customDomains")? == 0
        && count(platform, "/layers", "ListLayers", "layers")? == 0)
}

const SERVERLESS: &str = "\
edition: 3.0.0
name: shop
access: default
vars:
  region: cn-hangzhou
resources:
  front:
    component: fc3
    actions:
      pre-deploy:
        - run: echo \"GREETING = 'built'\" > built.py
          path: ./front
    props:
      region: ${vars.region}
      functionName: front
      runtime: python3.10
      handler: index.handler
      code: ./front
      memorySize: 256
      timeout: 10
      environmentVariables:
        BACK: ${resources.back.output.functionArn}
        SECRET: hunter2
      tags:
        - key: team
          value: shop
      triggers:
        - triggerName: web
          triggerType: http
          triggerConfig:
            authType: anonymous
            methods: [GET, POST]
      asyncInvokeConfig:
        maxAsyncRetryAttempts: 2
      concurrencyConfig:
        reservedConcurrency: 5
      customDomain:
        domainName: shop.example.com
        protocol: HTTP
        route:
          path: /shop/*
  back:
    component: fc3
    props:
      region: ${vars.region}
      functionName: back
      runtime: python3.10
      handler: index.handler
      code: ./back
  site:
    component: fc3-domain
    props:
      region: ${vars.region}
      domainName: www.example.com
      protocol: HTTP
      routeConfig:
        routes:
          - path: /*
            functionName: ${resources.front.output.functionName}
";

const FRONT: &str =
    "import os\nfrom built import GREETING\ndef handler(event, context):\n    return GREETING + ' ' + os.environ['BACK']\n";

#[test]
fn a_project_of_serverless_devs_is_deployed_changed_and_removed() -> Result<()> {
    let platform = Platform::fresh()?;
    let back = "def handler(event, context):\n    return 'back'\n";
    let project = Project::new("s.yaml", &[("s.yaml", SERVERLESS), ("front/index.py", FRONT), ("back/index.py", back)])?;
    let all = [
        "add function back",
        "add function front",
        "add trigger front/web",
        "add concurrency front",
        "add async front/LATEST",
        "add domain shop.example.com",
        "add domain www.example.com",
    ];
    ensure!(project.plan(&platform)? == all, "{:?}", project.plan(&platform)?);
    ensure!(is_bare(&platform)?, "a plan does nothing");
    let deployed = project.converges(&platform)?;
    ensure!(deployed.err.contains("running in") && deployed.err.contains("echo \"GREETING"), "{}", deployed.err);
    ensure!(deployed.out.contains("http://web-front-") && deployed.out.contains("http://www.example.com/"), "{}", deployed.out);
    let said = answer(&platform, "front")?;
    ensure!(said.starts_with("built acs:fc:") && said.ends_with(":functions/back"), "{said}");

    // Somebody else changes what the file says, and the file says something new.
    let patch = serde_json::json!({ "description": "by hand" });
    ensure!(platform.api.json("PUT", "/functions/back", "UpdateFunction", &patch)?.status == 200, "changed");
    project.replace("timeout: 10", "timeout: 20")?;
    project.replace("SECRET: hunter2", "SECRET: hunter3")?;
    project.replace("triggerName: web", "triggerName: http")?;
    project.replace("value: shop", "value: stores")?;
    project.replace("      concurrencyConfig:\n        reservedConcurrency: 5\n", "")?;
    let changes = [
        "change function back",
        "change function front",
        "change tags front",
        "remove trigger front/web",
        "add trigger front/http",
        "remove concurrency front",
    ];
    ensure!(project.plan(&platform)? == changes, "{:?}", project.plan(&platform)?);
    let shown = project.run(&platform, "plan", &[])?;
    ensure!(shown.code == Some(2) && shown.out.contains("    timeout: 10 -> 20\n"), "{}", shown.out);
    ensure!(shown.out.contains("environmentVariables.SECRET: *** -> ***") && !shown.out.contains("hunter"), "{}", shown.out);
    let told = project.run(&platform, "plan", &["--show-values"])?;
    ensure!(told.out.contains("environmentVariables.SECRET: hunter2 -> hunter3"), "{}", told.out);
    project.converges(&platform)?;
    project.write("back/index.py", "def handler(event, context):\n    return 'new'\n")?;
    ensure!(project.plan(&platform)? == ["change function back"], "{:?}", project.plan(&platform)?);
    project.converges(&platform)?;
    ensure!(answer(&platform, "back")? == "new", "the new code answers");

    let refused = project.run(&platform, "remove", &[])?;
    ensure!(refused.code == Some(64) && refused.err.contains("--yes"), "{}", refused.err);
    ensure!(!is_bare(&platform)?, "nobody was asked, so nothing is gone");
    project.succeeds(&platform, "remove", &["--yes"])?;
    ensure!(is_bare(&platform)?, "nothing is left");
    let again = project.succeeds(&platform, "remove", &["--yes"])?;
    ensure!(again.err.contains("there is nothing of the project"), "{}", again.err);
    Ok(())
}

const OWN: &str = "\
name = \"shop\"

[layers.words]
code = \"./words\"

[functions.shop]
name = \"the-shop\"
runtime = \"python3.10\"
handler = \"index.handler\"
code = \"./shop\"
memory = 256
layers = [\"words\"]
environment = { PYTHONPATH = \"/opt\" }
http = \"anonymous\"
ready = 1

[functions.shop.aliases]
prod = \"newest\"

[domains.\"shop.example.com\".routes]
\"/*\" = { function = \"shop\", qualifier = \"prod\" }
";

const SHOP: &str = "import words\ndef handler(event, context):\n    return words.HELLO\n";

#[test]
fn a_project_in_our_own_format_is_deployed_changed_and_removed() -> Result<()> {
    let platform = Platform::fresh()?;
    let files = [("dunlin.toml", OWN), ("shop/index.py", SHOP), ("words/words.py", "HELLO = 'one'\n")];
    let project = Project::new("dunlin.toml", &files)?;
    project.converges(&platform)?;
    ensure!(answer(&platform, "the-shop")? == "one", "through the layer");
    let alias = || -> Result<Value> { get(&platform, "/functions/the-shop/aliases/prod", "GetAlias")?.json() };
    ensure!(alias()?["versionId"] == "1", "{}", alias()?);

    // A new layer is another one for the function, which is another version then.
    project.write("words/words.py", "HELLO = 'two'\n")?;
    project.converges(&platform)?;
    ensure!(answer(&platform, "the-shop")? == "two", "through the new layer");
    ensure!(alias()?["versionId"] == "2", "{}", alias()?);
    project.replace("http = \"anonymous\"\nready = 1\n", "")?;
    project.replace("prod = \"newest\"", "prod = 1\nnext = \"newest\"")?;
    project.converges(&platform)?;
    ensure!(alias()?["versionId"] == "1", "{}", alias()?);
    project.succeeds(&platform, "remove", &["--yes"])?;
    ensure!(is_bare(&platform)?, "nothing is left");
    Ok(())
}

#[test]
fn a_deployment_that_was_cut_off_goes_on_where_it_was() -> Result<()> {
    let platform = Platform::fresh()?;
    // Once the layer is there, the command line dies.
    let own = OWN.replace("memory = 256\n", "memory = 256\nbuild = \"test ! -e die || kill -9 $PPID\"\n");
    let files = [("dunlin.toml", own.as_str()), ("shop/index.py", SHOP), ("words/words.py", "HELLO = 'one'\n"), ("die", "")];
    let project = Project::new("dunlin.toml", &files)?;
    let killed = project.run(&platform, "deploy", &[])?;
    ensure!(killed.code.is_none(), "it died: {}{}", killed.out, killed.err);
    ensure!(count(&platform, "/layers", "ListLayers", "layers")? == 1, "the first step was done");
    ensure!(count(&platform, "/functions", "ListFunctions", "functions")? == 0, "and no other");
    fs::remove_file(project.path("die"))?;
    let deployed = project.converges(&platform)?;
    ensure!(!deployed.err.contains("added layer"), "what was done is not done again: {}", deployed.err);
    ensure!(answer(&platform, "the-shop")? == "one", "it answers");
    Ok(())
}

#[test]
fn what_the_platform_cannot_do_ends_a_deployment_with_its_name() -> Result<()> {
    let platform = Platform::fresh()?;
    let text = "[functions.f]\nruntime = \"python3.10\"\ncode = \"./f\"\nhandler = \"index.handler\"\nmemory = 100\n";
    let project = Project::new("dunlin.toml", &[("dunlin.toml", text), ("f/index.py", "def handler(e, c):\n    return 'f'\n")])?;
    let failed = project.run(&platform, "deploy", &[])?;
    ensure!(failed.code == Some(1) && failed.err.contains("cannot add function 'f': memorySize"), "{}", failed.err);
    project.replace("memory = 100", "memroy = 128")?;
    let failed = project.run(&platform, "deploy", &[])?;
    ensure!(failed.code == Some(64) && failed.err.contains("dunlin.toml:5: 'memroy' is unknown"), "{}", failed.err);
    project.replace("memroy = 128", "memory = 128")?;
    project.replace("./f", "./g")?;
    let failed = project.run(&platform, "deploy", &[])?;
    ensure!(failed.err.contains("cannot pack") && failed.err.contains("/./g"), "{}", failed.err);
    ensure!(is_bare(&platform)?, "nothing was made");
    Ok(())
}
