//! What the launcher is told to become.

use dunlin_model::{CustomRuntimeConfig, ImageUse, ImageUser, Language};

use crate::context::{self, CODE_PATH};
use crate::guest::LoadSpec;

/// An `Exec` frame's head and body.
pub(crate) struct Program {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// How exec failed, read from the launcher's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecFailure {
    NotFound,
    Permission,
    Other,
}

impl ExecFailure {
    /// Reads `<errno> <message>`.
    pub(crate) fn parse(report: &str) -> Self {
        match report.split(' ').next().and_then(|errno| errno.parse::<i32>().ok()) {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::NotFound,
            Some(libc::EACCES | libc::EPERM) => Self::Permission,
            _ => Self::Other,
        }
    }
}

/// The bootstrap of a language that is spoken with in frames and does not come out of a zygote, run by `interpreter`.
///
/// # Panics
/// For a language without such a bootstrap; `pool`'s classes name none.
pub(crate) fn bootstrap(language: Language, interpreter: &str, memory_mb: u32) -> Program {
    match language {
        Language::Node => node(interpreter, memory_mb),
        Language::Java => java(interpreter, memory_mb),
        Language::Php => php(interpreter),
        Language::Dotnet => dotnet(interpreter),
        other => unreachable!("{other:?} has no bootstrap to start"),
    }
}

