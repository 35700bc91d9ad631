//! Images that were made to do harm: each is refused with a reason, or does nothing to anybody else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use dunlin_testkit::Platform;
use dunlin_testkit::image::{Image, Kind, Layer, Packing, Says, sha256};
use serde_json::json;

use crate::support::{ask, base, create, image, plain, push, refusal};

fn kind(kind: Kind) -> Says<'static> {
    Says { kind, mode: 0o644, ..Says::default() }
}

fn hard_link(target: &str) -> Says<'_> {
    Says { kind: Kind::HardLink, target, ..Says::default() }
}

/// Nothing is left where packages are unpacked but what functions and names use.
fn no_leftovers(platform: &Platform) -> Result<()> {
    for entry in fs::read_dir(platform.data.join("trees"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with(".tmp-"), "{name} is left");
    }
    Ok(())
}

#[test]
fn a_layer_that_reaches_for_what_is_not_its_own_is_refused() -> Result<()> {
    let platform = Platform::fresh()?;
    let deep = "d/".repeat(61) + "file";
    let nested = (0..3).fold(Layer::new().directory(&"a/".repeat(50)).link("l0", &"a/".repeat(50)), |layer, step| {
        let below = format!("l{step}/{}", "b/".repeat(50));
        layer.directory(&below).link(&format!("l{}", step + 1), &below)
    });
    let layers = [
        ("its name leads out", Layer::new().file("../escaped", "x")),
        ("its name leads out", Layer::new().file("a/../../escaped", "x")),
        ("its name leads out", Layer::new().file("../.wh.x", "")),
        ("nested more than 60 folders deep", Layer::new().file(&deep, "x")),
        ("nested more than 60 folders deep", nested),
        ("component longer than 255 bytes", Layer::new().file(&"n".repeat(300), "x")),
        ("a hard link to something that is not there", Layer::new().entry("h", hard_link("/etc/shadow"), b"")),
        ("its name leads out", Layer::new().entry("h", hard_link("../../../etc/shadow"), b"")),
        ("a hard link to something that is not there", Layer::new().link("l", "/").entry("h", hard_link("l/proc/version"), b"")),
        ("a hard link to something that is not there", Layer::new().directory("d").entry("h", hard_link("d"), b"")),
        ("a whiteout of nothing", Layer::new().file(".wh.", "")),
        ("a whiteout of nothing", Layer::new().file("a/.wh...", "")),
        ("used both as a folder and as a file", Layer::new().file("a", "x").file("a/b", "x")),
        ("'proc': must be a folder", Layer::new().link("proc", "/etc")),
        ("'etc': must be a folder", Layer::new().link("etc", "/server")),
        ("'dev': must be a folder", Layer::new().file("dev", "x")),
        ("belongs to a user or group above 65535", Layer::new().entry("u", Says { uid: 65_536, ..Says::default() }, b"")),
        ("belongs to a user or group above 65535", Layer::new().entry("u", Says { gid: 1 << 40, ..Says::default() }, b"")),
        ("a sparse file", Layer::new().entry("s", kind(Kind::Other(b'S')), b"")),
        ("a sparse file", Layer::new().entry("p", kind(Kind::Other(b'x')), b"22 GNU.sparse.major=1\n").file("s", "x")),
        ("a pax header is malformed", Layer::new().entry("p", kind(Kind::Other(b'x')), b"99999 path=x\n").file("s", "x")),
        ("of an unknown kind", Layer::new().entry("q", kind(Kind::Other(b'?')), b"")),
        ("a link whose target is empty", Layer::new().link("l", "")),
    ];
    for (expected, layer) in layers {
        let refused = refusal(&platform, &image(&[layer], &plain())?.layout_tar()).with_context(|| expected.to_owned())?;
        assert!(refused.starts_with("image is refused: ") && refused.contains(expected), "{expected}: {refused}");
    }
    no_leftovers(&platform)?;
    assert_eq!(platform.cli(&["--json", "image", "ls"])?.stdout, b"[]\n");
    Ok(())
}

