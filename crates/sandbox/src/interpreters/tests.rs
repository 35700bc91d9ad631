use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use dunlin_model::{Choice, Wanted};
use tempfile::TempDir;

use super::*;

/// A made-up machine: its programs are shell scripts.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        for directory in ["usr/bin", "home/ann", "root"] {
            std::fs::create_dir_all(machine.path(directory)).unwrap();
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        // The temporary directory itself may be reached through a link.
        self.root.path().canonicalize().unwrap().join(path)
    }

    /// Written by another process: a program that this one has open for writing could not be started meanwhile, nor while
    /// a child that another test forks has a copy of that descriptor.
    fn program(&self, path: &str, script: &str) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "umask 022; cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        path
    }

    fn says(&self, path: &str, version: &str) -> PathBuf {
        self.program(path, &format!("echo '{version}'"))
    }

    fn search(&self) -> Search {
        Search {
            root: self.path(""),
            homes: vec![self.path("root"), self.path("home/ann")],
            named: Vec::new(),
            owner: Some(rustix::process::geteuid().as_raw()),
            patience: Duration::from_secs(30),
        }
    }

    fn with(&self, named: &[&Path]) -> Result<Interpreters, NotAnInterpreter> {
        Search { named: named.iter().map(|path| path.to_path_buf()).collect(), ..self.search() }.run()
    }

    /// What was found, one a line: the program below the root and what is known of it.
    fn found(&self, found: &Interpreters) -> String {
        let root = self.path("");
        let line = |found: &Interpreter| {
            let program = Path::new(&found.program).strip_prefix(&root).unwrap().display();
            match &found.standing {
                Standing::Usable { version } => format!("{program} {version}"),
                Standing::Unfit { version, why } => format!("{program} {version} unfit: {why}"),
                Standing::Broken { why } => format!("{program} broken: {why}"),
            }
        };
        found.all().iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn every_usual_place_is_looked_at_in_order_of_preference() {
    let machine = Machine::new();
    machine.says("usr/bin/python3.11", "Python 3.11.2");
    symlink("python3.11", machine.path("usr/bin/python3")).unwrap();
    machine.says("usr/bin/python3.12", "Python 3.12.9");
    machine.says("usr/bin/python3-config", "Python 9.9.9");
    machine.says("usr/local/bin/node", "v18.20.4");
    machine.says("usr/local/lib/nodejs/node-v22.1.0/bin/node", "v22.1.0");
    machine.program("usr/lib/jvm/java-17/bin/java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2");
    // A Java that writes its version down is not started.
    machine.program("opt/jdk8/bin/java", "exit 1");
    std::fs::write(machine.path("opt/jdk8/release"), "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"1.8.0_392\"\n").unwrap();
    machine.says("opt/php/8.2/bin/php", "PHP 8.2.7-1+deb12u1 (cli) (built: Jun  9 2023)");
    // Of its runtimes, the one that functions run on.
    let runtimes = "Microsoft.AspNetCore.App 3.1.30 [/x]\nMicrosoft.NETCore.App 2.1.30 [/x]\nMicrosoft.NETCore.App 3.1.9 [/x]\n\
                    Microsoft.NETCore.App 3.1.23 [/x]\nMicrosoft.NETCore.App 8.0.1 [/x]";
    machine.says("opt/dotnet/dotnet", runtimes);
    machine.says("usr/share/dotnet/dotnet", "Microsoft.NETCore.App 2.1.30 [/usr/share/dotnet/shared/Microsoft.NETCore.App]");
    machine.says("root/.pyenv/versions/3.9.2/bin/python3", "Python 3.9.2");
    machine.says("root/.pyenv/versions/3.9.18/bin/python3", "Python 3.9.18");
    machine.says("root/.pyenv/versions/2.7.18/bin/python", "Python 2.7.18");
    machine.says("home/ann/.nvm/versions/node/v12.22.0/bin/node", "v12.22.0");
    machine.says("home/ann/.sdkman/candidates/java/21.0.1-tem/bin/java", "");
    std::fs::write(machine.path("home/ann/.sdkman/candidates/java/21.0.1-tem/release"), "JAVA_VERSION=\"21.0.1\"\n").unwrap();
    symlink("21.0.1-tem", machine.path("home/ann/.sdkman/candidates/java/current")).unwrap();
    let found = machine.search().run().unwrap();
    assert_eq!(
        machine.found(&found),
        "usr/bin/python3 3.11.2\n\
         usr/bin/python3.12 3.12.9\n\
         usr/local/bin/node 18.20.4\n\
         usr/local/lib/nodejs/node-v22.1.0/bin/node 22.1.0\n\
         usr/lib/jvm/java-17/bin/java 17.0.15\n\
         usr/share/dotnet/dotnet 2.1.30 unfit: is older than 3.1, the oldest that serves functions\n\
         opt/dotnet/dotnet 3.1.23\n\
         opt/jdk8/bin/java 8.0.0\n\
         opt/php/8.2/bin/php 8.2.7\n\
         root/.pyenv/versions/3.9.18/bin/python3 3.9.18\n\
         root/.pyenv/versions/3.9.2/bin/python3 3.9.2\n\
         root/.pyenv/versions/2.7.18/bin/python 2.7.18 unfit: is older than 3.8, the oldest that serves functions\n\
         home/ann/.nvm/versions/node/v12.22.0/bin/node 12.22.0 unfit: is older than 16, the oldest that serves functions\n\
         home/ann/.sdkman/candidates/java/21.0.1-tem/bin/java 21.0.1"
    );
    let choice = found.choose(Wanted::parse("python3.9").unwrap());
    let chosen = choice.interpreter().and_then(|id| found.get(id)).unwrap();
    assert!(matches!(choice, Choice::Exact(_)) && chosen.usable() == Some(InterpreterVersion::new(3, 9, 18)), "{chosen:?}");
}

#[test]
fn one_that_hangs_or_talks_nonsense_is_broken_and_holds_nobody_up() {
    let machine = Machine::new();
    let marker = machine.path("still-alive");
    machine.says("usr/bin/python3", "Python 3.11.2");
    // A child of its own holds the pipe open, and would write after it was given up.
    let hangs = format!("(sleep 3; echo late > {}) &\nsleep 1000", marker.display());
    machine.program("opt/hangs/bin/python3", &hangs);
    machine.says("opt/nonsense/bin/python3", "hello\u{1b}[31m");
    machine.program("opt/silent/bin/python3", ":");
    machine.program("opt/torrent/bin/python3", "while :; do echo Python; done");
    machine
        .program("opt/lacks/bin/python3", "echo Python 3.10.1; echo \"ModuleNotFoundError: No module named '_ssl'\" >&2; exit 1");
    machine.program("opt/leaves/bin/python3", "sleep 1000 & echo Python 3.10.2");
    machine.says("opt/zero/bin/python3", "Python three");
    let no_program = machine.path("opt/text/bin/python3");
    std::fs::create_dir_all(no_program.parent().unwrap()).unwrap();
    std::fs::write(&no_program, "not a program").unwrap();
    let patience = Duration::from_secs(2);
    let began = Instant::now();
    let found = Search { patience, ..machine.search() }.run().unwrap();
    // The scripts would run a thousand seconds.
    assert!(began.elapsed() < Duration::from_secs(100));
    assert_eq!(
        machine.found(&found),
        "usr/bin/python3 3.11.2\n\
         opt/hangs/bin/python3 broken: did not say its version in time\n\
         opt/lacks/bin/python3 broken: does not work: ModuleNotFoundError: No module named '_ssl' (exit status: 1)\n\
         opt/leaves/bin/python3 3.10.2\n\
         opt/nonsense/bin/python3 broken: said 'hello [31m' when asked for its version\n\
         opt/silent/bin/python3 broken: said '' when asked for its version\n\
         opt/text/bin/python3 broken: cannot be started: Permission denied (os error 13)\n\
         opt/torrent/bin/python3 broken: did not say its version in time\n\
         opt/zero/bin/python3 broken: said 'Python three' when asked for its version"
    );
    assert!(!marker.exists());
}

#[test]
fn what_the_operator_names_comes_first_and_must_serve() {
    let machine = Machine::new();
    machine.says("usr/bin/python3", "Python 3.11.2");
    let program = machine.says("srv/pythons/own/bin/python3.11", "Python 3.11.9");
    let node = machine.says("srv/node/bin/node", "v20.1.0");
    let found = machine.with(&[&program, node.parent().unwrap().parent().unwrap(), &program]).unwrap();
    assert_eq!(
        machine.found(&found),
        "srv/pythons/own/bin/python3.11 3.11.9\nsrv/node/bin/node 20.1.0\nsrv/pythons/own/bin/python3.11 3.11.9\nusr/bin/python3 3.11.2"
    );
    let old = machine.says("srv/old/bin/node", "v8.17.0");
    let nonsense = machine.says("srv/nonsense/bin/java", "?");
    let unknown = machine.says("srv/ruby/bin/ruby", "ruby 3.1");
    for (path, why) in [
        (old.as_path(), "is older than 16, the oldest that serves functions"),
        (&nonsense, "said '?' when asked for its version"),
        (&unknown, "is neither an interpreter"),
        (&machine.path("usr"), ""),
        (&machine.path("srv/ruby"), "is neither an interpreter"),
        (Path::new("/nowhere/python3"), "cannot be found: No such file or directory"),
    ] {
        match machine.with(&[path]) {
            Err(refused) => assert!(refused.why.contains(why) && refused.path == path, "{refused}"),
            Ok(_) => assert!(why.is_empty(), "{} was accepted", path.display()),
        }
    }
}

#[test]
fn what_others_could_change_is_not_started() {
    let machine = Machine::new();
    let started = machine.path("started");
    let program = machine.program("opt/shared/bin/python3", &format!("touch {}; echo Python 3.11.1", started.display()));
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let refusal = |machine: &Machine| match &machine.search().run().unwrap().all()[0].standing {
        Standing::Broken { why } => why.clone(),
        other => panic!("{other:?}"),
    };
    open(&program, 0o757);
    assert_eq!(refusal(&machine), "can be changed by every user, who would be root");
    open(&program, 0o755);
    open(&machine.path("opt/shared"), 0o777);
    assert!(refusal(&machine).ends_with("/opt/shared can)"));
    open(&machine.path("opt/shared"), 0o755);
    // Somebody else's.
    let stranger = Search { owner: None, ..machine.search() }.run().unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&program, Some(4321), None).unwrap();
        assert_eq!(refusal(&machine), "belongs to user 4321, who would be root");
        assert!(started.exists(), "what is root's is started");
    } else {
        assert!(matches!(stranger.all()[0].standing, Standing::Broken { .. }));
        assert!(!started.exists());
    }
}