/// Node's bootstrap, with a heap that leaves room in an instance of `memory_mb` for what is not the heap.
///
/// The limit is fixed when Node starts, before anybody knows which function it will serve; V8 without one sizes its
/// heap by the machine and is killed for garbage it would have collected. Nothing of the platform's environment goes
/// in: `NODE_EXTRA_CA_CERTS` alone would triple the time to start.
fn node(interpreter: &str, memory_mb: u32) -> Program {
    // Node itself takes about 45 MB, which weighs most in the small classes.
    let old_space_mb = (memory_mb * 3 / 4).min(memory_mb.saturating_sub(48)).max(64);
    let old_space = format!("--max-old-space-size={old_space_mb}");
    program(
        "/",
        &[interpreter, &old_space, "/rt/node/bootstrap.js"],
        [
            ("HOME".to_owned(), "/tmp".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            // Where native libraries of the user's look for each other; the linker reads it once, when a process starts.
            ("LD_LIBRARY_PATH".to_owned(), context::LIBRARY_PATH.to_owned()),
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ],
    )
}

/// What every Java starts with, beside its largest heap. Words a Java does not know are passed over.
///
/// - One thread collects garbage and one compiles: an instance has a small part of a CPU as a rule, and a start matters more
///   than the last bit of speed. The heap begins small, and what is free goes back early.
/// - The archive of the platform's classes is mapped where it was made for. Moved, as is the default since Java 17, each
///   cell would write to 10 MB of it; what is given up is that its address cannot be foreseen.
/// - The walls hide what container support looks for, and nobody reads the file of performance data.
const JAVA_FLAGS: [&str; 14] = [
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=20",
    "-XX:NewSize=2m",
    "-Xms16m",
    "-Xshare:auto",
    "-XX:ArchiveRelocationMode=0",
    "-XX:-UsePerfData",
    "-XX:-UseContainerSupport",
    "-Dfile.encoding=UTF-8",
    "-Duser.timezone=UTC",
];

/// Java's bootstrap.
///
/// The largest heap is fixed at the start, as Node's is, but a small heap inside a large limit collects its garbage all
/// the same: one class serves all functions of up to 2 GB, and one that keeps more than its memory is ended by its
/// cgroup, which says why. Only above does `memory_mb` matter.
fn java(interpreter: &str, memory_mb: u32) -> Program {
    let heap = format!("-Xmx{}m", (memory_mb / 4 * 3).max(2048));
    let arguments: Vec<&str> =
        [interpreter].into_iter().chain(JAVA_FLAGS).chain([&*heap, "-jar", "/rt/java/dunlin.jar"]).collect();
    let own = [
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        // Where native libraries of the user's look for each other; the linker reads it once, when a process starts.
        ("LD_LIBRARY_PATH", context::LIBRARY_PATH),
        // Every thread would have a heap of its own in the C library.
        ("MALLOC_ARENA_MAX", "1"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    // Java remembers the name of the directory it was started in.
    program(CODE_PATH, &arguments, own.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

/// PHP's bootstrap. Its settings are a file of ours, and its extensions those that the machine has for the command line.
///
/// It has no heap of its own to size: what it keeps beyond an instance's memory is ended by the cgroup, which says why.
fn php(interpreter: &str) -> Program {
    let own = [
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        // Where native libraries of the user's look for each other; the linker reads it once, when a process starts.
        ("LD_LIBRARY_PATH", context::LIBRARY_PATH),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    program("/", &[interpreter, "-c", "/rt/php/php.ini", "/rt/php/bootstrap.php"], own)
}

/// .NET's bootstrap; how its garbage collector works stands beside it, in `dunlin.runtimeconfig.json`.
///
/// - Debuggers are not listened for: that takes pipes and sockets in `/tmp`, and another thread.
/// - New objects fill 16 MiB, written in hexadecimal, before garbage is collected. By itself .NET takes that from the size of
///   the CPU's caches, which may be more than an instance has.
/// - Like Java's, its heap is limited by the instance's cgroup alone.
/// - .NET up to version 5 finds the OpenSSL it knows in a library beside the bootstrap.
fn dotnet(interpreter: &str) -> Program {
    let libraries = format!("{}:/rt/dotnet", context::LIBRARY_PATH);
    let own = [
        ("CLR_OPENSSL_VERSION_OVERRIDE", "dunlin"),
        ("COMPlus_EnableDiagnostics", "0"),
        ("COMPlus_GCgen0size", "1000000"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        // Where native libraries of the user's look for each other; the linker reads it once, when a process starts.
        ("LD_LIBRARY_PATH", &*libraries),
        // Every thread would have a heap of its own in the C library.
        ("MALLOC_ARENA_MAX", "1"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    program("/", &[interpreter, "/rt/dotnet/dunlin.dll"], own)
}

/// The user's own server: `command` and `args`, or `/code/bootstrap` (contract section 8.1).
/// It is told where the runtime API is, should it rather fetch its calls.
pub(crate) fn custom(spec: &LoadSpec, api: &str) -> Program {
    if let Some(image) = &spec.function.config.image {
        return container(spec, image, api);
    }
    let given = spec.function.config.custom_runtime_config.as_ref();
    let part = |of: fn(&CustomRuntimeConfig) -> &Option<Vec<String>>| {
        given.and_then(|custom| of(custom).as_deref()).unwrap_or_default().iter().map(String::as_str)
    };
    let mut arguments: Vec<&str> = part(|custom| &custom.command).collect();
    if arguments.is_empty() {
        arguments.push("/code/bootstrap");
    }
    arguments.extend(part(|custom| &custom.args));
    with_api(spec, &arguments, [("FC_RUNTIME_API", api.to_owned())])
}

/// The program of an image. In front of all is as whom it runs, for a launcher that waits in a container.
fn container(spec: &LoadSpec, image: &ImageUse, api: &str) -> Program {
    // Checked when it was stored.
    let container = spec.function.config.container().unwrap_or_default();
    let ImageUser { uid, gid, groups } = &image.config.user;
    let mut user = format!("{uid}:{gid}");
    groups.iter().for_each(|group| user.push_str(&format!(":{group}")));
    let mut environment = context::environment(spec);
    environment.insert("FC_RUNTIME_API", api.to_owned());
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value));
    let Program { head, body } = program(&image.config.working_dir, &container.arguments(&image.config), environment);
    Program { head: [user.as_bytes(), b"\0", &head].concat(), body }
}

/// A program that fetches its calls: for Go the file the handler names, else `bootstrap`.
pub(crate) fn fetching(spec: &LoadSpec, api: &str) -> Program {
    let config = &spec.function.config;
    if config.runtime.language() == Language::Go {
        return with_api(spec, &[&format!("{CODE_PATH}/{}", config.handler)], [("FC_RUNTIME_API", api.to_owned())]);
    }
    with_api(spec, &["/code/bootstrap"], context::lambda_environment(spec, api))
}

fn with_api<const N: usize>(spec: &LoadSpec, arguments: &[&str], api: [(&'static str, String); N]) -> Program {
    let mut environment = context::environment(spec);
    environment.extend(api);
    program(CODE_PATH, arguments, environment.into_iter().map(|(name, value)| (name.to_owned(), value)))
}

/// Strings end at a NUL on the wire, so one inside an argument ends that argument, as it would in exec.
fn program(cwd: &str, arguments: &[&str], environment: impl IntoIterator<Item = (String, String)>) -> Program {
    let terminated = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend(text.bytes().take_while(|byte| *byte != 0));
        bytes.push(0);
    };
    let (mut head, mut body) = (Vec::new(), Vec::new());
    terminated(&mut head, cwd);
    arguments.iter().for_each(|argument| terminated(&mut head, argument));
    for (name, value) in environment {
        terminated(&mut body, &format!("{name}={value}"));
    }
    Program { head, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_the_launcher_is_told_apart_by_its_errno() {
        assert_eq!(ExecFailure::parse("2 No such file or directory"), ExecFailure::NotFound);
        assert_eq!(ExecFailure::parse("13 Permission denied"), ExecFailure::Permission);
        assert_eq!(ExecFailure::parse("8 Exec format error"), ExecFailure::Other);
        assert_eq!(ExecFailure::parse("what"), ExecFailure::Other);
    }

    #[test]
    fn node_gets_a_heap_below_its_memory_class_and_little_environment() {
        let text = |memory| String::from_utf8(node("/usr/bin/node", memory).head).unwrap().replace('\0', " ");
        assert_eq!(text(128), "/ /usr/bin/node --max-old-space-size=80 /rt/node/bootstrap.js ");
        assert_eq!(text(1024), "/ /usr/bin/node --max-old-space-size=768 /rt/node/bootstrap.js ");
        assert_eq!(node("node", 128).body.split(|byte| *byte == 0).count(), 5);
    }

    #[test]
    fn java_has_one_heap_for_all_but_the_largest_functions() {
        let text = |memory| String::from_utf8(java("/usr/bin/java", memory).head).unwrap().replace('\0', " ");
        assert!(text(0).starts_with("/code /usr/bin/java -XX:") && text(0).ends_with(" -Xmx2048m -jar /rt/java/dunlin.jar "));
        assert!(text(8192).contains(" -Xmx6144m "));
    }

    #[test]
    fn an_argument_ends_at_its_first_nul() {
        let made = program("/code", &["a\0b", ""], [("A".to_owned(), "x=y\0z".to_owned())]);
        assert_eq!((&made.head[..], &made.body[..]), (&b"/code\0a\0\0"[..], &b"A=x=y\0"[..]));
    }
}
