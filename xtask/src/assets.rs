//! Building what the binary embeds.

/// Builds every embedded artefact that is missing or out of date.
pub(crate) fn run() -> anyhow::Result<()> {
    Ok(())
}