#[test]
fn an_archive_that_is_not_what_it_says_is_refused() -> Result<()> {
    let platform = Platform::fresh()?;
    let good = image(&[Layer::new().file("word", "x".repeat(4096))], &plain())?;
    let zeros = Layer::new().file("zeros", vec![0; 200 << 20]).tar();
    let bomb = |packing| Image::new(&[(base().tar(), Packing::Gzip), (zeros.clone(), packing)], &plain());
    let layer = sha256(&Layer::new().file("word", "x".repeat(4096)).tar());
    let damaged = |digest: &str| {
        let mut image = good.clone();
        let blob = image.blobs.get_mut(digest).expect("a part of the image");
        let last = blob.len() - 1;
        blob[last] ^= 1;
        image
    };
    let mut lacking = good.clone();
    lacking.blobs.remove(&layer);
    let saved = String::from_utf8_lossy(&good.saved_tar()).replace("xxxx", "yxxx").into_bytes();
    let saved_damaged = {
        // Contents of a layer only: the archive around it stays whole.
        let mut bytes = good.saved_tar();
        let at = bytes.windows(64).position(|window| window == [b'x'; 64]).expect("the file is stored");
        bytes[at] = b'y';
        bytes
    };
    drop(saved);
    let mut nested = good.clone();
    let mut inner = good.descriptor("linux", "amd64");
    for _ in 0..6 {
        let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string().into_bytes();
        let digest = sha256(&index);
        inner = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{digest}"), "size": index.len(),
        });
        nested.blobs.insert(digest.clone(), index);
        nested.manifest = digest;
    }
    let elsewhere = Image::on("linux", "arm64", &[(base().tar(), Packing::Plain)], &plain())?;
    let large = json!({"Entrypoint": ["/server"], "Env": vec!["A=".to_owned() + &"x".repeat(1000); 40]});
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no image: it is no tar archive", b"not a tar".repeat(1000)),
        ("the archive is no image", Vec::new()),
        ("neither index.json", Layer::new().file("x", "y").tar()),
        ("cannot be read", Layer::new().file("index.json", "{").tar()),
        ("names no image", Layer::new().file("index.json", "{}").tar()),
        ("no tar archive, or damaged", good.layout_tar()[..2000].to_vec()),
        ("does not have the digest", damaged(&layer).layout_tar()),
        ("does not have the digest", damaged(&good.manifest).layout_tar()),
        ("does not have the digest", saved_damaged),
        ("it lacks sha256:", lacking.layout_tar()),
        ("nested too deep", nested.layout_tar()),
        ("not for linux/amd64 but for linux/arm64", elsewhere.layout_tar()),
        ("more than 32 KiB together", image(&[], &large)?.layout_tar()),
        ("holds a NUL character", image(&[], &json!({"Entrypoint": ["/server\u{0}"]}))?.layout_tar()),
        ("not an absolute path", image(&[], &json!({"Entrypoint": ["/server"], "WorkingDir": "srv"}))?.layout_tar()),
        ("its name leads out", image(&[], &json!({"Entrypoint": ["/server"], "WorkingDir": "/../srv"}))?.layout_tar()),
        ("more than a hundred times", bomb(Packing::Gzip)?.layout_tar()),
        ("more than a hundred times", bomb(Packing::Zstd)?.layout_tar()),
    ];
    for (expected, archive) in cases {
        let refused = refusal(&platform, &archive).with_context(|| expected.to_owned())?;
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
    no_leftovers(&platform)?;
    // What was signed is another archive.
    let mut headers = platform.api.sign("PUT", "/2023-03-30/dunlin/images/x", "DunlinPushImage", &[], b"another");
    headers.push(("content-type".to_owned(), "application/x-tar".to_owned()));
    let reply = platform.connect()?.request("PUT", "/2023-03-30/dunlin/images/x", &headers, &good.layout_tar())?;
    assert_eq!((reply.status, reply.json()?["Code"].as_str()), (403, Some("SignatureNotMatch")));
    for name in ["UPPER", "a..b", "a:b:c", ".", "a%2F..%2Fb"] {
        let target = format!("/2023-03-30/dunlin/images/{name}");
        let reply = platform.api.send("PUT", &target, "DunlinPushImage", &[], &good.layout_tar())?;
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
    }
    Ok(())
}

