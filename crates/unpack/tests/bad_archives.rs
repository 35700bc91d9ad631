//! Every bad archive is refused, for its own reason, and leaves nothing behind outside its folder.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;

use dunlin_unpack::UnpackLimits;
use support::{Frame, LIMITS, Part, deflate, file, folder, framed, link, stored, unpack_in, zip};

/// Unpacks `bytes` and compares the code of the refusal, or `ok`.
fn check(claim: &str, bytes: &[u8], expected: &str) {
    let work = tempfile::tempdir().unwrap();
    let result = unpack_in(work.path(), bytes, &LIMITS);
    let code = match &result {
        Ok(_) => "ok",
        Err(rejected) => rejected.problem.code(),
    };
    assert_eq!(code, expected, "{claim}: {result:?}");
    // Only what decompressing alone can tell is found after the first file was written.
    if !matches!(code, "ok" | "bad_checksum" | "bad_size" | "corrupt") {
        assert_eq!(fs::read_dir(work.path().join("out")).unwrap().count(), 0, "{claim}: wrote before it refused");
    }
}

fn a() -> Part {
    file("a", b"some text")
}

#[test]
fn what_is_not_one_whole_zip_is_refused() {
    let good = zip(&[a(), file("b", b"more")]);
    check("the base of these cases is good", &good, "ok");
    check("nothing", b"", "not_a_zip");
    check("text", b"hello", "not_a_zip");
    check("a long text", &b"hello ".repeat(50_000), "not_a_zip");
    check("no entries", &zip(&[]), "empty");
    check("half", &good[..good.len() / 2], "truncated");
    check("without its last byte", &good[..good.len() - 1], "truncated");
    check("with a byte too many", &[&good[..], b"x"].concat(), "foreign_data");
    check("with another zip behind it", &[&good[..], &good[..]].concat(), "foreign_data");
    check("with a script before it", &[b"#!/bin/sh\n", &good[..]].concat(), "foreign_data");
    let corrected = Frame { before: b"#!/bin/sh\n".to_vec(), ..Frame::default() };
    check("with a script before it that the offsets know of", &framed(&corrected, &[a()]), "foreign_data");
    let gap = Frame { before_directory: b"gap".to_vec(), ..Frame::default() };
    check("with bytes before the directory", &framed(&gap, &[a()]), "foreign_data");
    let gap = Frame { after_directory: b"gap".to_vec(), ..Frame::default() };
    check("with bytes behind the directory", &framed(&gap, &[a()]), "foreign_data");
    check("with bytes between entries", &zip(&[a().with(|part| part.after = b"gap".to_vec()), file("b", b"")]), "foreign_data");
}

#[test]
fn a_comment_is_no_place_for_a_second_archive() {
    let comment = Frame { comment: b"made by hand".to_vec(), ..Frame::default() };
    check("a comment", &framed(&comment, &[a()]), "ok");
    let short = Frame { comment_bytes: Some(3), ..comment.clone() };
    check("a comment longer than it says", &framed(&short, &[a()]), "foreign_data");
    let long = Frame { comment_bytes: Some(300), ..comment };
    check("a comment shorter than it says", &framed(&long, &[a()]), "truncated");
    let end_only = zip(&[]);
    let hidden = Frame { comment: end_only, ..Frame::default() };
    check("an end of an archive in the comment", &framed(&hidden, &[a()]), "foreign_data");
    // The inner archive's offsets are right for the whole file: two readers would see two archives.
    let outer = framed(&Frame::default(), &[a()]).len();
    let inner = Part { offset: Some(u32::try_from(outer).unwrap()), ..file("b", b"evil") };
    let mut hidden = zip(std::slice::from_ref(&inner));
    let directory = u32::try_from(outer + 30 + 1 + inner.data.len()).unwrap();
    let at = hidden.len() - 6;
    hidden[at..at + 4].copy_from_slice(&directory.to_le_bytes());
    let both = Frame { comment: hidden, ..Frame::default() };
    check("a whole archive in the comment", &framed(&both, &[a()]), "foreign_data");
}

