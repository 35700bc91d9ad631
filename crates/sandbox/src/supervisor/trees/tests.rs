use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const PACKAGE: Digest = Digest([5; 32]);
const OWNER: u32 = 1_234_567;

/// A directory of trees, and the path of one that `OWNER` is to fill. Needs root.
fn trees() -> (tempfile::TempDir, Trees) {
    let dir = tempfile::tempdir().unwrap();
    let trees = Trees::open(dir.path()).unwrap();
    (dir, trees)
}

fn give_all(path: &Path) {
    std::os::unix::fs::lchown(path, Some(OWNER), Some(OWNER)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_all(&entry.unwrap().path()));
    }
}

/// Fills a temporary tree, publishes it, and says how that went.
fn publish(entries_max: u64, fill: impl FnOnce(&Path)) -> (tempfile::TempDir, Trees, io::Result<()>) {
    let (dir, trees) = trees();
    let temporary = trees.make_temporary(OWNER).unwrap();
    let path = dir.path().join(&temporary.name);
    fill(&path);
    give_all(&path);
    let published = trees.publish(&temporary.name, Owners::One(OWNER), entries_max, PACKAGE);
    trees.remove_temporary(&temporary.name).unwrap();
    (dir, trees, published)
}

#[test]
fn a_published_tree_keeps_its_times_and_loses_its_rights() {
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let (dir, trees, published) = publish(10, |path| {
        fs::write(path.join("file"), "text").unwrap();
        fs::File::options().write(true).open(path.join("file")).unwrap().set_modified(old).unwrap();
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o6755)).unwrap();
        symlink("/etc/shadow", path.join("link")).unwrap();
    });
    published.unwrap();
    let tree = dir.path().join(PACKAGE.to_string());
    let file = fs::symlink_metadata(tree.join("file")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777, file.modified().unwrap()), (0, 0o555, old));
    assert_eq!(fs::symlink_metadata(tree.join("link")).unwrap().uid(), 0);
    assert_eq!(fs::symlink_metadata("/etc/shadow").unwrap().uid(), 0);
    assert!(trees.contains(PACKAGE).unwrap());
}

#[test]
fn what_no_tree_may_hold_is_refused() {
    type Fill = fn(&Path);
    let cases: [(&str, Fill); 5] = [
        ("fifo", |path| rustix::fs::mknodat(rustix::fs::CWD, path.join("x"), FileType::Fifo, Mode::RUSR, 0).unwrap()),
        ("device", |path| {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, path.join("x"), FileType::CharacterDevice, Mode::RUSR, null).unwrap();
        }),
        ("second name", |path| {
            fs::write(path.join("one"), "").unwrap();
            fs::hard_link(path.join("one"), path.join("two")).unwrap();
        }),
        ("too many", |path| (0..11).for_each(|n| fs::write(path.join(format!("f{n}")), "").unwrap())),
        ("too deep", |path| fs::create_dir_all(path.join("d/".repeat(DEPTH_MAX + 1))).unwrap()),
    ];
    for (what, fill) in cases {
        let entries_max = if what == "too deep" { 1000 } else { 10 };
        let (dir, trees, published) = publish(entries_max, fill);
        assert!(published.is_err(), "{what}");
        assert!(!trees.contains(PACKAGE).unwrap(), "{what}");
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "{what}");
    }
}