#[test]
fn what_looks_like_a_way_out_leads_back_into_the_image() -> Result<()> {
    let platform = Platform::fresh()?;
    let canary = Path::new("/tmp").join(format!("dunlin-escaped-{}", std::process::id()));
    let canary_text = canary.to_str().context("a path")?;
    let through = format!("out{canary_text}");
    let layer = Layer::new()
        .directory("etc")
        .file("etc/secret", "the image's")
        .directory("tmp")
        .link("out", "../../../../../..")
        .file(&through, "x")
        .link("absolute", "/etc")
        .file("absolute/through", "x")
        .file("/leading/slash", "x")
        .file("./dot/./x", "x")
        .link("etc/resolv.conf", "/etc/secret")
        .link("etc/hosts", "/etc/secret")
        .link("shadow", "/etc/shadow")
        .entry("linked", hard_link("shadow"), b"")
        .entry("disk", kind(Kind::Other(b'4')), b"")
        .entry("zero", kind(Kind::Other(b'3')), b"")
        .entry("pipe", kind(Kind::Other(b'6')), b"")
        .directory("dev")
        .file("dev/null", "not a device")
        .file("dev/mine", "hidden")
        .directory("proc")
        .file("proc/version", "not the kernel's")
        .file("Case", "upper")
        .file("case", "lower")
        .file("twice", "one")
        .file("twice", "two")
        .link("circle", "circle");
    let pushed = push(&platform, "app", &image(&[layer], &plain())?.layout_tar())?;
    assert!(!canary.exists(), "a file was written outside");
    create(&platform, "f", &pushed, &json!({}), &json!({}))?;
    let missing = "No such file or directory";
    for (command, expected) in [
        (format!("read {canary_text}"), "x"),
        ("read /etc/through".to_owned(), "x"),
        ("read /leading/slash".to_owned(), "x"),
        ("read /dot/x".to_owned(), "x"),
        ("read /etc/secret".to_owned(), "the image's"),
        ("read /linked".to_owned(), missing),
        ("read /disk".to_owned(), missing),
        ("read /zero".to_owned(), missing),
        ("read /pipe".to_owned(), missing),
        ("read /dev/null".to_owned(), ""),
        ("read /dev/mine".to_owned(), missing),
        ("read /proc/version".to_owned(), missing),
        ("read /Case".to_owned(), "upper"),
        ("read /case".to_owned(), "lower"),
        ("read /twice".to_owned(), "two"),
        ("read /circle".to_owned(), "Too many levels of symbolic links"),
        ("chroot /etc".to_owned(), "Operation not permitted"),
        ("mount /etc".to_owned(), "Operation not permitted"),
        ("mknod /device".to_owned(), "Operation not permitted"),
        ("setuid 1".to_owned(), "Operation not permitted"),
    ] {
        assert_eq!(ask(&platform, "f", &command)?, expected, "{command}");
    }
    assert!(ask(&platform, "f", "read /etc/hosts")?.starts_with("127.0.0.1 localhost"));
    let status = ask(&platform, "f", "read /proc/self/status")?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    let map: Vec<_> = ask(&platform, "f", "read /proc/self/uid_map")?.split_whitespace().map(str::to_owned).collect();
    assert_eq!((map[0].as_str(), map[2].as_str()), ("0", "65536"));
    assert!(map[1].parse::<u32>()? >= 2_000_000_000, "{map:?}");
    Ok(())
}