#[test]
fn a_directory_that_lies_is_refused() {
    for (claim, frame, expected) in [
        ("more entries than there are", Frame { entries: Some(2), ..Frame::default() }, "bad_directory"),
        ("fewer entries than there are", Frame { entries: Some(0), ..Frame::default() }, "empty"),
        ("a directory too short", Frame { directory_bytes: Some(10), ..Frame::default() }, "foreign_data"),
        ("a directory too long", Frame { directory_bytes: Some(u32::MAX - 1), ..Frame::default() }, "bad_directory"),
        ("a directory beyond the end", Frame { directory: Some(1 << 30), ..Frame::default() }, "bad_directory"),
        ("65,535 entries in nothing", Frame { entries: Some(u16::MAX), ..Frame::default() }, "too_many_entries"),
        ("a good 64-bit end", Frame { end64: Some((1, 0)), ..Frame::default() }, "ok"),
        ("a 64-bit end with other entries", Frame { end64: Some((2, 0)), ..Frame::default() }, "zip64"),
        (
            "a 64-bit end with four billion entries",
            Frame { end64: Some((1 << 32, 0)), entries: Some(u16::MAX), ..Frame::default() },
            "too_many_entries",
        ),
        ("a 64-bit end somewhere else", Frame { end64: Some((1, 1)), ..Frame::default() }, "zip64"),
    ] {
        check(claim, &framed(&frame, &[a()]), expected);
    }
    check(
        "one entry less than there are",
        &framed(&Frame { entries: Some(1), ..Frame::default() }, &[a(), file("b", b"")]),
        "bad_directory",
    );
}

#[test]
fn headers_that_disagree_are_refused() {
    type Change = fn(&mut Part);
    let cases: &[(&str, Change, &str)] = &[
        ("another name", |part| part.local_name = b"b".to_vec(), "header_mismatch"),
        ("another method", |part| part.local_method = 0, "header_mismatch"),
        ("another size", |part| part.local[2] += 1, "header_mismatch"),
        ("another compressed size", |part| part.local[1] += 1, "header_mismatch"),
        ("another checksum", |part| part.local[0] ^= 1, "header_mismatch"),
        ("no sizes and no descriptor", |part| part.local = [0; 3], "header_mismatch"),
        ("a descriptor only here", |part| part.local_flags |= 8, "header_mismatch"),
        ("no local header at all", |part| part.offset = Some(1), "foreign_data"),
        ("encrypted", |part| (part.flags, part.local_flags) = (1, 1), "encrypted"),
        ("strongly encrypted", |part| (part.flags, part.local_flags) = (64, 64), "encrypted"),
        ("encrypted the other way", |part| part.extra = vec![1, 0x99, 0, 0], "encrypted"),
        ("encrypted only here", |part| part.local_flags = 1, "header_mismatch"),
        ("bzip2", |part| (part.method, part.local_method) = (12, 12), "unsupported_compression"),
        ("a 64-bit size that is missing", |part| part.size = u32::MAX, "zip64"),
        ("a compressed size beyond the end", |part| part.compressed += 1000, "header_mismatch"),
        (
            "both sizes beyond the end",
            |part| {
                part.compressed += 1000;
                part.local[1] += 1000;
            },
            "overlap",
        ),
    ];
    for (claim, change, expected) in cases {
        check(claim, &zip(&[a().with(change)]), expected);
    }
    check("64-bit sizes", &zip(&[a().wide()]), "ok");
    let huge = a().wide().with(|part| part.extra[4..12].copy_from_slice(&u64::MAX.to_le_bytes()));
    check("64-bit sizes that are huge", &zip(&[huge]), "too_large");
    let other = a().wide().with(|part| part.extra[12] ^= 1);
    check("64-bit sizes that differ", &zip(&[other]), "header_mismatch");
}

#[test]
fn descriptors_must_agree_with_the_directory() {
    for signed in [true, false] {
        check("a descriptor", &zip(&[a().described(signed), file("b", b"x").described(signed)]), "ok");
        let wrong = a().described(signed).with(|part| *part.after.last_mut().unwrap() ^= 1);
        check("a descriptor with another size", &zip(&[wrong]), "bad_descriptor");
    }
    check("a descriptor that is missing", &zip(&[a().described(true).with(|part| part.after.clear())]), "bad_descriptor");
    check(
        "a descriptor with something behind it",
        &zip(&[a().described(true).with(|part| part.after.push(0))]),
        "bad_descriptor",
    );
}

#[test]
fn entries_cannot_share_bytes() {
    // The kernel of a directory that points a hundred entries at the same data.
    let parts: Vec<_> =
        (0..100).map(|number| file(format!("{number:03}"), &[0; 100_000]).with(|part| part.offset = Some(0))).collect();
    check("many names for one entry", &zip(&parts), "overlap");
    // Quoted overlap: each entry's data swallows the next one's header.
    let inner = zip(&[file("b", b"data")]);
    let header = &inner[..31];
    let outer = stored("a", header).with(|part| part.after = inner[31..31 + deflate(b"data").len()].to_vec());
    let second = file("b", b"data").with(|part| part.offset = Some(31));
    check("an entry within an entry", &zip(&[outer, second]), "overlap");
}

