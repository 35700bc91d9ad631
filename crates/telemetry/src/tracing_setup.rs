//! The platform's own log, on stderr.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a line of the platform's log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The filter is not one.
    #[error("'{filter}' is not a log filter; use for example 'info' or 'info,dunlin_pool=debug'")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// It was set up before.
    #[error("the log is set up already")]
    Twice {
        /// The subscriber's own words.
        source: TryInitError,
    },
}

/// Sends the log to stderr, for example with the filter `info,dunlin_pool=debug`. Once per process.
///
/// # Errors
/// The filter does not parse, or the log is set up already.
pub fn init(format: Format, filter: &str) -> Result<(), SetupError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| SetupError::Filter { filter: filter.to_owned(), source })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        Format::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        Format::Json => subscriber.json().flatten_event(true).finish().try_init(),
    };
    result.map_err(|source| SetupError::Twice { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_named() {
        let error = init(Format::Text, "info,=x=").expect_err("it is not a filter");
        assert!(error.to_string().contains("'info,=x='"), "{error}");
    }
}
