//! What cells see at `/opt`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dunlin_model::{Digest, Interpreter, InterpreterVersion, Interpreters, Language, Standing};
use dunlin_sandbox::{Bind, BindError, LAYERS_MAX, Sandboxes};

use crate::parts::{Platform, small};

/// Prints every file below `/opt` with its contents, in order.
const LIST: &str = "
import os
for folder, folders, files in sorted(os.walk('/opt')):
    for name in sorted(files):
        path = os.path.join(folder, name)
        print(path[5:] + '=' + open(path).read())
";

impl Platform {
    /// Makes a tree of files, as if it had been unpacked.
    fn layer(&self, name: &str, files: &[(&str, &str)]) -> Digest {
        let digest = Digest::of(name.as_bytes());
        let tree = self.trees().join(digest.to_string());
        fs::create_dir(&tree).unwrap();
        for (path, text) in files {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), text).unwrap();
        }
        digest
    }

    fn seen(&self, layers: &[Digest], code: &str) -> String {
        let (printed, ended) = self.python(&Bind { layers: layers.to_vec(), ..small() }, code);
        assert_eq!(ended.exit, dunlin_sandbox::Exit::Code(0), "{printed}");
        printed
    }
}

pub(crate) fn the_first_of_two_layers_counts_and_folders_are_merged() {
    let platform = Platform::start();
    let one = platform.layer("one", &[("both", "one"), ("lib/one", "1"), ("lib/both", "one"), ("kind/inside", "one")]);
    let two = platform.layer("two", &[("both", "two"), ("lib/two", "2"), ("lib/both", "two"), ("kind", "a file")]);
    assert_eq!(platform.seen(&[], LIST), "");
    assert_eq!(platform.seen(&[one], LIST), "both=one\nkind/inside=one\nlib/both=one\nlib/one=1\n");
    let merged = "both=one\nkind/inside=one\nlib/both=one\nlib/one=1\nlib/two=2\n";
    assert_eq!(platform.seen(&[one, two], LIST), merged);
    let merged = "both=two\nkind=a file\nlib/both=two\nlib/one=1\nlib/two=2\n";
    assert_eq!(platform.seen(&[two, one], LIST), merged);
    // As many as there may be, with a descriptor each.
    let many: Vec<_> = (0..LAYERS_MAX).map(|n| platform.layer(&n.to_string(), &[(&format!("f{n}"), "x")])).collect();
    assert_eq!(platform.seen(&many, LIST).lines().count(), LAYERS_MAX);
    platform.stop();
}

pub(crate) fn layers_can_be_run_and_not_written() {
    let platform = Platform::start();
    let one = platform.layer("one", &[("bin/tool", "#!/bin/sh\necho ran\n")]);
    let two = platform.layer("two", &[("lib/x", "x")]);
    let tool = platform.trees().join(one.to_string()).join("bin/tool");
    fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o4777)).unwrap();
    let code = "
import os, subprocess
print(subprocess.run(['/opt/bin/tool'], capture_output=True, text=True).stdout.strip())
for attempt in (lambda: open('/opt/new', 'w'), lambda: open('/opt/bin/tool', 'a'), lambda: os.remove('/opt/bin/tool'),
                lambda: os.mkdir('/opt/lib'), lambda: os.chmod('/opt/bin/tool', 0o777), lambda: os.rmdir('/opt')):
    try:
        attempt()
        print('done')
    except OSError as error:
        print(error.errno)
flags = os.statvfs('/opt').f_flag
print(bool(flags & os.ST_RDONLY), bool(flags & os.ST_NOSUID), bool(flags & os.ST_NODEV), bool(flags & os.ST_NOEXEC))
";
    let read_only = "ran\n30\n30\n30\n17\n30\n30\nTrue True True False\n".replace("\n17\n", "\n30\n");
    for layers in [vec![one], vec![one, two], vec![two, one]] {
        let printed = platform.seen(&layers, code);
        // Where the folder is there already, the kernel may say that first.
        assert_eq!(printed.replace("\n17\n", "\n30\n"), read_only, "{layers:?}");
    }
    platform.stop();
}

