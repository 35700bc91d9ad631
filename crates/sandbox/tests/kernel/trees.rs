//! Unpacking. The unpacker here does what its package says, good and bad, so that what it leaves is judged.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::ExitCode;

use dunlin_model::Digest;
use dunlin_sandbox::spawner::{self, Trades, UnpackJob};
use dunlin_sandbox::{Prepare, Sandboxes, UnpackError, UnpackLimits, UnpackReport};

use crate::parts::{Platform, exec, read_line};

const LIMITS: UnpackLimits = UnpackLimits { bytes: 1 << 20, entries: 100 };

/// The spawner process of these tests.
pub(crate) fn spawner() -> ExitCode {
    match spawner::run(Trades { unpack, wasm: |_| ExitCode::FAILURE }) {
        Ok(code) => code,
        Err(error) => {
            let mut error: Option<&dyn std::error::Error> = Some(&error);
            while let Some(this) = error {
                eprintln!("spawner: {this}");
                error = this.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Does what the package says, one word a line.
fn unpack(job: UnpackJob) -> ExitCode {
    let mut package = String::new();
    File::from(job.package).read_to_string(&mut package).unwrap();
    rustix::process::fchdir(job.out.as_fd()).unwrap();
    let mut answer = format!(r#"{{"ok":true,"bytes":{},"entries":{}}}"#, job.limits.bytes, job.limits.entries);
    let mut code = ExitCode::SUCCESS;
    for word in package.lines() {
        match word {
            "files" => {
                fs::create_dir_all("sub/deeper").unwrap();
                fs::write("sub/plain", "plain").unwrap();
                fs::write("tool", "#!/bin/sh\n").unwrap();
                chmod("tool", 0o4777);
                chmod("sub", 0o700);
                symlink("sub/plain", "link").unwrap();
            }
            "refuse" => {
                answer = r#"{"ok":false,"code":"traversal","reason":"no"}"#.into();
                code = ExitCode::from(1);
            }
            "hardlink" => {
                fs::write("one", "").unwrap();
                fs::hard_link("one", "two").unwrap();
            }
            "deep" => {
                for _ in 0..200 {
                    fs::create_dir("d").unwrap();
                    std::env::set_current_dir("d").unwrap();
                }
            }
            "many" => (0..101).for_each(|n| fs::write(format!("f{n}"), "").unwrap()),
            "abort" => std::process::abort(),
            "outside" => assert!(fs::write("/usr/x", "").is_err() && fs::read_dir("/code/lib").unwrap().next().is_none()),
            other => panic!("{other}"),
        }
    }
    let mut frame = vec![0; 32];
    frame[0] = 18;
    frame.extend(answer.as_bytes());
    File::from(job.report).write_all(&frame).unwrap();
    code
}

fn chmod(path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn package(text: &str) -> (Digest, OwnedFd) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    (Digest::of(text.as_bytes()), file.into())
}

fn unpack_on(platform: &Platform, text: &str) -> Result<UnpackReport, UnpackError> {
    let (digest, file) = package(text);
    platform.wait(platform.client.unpack(digest, file, LIMITS, Prepare::Nothing))
}

pub(crate) fn an_unpacked_tree_is_roots_and_read_only() {
    let platform = Platform::start();
    let text = "outside\nfiles\n";
    let report = unpack_on(&platform, text).unwrap();
    assert_eq!(report, UnpackReport { bytes: LIMITS.bytes, entries: LIMITS.entries, manifest: None, prepared: Some(Vec::new()) });
    let tree = platform.trees().join(Digest::of(text.as_bytes()).to_string());
    let seen = |path: &str| {
        let found = fs::symlink_metadata(tree.join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (0, 0), "{path}");
        format!("{:o}", found.mode())
    };
    assert_eq!(seen(""), "40555");
    assert_eq!(seen("sub"), "40555");
    assert_eq!(seen("sub/deeper"), "40555");
    assert_eq!(seen("sub/plain"), "100444");
    assert_eq!(seen("tool"), "100555");
    assert_eq!(seen("link"), "120777");
    assert_eq!(only_trees(&platform), 1);

    // Again: the tree is left alone, whatever the package says now.
    let before = platform.traces();
    let (digest, _) = package(text);
    let (_, other) = package("refuse");
    platform.wait(platform.client.unpack(digest, other, LIMITS, Prepare::Nothing)).unwrap();
    assert_eq!(platform.traces(), before);

    // All at once, the same bytes: one tree, everyone is told.
    platform.wait(async {
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let client = platform.client.clone();
            let (digest, file) = package("files\noutside\n");
            asked.spawn(async move { client.unpack(digest, file, LIMITS, Prepare::Nothing).await.map(drop) });
        }
        asked.join_all().await.into_iter().collect::<Result<Vec<()>, _>>().unwrap();
    });
    assert_eq!(only_trees(&platform), 2);
    platform.stop();
}

/// How many trees there are; anything else is a failure.
fn only_trees(platform: &Platform) -> usize {
    let names = fs::read_dir(platform.trees()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.inspect(|name| assert!(name.parse::<Digest>().is_ok(), "{name}")).count()
}

pub(crate) fn a_refused_package_leaves_no_tree() {
    let platform = Platform::start();
    let Err(UnpackError::Rejected { code, message }) = unpack_on(&platform, "files\nrefuse") else { panic!() };
    assert_eq!((code.as_str(), message.as_str()), ("traversal", "no"));
    let died = unpack_on(&platform, "files\nabort").unwrap_err();
    assert!(matches!(died, UnpackError::Died(_)), "{died}");
    assert_eq!(only_trees(&platform), 0);
    platform.stop();
}

pub(crate) fn what_no_tree_may_hold_is_not_published() {
    let platform = Platform::start();
    for word in ["hardlink", "deep", "many"] {
        let error = unpack_on(&platform, word).unwrap_err();
        assert!(matches!(error, UnpackError::Failed { step: dunlin_sandbox::Step::Publish, .. }), "{word}: {error:?}");
        assert_eq!(only_trees(&platform), 0, "{word}");
    }
    platform.stop();
}

pub(crate) fn a_discarded_tree_stays_for_those_who_have_it() {
    let platform = Platform::start();
    let code = platform.tree("hello.py", "import time\nprint('up', flush=True)\ninput() if False else time.sleep(1)\nprint(open('/code/hello.py').read(6), flush=True)\ntime.sleep(99)");
    let cell = platform.make();
    platform.bind(&cell, Some(code));
    exec(&cell, &["python3", "/code/hello.py"]);
    assert_eq!(read_line(&cell), "up");
    platform.wait(platform.client.discard_tree(code)).unwrap();
    assert!(!exists(&platform.trees().join(code.to_string())));
    assert_eq!(read_line(&cell), "import");
    platform.end(&cell);
    crate::parts::eventually("its files are removed", || fs::read_dir(platform.trees()).unwrap().next().is_none());
    // Of what is not there, nothing is discarded.
    platform.wait(platform.client.discard_tree(code)).unwrap();
    platform.stop();
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