#[test]
fn an_images_tree_keeps_owners_and_modes_and_loses_what_gives_rights() {
    const FIRST: u32 = 2_000_000_000;
    let (dir, trees) = trees();
    let make = |fill: &dyn Fn(&Path)| {
        let temporary = trees.make_temporary(FIRST).unwrap();
        let path = dir.path().join(&temporary.name);
        fill(&path);
        let published = trees.publish(&temporary.name, Owners::Range(FIRST), 10, PACKAGE);
        trees.remove_temporary(&temporary.name).unwrap();
        published
    };
    let give = |path: &Path, uid: u32, gid: u32| std::os::unix::fs::lchown(path, Some(FIRST + uid), Some(FIRST + gid)).unwrap();
    make(&|path| {
        fs::write(path.join("file"), "text").unwrap();
        fs::hard_link(path.join("file"), path.join("other")).unwrap();
        give(&path.join("file"), 1000, 65_535);
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o6750)).unwrap();
        fs::create_dir(path.join("tmp")).unwrap();
        give(&path.join("tmp"), 0, 0);
        fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o3777)).unwrap();
        symlink("file", path.join("link")).unwrap();
        give(&path.join("link"), 7, 8);
        fs::hard_link(path.join("link"), path.join("link too")).unwrap();
    })
    .unwrap();
    let tree = dir.path().join(PACKAGE.to_string());
    let seen = |name: &str| {
        let seen = fs::symlink_metadata(tree.join(name)).unwrap();
        (seen.uid(), seen.gid(), seen.mode() & 0o7777)
    };
    assert_eq!((seen("file"), seen("other")), ((1000, 65_535, 0o750), (1000, 65_535, 0o750)));
    assert_eq!((seen("tmp"), seen("")), ((0, 0, 0o1777), (0, 0, 0o700)));
    assert_eq!((seen("link").0, seen("link too").1), (7, 8));
    for (uid, gid) in [(RANGE_SIZE, 0), (0, RANGE_SIZE)] {
        let foreign = make(&|path| {
            fs::write(path.join("file"), "").unwrap();
            give(&path.join("file"), uid, gid);
        });
        assert!(foreign.is_err(), "{uid}:{gid}");
    }
    assert!(make(&|path| fs::write(path.join("roots"), "").unwrap()).is_err());
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let (_dir, trees) = trees();
    let temporary = trees.make_temporary(OWNER).unwrap();
    fs::write(_dir.path().join(&temporary.name).join("roots"), "").unwrap();
    assert!(trees.publish(&temporary.name, Owners::One(OWNER), 10, PACKAGE).is_err());
}

#[test]
fn whatever_its_depth_a_temporary_tree_is_removed() {
    let (dir, trees) = trees();
    let temporary = trees.make_temporary(OWNER).unwrap();
    let mut at = temporary.directory;
    for depth in 0..3000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        if depth % 100 == 0 {
            drop(open_beneath(&at, "f", OFlags::WRONLY | OFlags::CREATE));
        }
        at = trees.open_directory(&at, "d").unwrap();
    }
    trees.remove_temporary(&temporary.name).unwrap();
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn the_next_start_removes_what_was_half_done() {
    let (dir, trees) = trees();
    let temporary = trees.make_temporary(OWNER).unwrap();
    fs::write(dir.path().join(&temporary.name).join("half"), "").unwrap();
    fs::create_dir(dir.path().join(PACKAGE.to_string())).unwrap();
    let trees = {
        drop(trees);
        Trees::open(dir.path()).unwrap()
    };
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(trees.contains(PACKAGE).unwrap());
}

#[test]
fn a_discarded_tree_goes_with_the_last_who_holds_it() {
    let (dir, trees) = trees();
    fs::create_dir(dir.path().join(PACKAGE.to_string())).unwrap();
    let first = trees.hold(PACKAGE).unwrap();
    let second = trees.hold(PACKAGE).unwrap();
    assert!(first.is_some() && second.is_some());
    trees.discard(PACKAGE).unwrap();
    assert!(!trees.contains(PACKAGE).unwrap());
    assert!(trees.hold(PACKAGE).unwrap().is_none());
    assert!(trees.release(PACKAGE).is_empty());
    let left = trees.release(PACKAGE);
    assert_eq!(left.len(), 1);
    trees.remove_temporary(&left[0]).unwrap();
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn a_link_in_the_place_of_a_tree_is_no_tree() {
    let (dir, trees) = trees();
    symlink("/etc", dir.path().join(PACKAGE.to_string())).unwrap();
    assert!(trees.contains(PACKAGE).is_err());
    assert!(trees.hold(PACKAGE).is_err());
}
