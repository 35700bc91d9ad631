//! Zips that are not what they should be.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use dunlin_testkit::Platform;
use serde_json::json;

use crate::{absent, create, no_layer, publish, refused};

/// More than the platform unpacks.
const BOMB_MIB: u64 = 1100;

/// Everything the platform keeps of packages.
pub(crate) fn kept(platform: &Platform) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut folders = vec![platform.data.join("trees"), platform.data.join("state/blobs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_tree = entry.path().parent().is_some_and(|parent| parent.ends_with("trees"));
            if entry.path().is_dir() && !is_tree {
                folders.push(entry.path());
            } else {
                all.insert(entry.path().display().to_string());
            }
        }
    }
    all
}

/// A zip whose entries have exactly these names, modes and contents.
fn zip_with(entries: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, bytes) in entries {
        archive.start_file(*name, zip::write::SimpleFileOptions::default().unix_permissions(*mode))?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Replaces every `from` by `to` of the same length, in local and central headers alike.
fn renamed(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for start in 0..=bytes.len().saturating_sub(from.len()) {
        if bytes[start..].starts_with(from) {
            bytes[start..start + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

pub(crate) fn hostile_packages_are_refused_whole(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let good = zip_with(&[("index.py", 0o644, b"def handler(e, c):\n    return e\n")])?;
    let one = |name: &str| zip_with(&[(name, 0o644, b"x")]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 3;
    flipped[middle] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not a zip", b"hello".to_vec()),
        ("empty archive", zip_with(&[])?),
        ("truncated", good[..good.len() - 10].to_vec()),
        ("flipped bits", flipped),
        ("prepended data", [b"MZ".as_slice(), &good].concat()),
        ("appended data", [good.as_slice(), b"tail"].concat()),
        ("climbs out", renamed(one("aaaaaa/evil")?, b"aaaaaa/evil", b"../../../ev")),
        ("absolute", renamed(one("aetc/passwd")?, b"aetc/passwd", b"/etc/passwd")),
        ("backslashes", renamed(one("aaaaaaevil")?, b"aaaaaaevil", b"..\\..\\evil")),
        ("duplicate names", renamed(zip_with(&[("aa", 0o644, b"1"), ("ab", 0o644, b"2")])?, b"ab", b"aa")),
        ("a link out", {
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            archive.add_symlink("link", "/etc", zip::write::SimpleFileOptions::default())?;
            archive.finish()?.into_inner()
        }),
        ("a file through a link", {
            let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            archive.add_symlink("link", "..", zip::write::SimpleFileOptions::default())?;
            archive.start_file("link/x", zip::write::SimpleFileOptions::default())?;
            archive.finish()?.into_inner()
        }),
    ];
    for (what, zip) in cases {
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let body =
            json!({"functionName": "hostile-zip", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}});
        let reply = create(platform, body.to_string().as_bytes())?;
        let message = refused(&reply, 400, "InvalidArgument").context(what)?;
        ensure!(message.contains("zipFile"), "{what}: {message}");
        absent(platform, "hostile-zip").context(what)?;
        // A layer is a package like another.
        let reply = publish(platform, "hostile-zip", &json!({"code": {"zipFile": body["code"]["zipFile"]}}))?;
        let as_layer = refused(&reply, 400, "InvalidArgument").with_context(|| format!("{what} as a layer"))?;
        ensure!(as_layer == message, "{what} as a layer: {as_layer}");
        no_layer(platform, "hostile-zip").context(what)?;
    }
    ensure!(kept(platform) == before, "left on disk: {:?}", kept(platform).difference(&before).collect::<Vec<_>>());
    Ok(())
}

/// Ten megabytes of zip that say they are more than the platform unpacks.
pub(crate) fn bombs_are_refused_whole(platform: &Platform) -> Result<()> {
    let before = kept(platform);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let zeros = vec![0; 1 << 20];
    archive.start_file("zeros", deflated.large_file(true))?;
    for _ in 0..BOMB_MIB {
        archive.write_all(&zeros)?;
    }
    let honest = archive.finish()?.into_inner();
    // The same bytes that say they are small.
    let size = (BOMB_MIB << 20).to_le_bytes();
    let mut lying = honest.clone();
    for at in 0..lying.len() - 8 {
        if lying[at..at + 8] == size {
            lying[at..at + 8].copy_from_slice(&1024_u64.to_le_bytes());
        } else if lying[at..at + 4] == size[..4] && size[4..] == [0; 4] {
            lying[at..at + 4].copy_from_slice(&1024_u32.to_le_bytes());
        }
    }
    for (what, zip) in [("an honest bomb", honest), ("a bomb that lies", lying)] {
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let body = json!({"functionName": "bomb", "runtime": "python3.10", "handler": "index.handler", "code": {"zipFile": zip}});
        let message = refused(&create(platform, body.to_string().as_bytes())?, 400, "InvalidArgument").context(what)?;
        ensure!(message.contains("zipFile"), "{what}: {message}");
        absent(platform, "bomb").context(what)?;
    }
    ensure!(kept(platform) == before, "left on disk: {:?}", kept(platform).difference(&before).collect::<Vec<_>>());
    Ok(())
}