#[test]
fn names_cannot_leave_the_folder() {
    let deep = "d/".repeat(200) + "f";
    let long = "n".repeat(256);
    let cases: &[(&str, &[u8], &str)] = &[
        ("up", b"../evil", "traversal"),
        ("up from below", b"a/../../evil", "traversal"),
        ("up and down", b"a/../b", "traversal"),
        ("up at the end", b"a/..", "traversal"),
        ("up on Windows", b"..\\evil", "bad_name"),
        ("absolute", b"/etc/evil", "bad_name"),
        ("a drive", b"C:/evil", "bad_name"),
        ("a drive without a root", b"c:evil", "bad_name"),
        ("a share", b"\\\\host\\evil", "bad_name"),
        ("here", b"./a", "bad_name"),
        ("here in between", b"a/./b", "bad_name"),
        ("nothing in between", b"a//b", "bad_name"),
        ("nothing at the end", b"a//", "bad_name"),
        ("nothing", b"", "bad_name"),
        ("a slash", b"/", "bad_name"),
        ("NUL", b"a\0b", "bad_name"),
        ("too deep", deep.as_bytes(), "bad_name"),
        ("a component too long", long.as_bytes(), "bad_name"),
        ("64 KiB", &[b'x'; 65_535], "bad_name"),
        ("Unicode and control characters are only odd", "ä\n\u{202e}".as_bytes(), "ok"),
        ("bytes that are not UTF-8 are only odd", b"\xff\xfe", "ok"),
    ];
    for (claim, name, expected) in cases {
        check(claim, &zip(&[file(name, b"x")]), expected);
    }
}

#[test]
fn a_name_means_one_thing() {
    check("twice", &zip(&[a(), a()]), "duplicate");
    check("twice in other case", &zip(&[a(), file("A", b"")]), "duplicate");
    check("folders in other case", &zip(&[file("d/a", b""), file("D/b", b"")]), "duplicate");
    check("other case beyond ASCII", &zip(&[file("ä", b""), file("Ä", b"")]), "duplicate");
    check("file, then folder", &zip(&[a(), file("a/b", b"")]), "conflict");
    check("folder, then file", &zip(&[file("a/b", b""), a()]), "conflict");
    check("file and empty folder", &zip(&[a(), folder("a/")]), "conflict");
    check("file and link", &zip(&[a(), link("a", "b")]), "duplicate");
    check("a folder twice", &zip(&[folder("d/"), folder("d/")]), "duplicate");
    check("a folder said after its contents", &zip(&[file("d/a", b""), folder("d/")]), "ok");
    check("a folder with contents of its own", &zip(&[Part { mode: 0o040_755, ..file("d/", b"x") }]), "bad_kind");
    check("a folder without a slash", &zip(&[folder("d")]), "bad_kind");
    check("a file with a slash", &zip(&[file("d/", b"")]), "bad_kind");
}

#[test]
fn only_files_folders_and_links_are_made() {
    for (claim, kind) in [
        ("fifo", 0o010_000),
        ("character device", 0o020_000),
        ("block device", 0o060_000),
        ("socket", 0o140_000),
        ("nonsense", 0o170_000),
    ] {
        check(claim, &zip(&[Part { mode: kind | 0o644, ..file("x", b"") }]), "special_file");
    }
    let hard = a().with(|part| {
        part.extra = [&[0x0d, 0, 18, 0][..], &[0; 12], b"passwd"].concat();
    });
    check("hard link", &zip(&[hard]), "hard_link");
}

#[test]
fn links_stay_inside() {
    for (claim, parts, expected) in [
        ("beside", vec![link("l", "a"), a()], "ok"),
        (
            "as npm makes them",
            vec![link("node_modules/.bin/tool", "../tool/cli.js"), file("node_modules/tool/cli.js", b"")],
            "ok",
        ),
        ("to what is not there", vec![link("l", "missing/../also/missing")], "ok"),
        ("to the root itself", vec![link("d/l", "..")], "ok"),
        ("absolute", vec![link("l", "/etc/passwd")], "link_out"),
        ("up", vec![link("l", "../x")], "link_out"),
        ("up from below", vec![link("d/l", "../../x")], "link_out"),
        ("up through what is not there", vec![link("l", "x/../../y")], "link_out"),
        ("up through another link", vec![link("d/e/up", "../.."), link("d/e/l", "up/../x")], "link_out"),
        ("in a circle", vec![link("l", "m"), link("m", "l")], "bad_link"),
        ("to nothing", vec![link("l", "")], "bad_link"),
        ("with a NUL", vec![link("l", "a\0b")], "bad_link"),
        ("too long", vec![link("l", &"x/".repeat(3000))], "bad_link"),
        ("then a file through it", vec![link("l", "d"), file("d/x", b""), file("l/y", b"")], "conflict"),
        ("then a file through it, the link last", vec![file("l/y", b""), link("l", "d")], "conflict"),
        ("that look like folders", vec![Part { name: b"l/".to_vec(), local_name: b"l/".to_vec(), ..link("l", "a") }], "bad_kind"),
    ] {
        check(claim, &zip(&parts), expected);
    }
}

