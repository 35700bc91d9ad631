//! What a good archive says is what is on disk afterwards.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use dunlin_unpack::{UnpackLimits, pack, run};
use proptest::prelude::*;
use support::{LIMITS, Part, file, folder, link, stored, unpack_in, zip};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn contents_modes_times_and_links_arrive() {
    let dated = file("bin/tool", b"#!/bin/sh\n").with(|part| {
        part.mode = 0o106_755; // setuid and setgid are not kept
        part.extra = [&[0x55, 0x54, 5, 0, 1][..], &1_700_000_000i32.to_le_bytes()].concat();
    });
    let parts = [
        dated,
        stored("plain.txt", b"text"),
        folder("empty/"),
        link("bin/alias", "tool"),
        Part { mode: 0, made_by: 0, ..file("from/dos", b"x") },
    ];
    let work = tempfile::tempdir().unwrap();
    let unpacked = unpack_in(work.path(), &zip(&parts), &LIMITS).unwrap();
    let out = work.path().join("out");
    assert_eq!((unpacked.bytes, unpacked.entries), (10 + 4 + 1, 7));
    assert_eq!(fs::read(out.join("bin/alias")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read_link(out.join("bin/alias")).unwrap(), Path::new("tool"));
    assert_eq!((mode(&out.join("bin/tool")), mode(&out.join("plain.txt")), mode(&out.join("empty"))), (0o555, 0o444, 0o555));
    assert_eq!(mode(&out.join("from/dos")), 0o444);
    assert_eq!(fs::metadata(out.join("bin/tool")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(fs::metadata(out.join("plain.txt")).unwrap().mtime(), 315_532_800);
}

#[test]
fn the_manifest_depends_on_what_is_written_and_on_nothing_else() {
    let manifest = |parts: &[Part]| {
        let work = tempfile::tempdir().unwrap();
        unpack_in(work.path(), &zip(parts), &LIMITS).unwrap().manifest
    };
    let base = manifest(&[file("a", b"1"), file("d/b", b"2")]);
    assert_eq!(base, manifest(&[stored("d/b", b"2").described(true), folder("d/"), file("a", b"1")]));
    for other in [
        vec![file("a", b"1"), file("d/b", b"3")],
        vec![file("a", b"1"), file("d/c", b"2")],
        vec![file("a", b"1"), Part { mode: 0o100_755, ..file("d/b", b"2") }],
        vec![file("a", b"1"), link("d/b", "2")],
        vec![file("a", b"1"), file("d/b", b"2"), folder("e/")],
    ] {
        assert_ne!(base, manifest(&other));
    }
}

fn report_of(bytes: &[u8], prepared: Result<Vec<String>, String>) -> (u8, serde_json::Value) {
    let work = tempfile::tempdir().unwrap();
    let mut zip = tempfile::tempfile().unwrap();
    zip.write_all(bytes).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let out = fs::File::open(work.path()).unwrap();
    let _ = run(OwnedFd::from(zip), out.as_fd(), OwnedFd::from(theirs), &LIMITS, |_| prepared);
    let mut frame = Vec::new();
    ours.read_to_end(&mut frame).unwrap();
    let (header, body) = frame.split_at(32);
    assert_eq!(u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize, body.len());
    assert!(header[1..12].iter().chain(&header[16..]).all(|byte| *byte == 0));
    (header[0], serde_json::from_slice(body).unwrap())
}

#[test]
fn the_report_is_one_end_frame() {
    let (kind, report) = report_of(&zip(&[file("a", b"text")]), Ok(Vec::new()));
    assert_eq!(
        (kind, report["ok"].as_bool(), report["bytes"].as_u64(), report["entries"].as_u64()),
        (18, Some(true), Some(4), Some(1))
    );
    assert_eq!(report["manifest"].as_str().unwrap().len(), 64);
    let (kind, report) = report_of(&zip(&[file("../a", b"text")]), Ok(Vec::new()));
    assert_eq!(kind, 18);
    assert_eq!(
        report,
        serde_json::json!({"ok": false, "code": "traversal", "reason": "entry '../a': its name leads out of the package"})
    );
}

#[test]
fn what_is_done_with_the_files_is_part_of_the_report() {
    let package = zip(&[file("a", b"text")]);
    let (_, report) = report_of(&package, Ok(vec!["a".to_owned()]));
    assert_eq!((report["ok"].as_bool(), &report["prepared"]), (Some(true), &serde_json::json!(["a"])));
    let (_, report) = report_of(&package, Err("it is no use".to_owned()));
    assert_eq!(report, serde_json::json!({"ok": false, "code": "unprepared", "reason": "it is no use"}));
}

#[test]
fn a_packed_folder_unpacks_to_itself_and_packs_to_the_same_bytes() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    fs::create_dir_all(root.join("node_modules/.bin")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("skipped/deep")).unwrap();
    fs::write(root.join("skipped/deep/x"), "x").unwrap();
    fs::write(root.join("index.py"), "def handler(event, context): return event\n".repeat(500)).unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(root.join("ä 中文.txt"), "names").unwrap();
    symlink("../../run.sh", root.join("node_modules/.bin/run")).unwrap();
    let filter = |path: &Path, folder: bool| !(folder && path == Path::new("skipped"));
    let packed = pack(root, filter).unwrap();
    assert_eq!(packed, pack(root, filter).unwrap());
    let work = tempfile::tempdir().unwrap();
    unpack_in(work.path(), &packed, &LIMITS).unwrap();
    let out = work.path().join("out");
    assert_eq!(fs::read(out.join("index.py")).unwrap(), fs::read(root.join("index.py")).unwrap());
    assert_eq!(fs::read(out.join("node_modules/.bin/run")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read(out.join("ä 中文.txt")).unwrap(), b"names");
    assert_eq!((mode(&out.join("run.sh")), out.join("empty").is_dir(), out.join("skipped").exists()), (0o555, true, false));
}

#[test]
fn archives_by_other_tools_are_read() {
    // As a writer that cannot seek makes them.
    let script = r#"
import io, sys, zipfile
class Pipe(io.RawIOBase):
    def writable(self): return True
    def write(self, data): sys.stdout.buffer.write(data); return len(data)
with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("index.py", "x = 1\n" * 1000)
    archive.writestr("pkg/中文.py", "")
    with archive.open("big", "w", force_zip64=True) as out: out.write(b"wide")
"#;
    let made = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let work = tempfile::tempdir().unwrap();
    let unpacked = unpack_in(work.path(), &made.stdout, &LIMITS).unwrap();
    assert_eq!((unpacked.bytes, unpacked.entries), (6004, 4));
}

fn sample() -> Vec<u8> {
    zip(&[
        file("index.py", b"def handler(event, context):\n    return event\n"),
        stored("data.bin", &[7; 300]).described(true),
        folder("d/"),
        file("d/wide", b"wide wide wide").wide(),
        link("d/link", "../index.py"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic_and_never_write_outside(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in proptest::option::weighted(0.1, any::<prop::sample::Index>())) {
        let mut bytes = sample();
        for (index, value) in flips {
            *index.get_mut(&mut bytes[..]) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let work = tempfile::tempdir().unwrap();
        let limits = UnpackLimits { bytes: 1 << 20, entries: 20 };
        if let Ok(unpacked) = unpack_in(work.path(), &bytes, &limits) {
            prop_assert!(unpacked.bytes <= limits.bytes && unpacked.entries <= limits.entries);
        }
    }
}