#[test]
fn a_directory_with_more_than_an_interpreter_is_not_shown_to_functions() {
    let machine = Machine::new();
    for path in ["root/bin/python3", "home/ann/.local/bin/python3", "home/ann/bin/python3", "srv/bin/python3"] {
        let path = machine.says(path, "Python 3.11.1");
        let refused = machine.with(&[&path]).unwrap_err();
        assert!(refused.why.starts_with("is not in a directory of its own"), "{refused}");
    }
    for path in ["tmp/x/bin/python3", "var/tmp/x/bin/python3", "code/x/bin/python3", "w/tmp/x/bin/python3"] {
        let path = machine.says(path, "Python 3.11.1");
        let refused = machine.with(&[&path]).unwrap_err();
        assert!(refused.why.contains("of which functions have their own"), "{refused}");
    }
    let closed = machine.says("srv/closed/bin/python3", "Python 3.11.1");
    std::fs::set_permissions(machine.path("srv/closed"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let refused = machine.with(&[&closed]).unwrap_err();
    assert!(refused.why.contains("chmod -R o+rX"), "{refused}");
}

fn usable(language: Language, program: &str, home: &str, version: InterpreterVersion) -> Interpreter {
    Interpreter { language, program: program.to_owned(), home: home.to_owned(), standing: Standing::Usable { version } }
}

#[test]
fn only_what_is_outside_usr_is_shown_besides_it_and_nothing_twice() {
    let version = InterpreterVersion::new(3, 11, 0);
    let mut all = vec![
        usable(Language::Python, "/usr/bin/python3", "/usr", version),
        usable(Language::Python, "/opt/x/y/bin/python3", "/opt/x/y", version),
        usable(Language::Node, "/opt/x/bin/node", "/opt/x", version),
        usable(Language::Java, "/opt/xy/bin/java", "/opt/xy", version),
    ];
    all.push(Interpreter {
        standing: Standing::Broken { why: "x".into() },
        ..usable(Language::Php, "/srv/p/bin/php", "/srv/p", version)
    });
    assert_eq!(shown(&Interpreters::new(all)), ["/opt/x", "/opt/xy"].map(PathBuf::from));
}

#[test]
fn the_vendors_paths_lead_to_what_serves_the_runtime_of_that_name() {
    let found = Interpreters::new(vec![
        usable(Language::Python, "/nowhere/3.10/bin/python3.10", "/nowhere/3.10", InterpreterVersion::new(3, 10, 1)),
        usable(Language::Python, "/nowhere/3.12/bin/python3.12", "/nowhere/3.12", InterpreterVersion::new(3, 12, 1)),
        usable(Language::Java, "/usr/bin/java", "/usr/lib/jvm/java-17", InterpreterVersion::new(17, 0, 1)),
    ]);
    let links = links(&found);
    let target = |path: &str| {
        let hits: Vec<_> = links.iter().filter(|(link, _)| link == Path::new(path)).collect();
        assert!(hits.len() <= 1, "{path} twice");
        hits.first().map(|(_, target)| target.to_str().unwrap().to_owned())
    };
    for (link, leads_to) in [
        ("var/fc/lang/python3.10/bin/python3", Some("/nowhere/3.10/bin/python3.10")),
        ("var/fc/lang/python3.10/bin/python3.10", Some("/nowhere/3.10/bin/python3.10")),
        ("var/fc/lang/python3.9/bin/python", Some("/nowhere/3.10/bin/python3.10")),
        ("var/fc/lang/python3.11/bin/python3.11", Some("/nowhere/3.12/bin/python3.12")),
        ("var/fc/lang/python3.13/bin/python3", Some("/nowhere/3.12/bin/python3.12")),
        ("var/fc/lang/python3.10/bin/pip3", None),
        ("var/fc/lang/java8", Some("/usr/lib/jvm/java-17")),
        ("var/fc/lang/java21", Some("/usr/lib/jvm/java-17")),
        ("var/fc/lang/nodejs20/bin/node", None),
    ] {
        assert_eq!(target(link).as_deref(), leads_to, "{link}");
    }
}

#[test]
fn a_home_is_read_out_of_the_list_of_users() {
    let passwd =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\nbad:x:1001\nrel:x:1002:1002::home:/bin/sh\n";
    assert_eq!(places::home_of(passwd, 0), Some("/root".into()));
    assert_eq!(places::home_of(passwd, 1000), Some("/home/ann".into()));
    for uid in [1001, 1002, 4] {
        assert_eq!(places::home_of(passwd, uid), None);
    }
}