pub(crate) fn cells_share_the_files_of_a_layer() {
    let platform = Platform::start();
    let one = platform.layer("one", &[("lib/x", "x")]);
    let two = platform.layer("two", &[("lib/y", "y")]);
    let host = fs::metadata(platform.trees().join(one.to_string()).join("lib/x")).unwrap();
    let code = "import os; found = os.stat('/opt/lib/x'); print(found.st_dev, found.st_ino)";
    let own = format!("{} {}\n", host.dev(), host.ino());
    assert_eq!((platform.seen(&[one], code), platform.seen(&[one], code)), (own.clone(), own));
    // Behind an overlay it is still the same file, on a device that the overlay makes up.
    let number = |layers: &[Digest]| platform.seen(layers, code).trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!((number(&[one, two]), number(&[two, one])), (host.ino().to_string(), host.ino().to_string()));
    platform.stop();
}

pub(crate) fn a_layer_is_held_while_a_cell_has_it() {
    let platform = Platform::start();
    let (one, two) = (platform.layer("one", &[("a", "1")]), platform.layer("two", &[("b", "2")]));
    let missing = Digest([7; 32]);
    let cell = platform.make();
    let bind = Bind { layers: vec![one, missing], ..small() };
    let error = platform.wait(platform.client.bind(cell.id, &bind)).unwrap_err();
    assert!(matches!(error, BindError::NoSuchTree(digest) if digest == missing), "{error}");
    platform.end(&cell);

    let cell = platform.make();
    platform.wait(platform.client.bind(cell.id, &Bind { layers: vec![one, two], ..small() })).unwrap();
    for layer in [one, two] {
        platform.wait(platform.client.discard_tree(layer)).unwrap();
    }
    crate::parts::exec(&cell, &["/usr/bin/python3", "-I", "-S", "-c", LIST]);
    assert_eq!(crate::parts::read_log(&cell), "a=1\nb=2\n");
    platform.end(&cell);
    crate::parts::eventually("their files are removed", || fs::read_dir(platform.trees()).unwrap().next().is_none());
    platform.stop();
}

/// A host has an interpreter below `/opt`, and layers hold files in its place.
pub(crate) fn an_interpreter_below_opt_stays_above_the_layers() {
    let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir_in("/opt").unwrap();
    let home = folder.path().join("node");
    for (path, text) in [("bin/node", "the interpreter"), ("lib/own", "own")] {
        fs::create_dir_all(home.join(path).parent().unwrap()).unwrap();
        fs::write(home.join(path), text).unwrap();
    }
    chmod(folder.path());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut all = Interpreters::usual().all().to_vec();
    all.push(Interpreter {
        language: Language::Node,
        program: text(&home.join("bin/node")),
        home: text(&home),
        standing: Standing::Usable { version: InterpreterVersion::new(18, 0, 0) },
    });
    let platform = Platform::start_with(|config| config.interpreters = Interpreters::new(all));
    let below = |path: &str| text(&home.join(path)).strip_prefix("/opt/").unwrap().to_owned();
    let (program, own, more) = (below("bin/node"), below("lib/own"), below("lib/more"));
    let own_files = format!("{program}=the interpreter\n{own}=own\n");
    assert_eq!(platform.seen(&[], LIST), own_files);

    let beside = platform.layer("beside", &[("zz", "z")]);
    assert_eq!(platform.seen(&[beside], LIST), format!("zz=z\n{own_files}"));
    let inside = platform.layer("inside", &[(&program, "another"), (&more, "more")]);
    let merged = format!("{program}=the interpreter\n{more}=more\n{own}=own\n");
    assert_eq!(platform.seen(&[inside], LIST), merged);
    assert_eq!(platform.seen(&[beside, inside], LIST), format!("zz=z\n{merged}"));
    // A file or a link where its directory is leads nowhere.
    let file = platform.layer("file", &[(text(&home).strip_prefix("/opt/").unwrap(), "a file")]);
    assert_eq!(platform.seen(&[file, beside], LIST), format!("zz=z\n{own_files}"));
    let link = platform.layer("link", &[("zz", "z")]);
    let tree = platform.trees().join(link.to_string());
    fs::create_dir(tree.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/usr", tree.join(text(folder.path()).strip_prefix("/opt/").unwrap())).unwrap();
    assert_eq!(platform.seen(&[link], LIST), format!("zz=z\n{own_files}"));
    assert_eq!(platform.seen(&[link], "import os; print(os.path.exists('/usr/bin/python3'))"), "True\n");
    platform.stop();
}

fn chmod(folder: &Path) {
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