#[test]
fn contents_are_what_was_declared() {
    let wrong_crc = |part: &mut Part| {
        part.crc ^= 1;
        part.local[0] ^= 1;
    };
    check("another checksum", &zip(&[a().with(wrong_crc)]), "bad_checksum");
    check("another checksum, stored", &zip(&[stored("a", b"text").with(wrong_crc)]), "bad_checksum");
    check(
        "longer than declared",
        &zip(&[a().with(|part| {
            part.size -= 1;
            part.local[2] -= 1;
        })]),
        "bad_size",
    );
    check(
        "shorter than declared",
        &zip(&[a().with(|part| {
            part.size += 1;
            part.local[2] += 1;
        })]),
        "bad_size",
    );
    check(
        "stored with two sizes",
        &zip(&[stored("a", b"text").with(|part| {
            part.size += 1;
            part.local[2] += 1;
        })]),
        "bad_size",
    );
    check("garbage", &zip(&[a().with(|part| part.data.fill(0xff))]), "corrupt");
    let trailing = a().with(|part| {
        part.data.push(0);
        part.compressed += 1;
        part.local[1] += 1;
    });
    check("bytes behind the end of the stream", &zip(&[trailing]), "corrupt");
    let cut = a().with(|part| {
        part.data.pop();
        part.compressed -= 1;
        part.local[1] -= 1;
    });
    check("a stream without its end", &zip(&[cut]), "corrupt");
}

#[test]
fn bombs_are_refused_before_they_are_written() {
    let zeros = vec![0; 40 << 20];
    let honest = zip(&[file("zeros", &zeros)]);
    check("1000 : 1", &honest, "bomb");
    let lie = file("zeros", &zeros).with(|part| (part.size, part.local[2]) = (10, 10));
    check("1000 : 1 that says it is small", &zip(&[lie]), "bad_size");
    let many: Vec<_> = (0..20)
        .map(|number| {
            stored(format!("{number}"), b"").with(|part| {
                (part.method, part.local_method) = (8, 8);
                (part.size, part.local[2]) = (u32::MAX - 1, u32::MAX - 1);
            })
        })
        .collect();
    check("a sum beyond the limit", &zip(&many), "too_large");
    let parts: Vec<_> = (0..=LIMITS.entries).map(|number| stored(format!("{number}"), b"")).collect();
    check("an entry too many", &zip(&parts), "too_many_entries");
    let parts: Vec<_> =
        (0..20).map(|number| stored(format!("{number}/{}", "d/".repeat(100)), b"").with(|part| part.mode = 0o040_755)).collect();
    check("implied folders count as well", &zip(&parts), "too_many_entries");
}

#[test]
fn a_zip_within_a_zip_is_a_file() {
    let inner = zip(&[file("../evil", b"x")]);
    check("nested", &zip(&[stored("inner.zip", &inner)]), "ok");
}

#[test]
fn the_reason_names_the_entry_and_stays_short() {
    let work = tempfile::tempdir().unwrap();
    let refusal = unpack_in(work.path(), &zip(&[file("ok", b""), file("d/../x\n\x1b[31m", b"x")]), &LIMITS).unwrap_err();
    assert_eq!(refusal.to_string(), r"entry 'd/../x\n\x1b[31m': its name leads out of the package");
    let work = tempfile::tempdir().unwrap();
    let refusal = unpack_in(work.path(), &zip(&[file([b'x'; 60_000], b"")]), &LIMITS).unwrap_err();
    assert!(refusal.to_string().len() < 300);
}

#[test]
fn the_limit_of_bytes_is_exact() {
    let limits = UnpackLimits { bytes: 9, entries: 1 };
    for (contents, good) in [(&b"123456789"[..], true), (b"1234567890", false)] {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(unpack_in(work.path(), &zip(&[stored("a", contents)]), &limits).is_ok(), good);
    }
}
