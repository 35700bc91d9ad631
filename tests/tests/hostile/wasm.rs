//! WebAssembly programs that try the same.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, ensure};
use dunlin_testkit::{Platform, Response, zip_of};
use serde_json::{Value, json};

use super::{ALIVE, call, delete, error_of, neighbour_answers};

fn program(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/wasm/{name}.wat", env!("CARGO_MANIFEST_DIR"));
    wat::parse_file(path).expect("a fixture is well-formed")
}

/// Makes a function of the package, calls it once and deletes it.
fn run(platform: &Platform, files: &[(&str, Vec<u8>)], event: &[u8], members: Value) -> Result<Response> {
    platform.api.create_from("hostile-wasm", "wasm", &zip_of(files)?, members)?;
    ALIVE.fetch_add(1, Ordering::Relaxed);
    let reply = call(platform, "hostile-wasm", event)?;
    delete(platform, "hostile-wasm")?;
    Ok(reply)
}

/// Memory, stack, time and output all have an end, and nobody else notices.
pub(crate) fn c70_bombs_end_their_call_only(platform: &Platform) -> Result<()> {
    for (name, event, text) in [
        ("spin", &b"x"[..], "timed out after 2 seconds"),
        ("eat", b"", "ran out of memory"),
        ("huge", b"", "ran out of memory"),
        ("deep", b"", "call stack exhausted"),
        ("flood", b"", "Response payload is larger"),
    ] {
        let members = json!({"memorySize": 256, "timeout": if name == "spin" { 2 } else { 60 }, "internetAccess": false});
        let reply = run(platform, &[("main.wasm", program(name))], event, members)?;
        let (kind, message) = error_of(&reply).with_context(|| name.to_owned())?;
        ensure!(kind == "UnhandledInvocationError" && message.contains(text), "{name}: {kind}: {message}");
        neighbour_answers(platform).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// A program has `/code` and `/opt` to read and `/tmp` to write, and no way out of them.
pub(crate) fn c70_no_path_leads_out(platform: &Platform) -> Result<()> {
    let reply = run(platform, &[("main.wasm", program("escape"))], b"", json!({"internetAccess": false}))?;
    ensure!(reply.body == b"0000010", "{}", reply.text());
    neighbour_answers(platform)
}

/// Code that takes the compiler long or much memory, or that nothing could run, is refused at the door.
pub(crate) fn c70_bombs_for_the_compiler_are_refused(platform: &Platform) -> Result<()> {
    // One function of ten thousand nested blocks, and a module of two hundred thousand functions.
    let nested = format!("(module (func (export \"_start\") {} {}))", "(block".repeat(10_000), ")".repeat(10_000));
    let many = format!("(module (func (export \"_start\")) {})", "(func (result i32) i32.const 1)".repeat(200_000));
    for (claim, text) in [("nested", nested), ("many", many)] {
        let zip = zip_of(&[("main.wasm", wat::parse_str(text)?)])?;
        let body = json!({"functionName": "bomb", "runtime": "wasm", "code": {"zipFile": zip}});
        let reply = platform.api.json("POST", "/functions", "CreateFunction", &body)?;
        ensure!(matches!(reply.status, 200 | 400), "{claim}: {} {}", reply.status, reply.text());
        if reply.status == 200 {
            platform.api.json("DELETE", "/functions/bomb", "DeleteFunction", &Value::Null)?;
        }
        neighbour_answers(platform).with_context(|| claim.to_owned())?;
    }
    Ok(())
}

/// A package cannot bring machine code along in the place of what the platform compiled.
pub(crate) fn c70_compiled_code_is_not_taken_from_a_package(platform: &Platform) -> Result<()> {
    let forged = (".dunlin-wasm/main.wasm.compiled", b"\x7fELF and worse".to_vec());
    let files = [("main.wasm", program("count")), forged];
    let refused = run(platform, &files, b"", json!({}));
    let text = refused.err().context("the package was taken")?.to_string();
    ensure!(text.contains("400") && text.contains("a name the platform keeps for itself"), "{text}");
    neighbour_answers(platform)
}
