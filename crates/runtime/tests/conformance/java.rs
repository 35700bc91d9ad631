//! Java's part of the suite: where its files are, and the compiling of all cases' code by one process.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::case::runtimes;

/// What guests find in `/rt/java`, written out once.
pub(crate) fn runtime() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap().keep();
        for (name, content) in dunlin_sandbox::assets::files() {
            if let Some(name) = name.strip_prefix("java/") {
                let path = place.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
        }
        place
    })
}

/// Compiles the Java files in each of the directories, where they are.
pub(crate) fn compile<'p>(directories: impl Iterator<Item = &'p Path>) {
    let mut command = Command::new("java");
    command.arg(runtimes().join("conformance/Compile.java")).arg(runtime().join("fc-java-core.jar")).args(directories);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Three calls that wait for each other: none could end if they were served one after the other.
const MEETING: &str = r#"
import com.aliyun.fc.runtime.Context;
import java.util.concurrent.CyclicBarrier;
public class Index {
    static final CyclicBarrier ALL = new CyclicBarrier(3);
    public String handler(String event, Context context) throws Exception {
        ALL.await();
        return context.getRequestId() + " met " + event;
    }
}
"#;

fn frame(kind: u8, stream: u32, head: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend(stream.to_le_bytes());
    frame.extend(u32::try_from(head.len()).unwrap().to_le_bytes());
    frame.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    frame.extend([u8::try_from(stream).unwrap(); 16]);
    frame.extend(head.as_bytes());
    frame.extend(body);
    frame
}

/// Kind, stream, token and body of the next frame.
fn next(channel: &mut UnixStream) -> (u8, u32, [u8; 16], String) {
    let mut header = [0; 32];
    channel.read_exact(&mut header).unwrap();
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut rest = vec![0; (number(8) + number(12)) as usize];
    channel.read_exact(&mut rest).unwrap();
    let body = String::from_utf8(rest.split_off(number(8) as usize)).unwrap();
    (header[0], number(4), header[16..].try_into().unwrap(), body)
}

#[test]
fn calls_that_were_agreed_on_run_side_by_side() {
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("Index.java"), MEETING).unwrap();
    compile([code.path()].into_iter());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", r#"exec java -jar "$0" 3<&0 0</dev/null"#])
        .arg(runtime().join("dunlin.jar"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    assert_eq!(next(&mut ours).0, 16, "Ready comes first");
    let place = code.path().display();
    let load = format!(
        r#"{{"codePath":"{place}","handler":"Index::handler","env":{{}},"function":{{}},"service":{{}},"concurrency":3}}"#
    );
    ours.write_all(&frame(2, 1, &load, b"")).unwrap();
    assert_eq!(next(&mut ours).0, 18, "the code is loaded");
    // Twice, so that threads are used again.
    for round in [10, 20] {
        for stream in round..round + 3 {
            ours.write_all(&frame(4, stream, &format!(r#"{{"requestId":"1-{stream}"}}"#), format!("{stream}").as_bytes()))
                .unwrap();
        }
        let mut answers: Vec<_> = (0..3).map(|_| next(&mut ours)).collect();
        answers.sort();
        let wanted = (round..round + 3).map(|n| (18, n, [u8::try_from(n).unwrap(); 16], format!("1-{n} met {n}")));
        assert_eq!(answers, wanted.collect::<Vec<_>>());
    }
    drop(ours);
    assert!(child.wait().unwrap().success(), "it leaves when the host has let go");
}
