//! Reads what an unpacker reported, in the server: the supervisor passes it on unread.

use dunlin_model::Digest;
use serde::Deserialize;

use crate::{Ended, Exit, UnpackError, UnpackReport};

#[derive(Deserialize)]
struct Report {
    ok: bool,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    entries: u64,
    manifest: Option<Digest>,
    #[serde(default)]
    prepared: Vec<String>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    reason: String,
}

/// The header of the one frame that is the report (`docs/design/wire.md`), and the kind it says.
const HEADER: usize = 32;
const END: u8 = 18;

/// What `report` says of an unpacker that ended like this.
pub(crate) fn read(ended: Ended, report: &[u8]) -> Result<UnpackReport, UnpackError> {
    if report.is_empty() {
        return Err(UnpackError::Died(ended));
    }
    let (header, body) = report.split_at_checked(HEADER).ok_or(UnpackError::BadReport)?;
    if header[0] != END {
        // Its walls did not stand.
        return Err(UnpackError::Died(ended));
    }
    let Report { ok, bytes, entries, manifest, prepared, code, reason } =
        serde_json::from_slice(body).map_err(|_| UnpackError::BadReport)?;
    match (ok, ended.exit) {
        (true, Exit::Code(0)) => Ok(UnpackReport { bytes, entries, manifest, prepared: Some(prepared) }),
        // The supervisor publishes what an unpacker left only when it ended well.
        (true, _) => Err(UnpackError::Died(ended)),
        (false, _) => Err(UnpackError::Rejected { code, message: reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: Exit) -> Ended {
        Ended { exit, out_of_memory: false, cpu_us: 0 }
    }

    #[test]
    fn only_a_report_of_success_from_an_unpacker_that_ended_well_is_one() {
        let frame = |body: &str| [&[END][..], &[0; HEADER - 1], body.as_bytes()].concat();
        let good = &frame(&format!(r#"{{"ok":true,"bytes":3,"entries":2,"manifest":"{}","prepared":["a"]}}"#, Digest([1; 32])));
        let report = read(ended(Exit::Code(0)), good).unwrap();
        assert_eq!(
            report,
            UnpackReport { bytes: 3, entries: 2, manifest: Some(Digest([1; 32])), prepared: Some(vec!["a".to_owned()]) }
        );
        assert!(matches!(read(ended(Exit::Signal(9)), good), Err(UnpackError::Died(_))));
        assert!(matches!(read(ended(Exit::Code(0)), b""), Err(UnpackError::Died(_))));
        assert!(matches!(read(ended(Exit::Code(0)), &frame("[1]")), Err(UnpackError::BadReport)));
        assert!(matches!(read(ended(Exit::Code(0)), b"{}"), Err(UnpackError::BadReport)));
        let bad = &frame(r#"{"ok":false,"code":"traversal","reason":"an entry leaves the package"}"#);
        let Err(UnpackError::Rejected { code, message }) = read(ended(Exit::Code(1)), bad) else { panic!() };
        assert_eq!((code.as_str(), message.as_str()), ("traversal", "an entry leaves the package"));
    }
}
