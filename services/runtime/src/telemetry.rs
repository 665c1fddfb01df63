//! What a service says about itself: one line an event, on standard error.
//!
//! Standard output belongs to what a person or script asked for (tables, JSON), so logs never go there. `RUST_LOG`
//! filters; `TRADENET_LOG=json` makes each line a JSON object that names its service, for machines that collect the logs
//! of many. The rule: a log that cannot be written is lost and nothing else: the reader of our standard error may die
//! before us, and that must not take the service with it.

use std::fmt;
use std::io::{self, IsTerminal as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Without `RUST_LOG`. The client tells of every reconnect attempt, which the services say in their own words.
const FILTER_DEFAULT: &str = "info,async_nats=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG is not a log filter ({0}); try RUST_LOG=info or RUST_LOG=debug,async_nats=warn")]
    Filter(String),
    /// `TRADENET_LOG` is neither `text` nor `json`.
    #[error("TRADENET_LOG is {0:?}; it can be \"text\" or \"json\"")]
    Style(String),
    /// Something in this process logs already.
    #[error("logging has already been set up in this process")]
    Twice,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

impl Style {
    fn parse(value: Option<&str>) -> Result<Self, TelemetryError> {
        match value {
            None | Some("" | "text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(TelemetryError::Style(other.to_owned())),
        }
    }
}

/// Sets up logging for this process, once, from `RUST_LOG` and `TRADENET_LOG`. `service` is the instance's name, such as
/// `order-3`; it appears in JSON lines (text lines get it from whoever gathers them).
///
/// # Errors
/// A value of one of the variables that is not understood, or a second call.
pub fn init(service: &str) -> Result<(), TelemetryError> {
    let style = Style::parse(std::env::var("TRADENET_LOG").ok().as_deref())?;
    let filter = parse_filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // The formatter would report a failed write with `eprintln!`, which panics when standard error is gone.
        .log_internal_errors(false);
    let done = match style {
        Style::Text => lines.with_ansi(colours_wanted()).try_init(),
        Style::Json => {
            let json = NamedJson { prefix: json_prefix(service), json: Format::default().json().flatten_event(true) };
            lines.json().event_format(json).try_init()
        }
    };
    done.map_err(|_| TelemetryError::Twice)
}

/// Whether to colour what goes to standard error: only a person's terminal, and only if they have not said no.
#[must_use]
pub fn colours_wanted() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn parse_filter(value: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = value.filter(|text| !text.is_empty()).unwrap_or(FILTER_DEFAULT);
    EnvFilter::try_new(text).map_err(|error| TelemetryError::Filter(error.to_string()))
}

fn json_prefix(service: &str) -> String {
    format!("{{\"service\":{},", serde_json::Value::from(service))
}

/// The library's JSON with the service's name as the first field. The library puts only what a span holds into each line,
/// and a span does not follow into every task.
struct NamedJson {
    /// `{"service":"order-3",`
    prefix: String,
    json: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for NamedJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.json.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(out, "{}{rest}", self.prefix),
            None => out.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_names_its_service_and_is_one_object() {
        let memory = Memory::default();
        let writer = memory.clone();
        let json = NamedJson { prefix: json_prefix("order-\"3"), json: Format::default().json().flatten_event(true) };
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).json().event_format(json).finish();
        tracing::subscriber::with_default(lines, || tracing::info!(epoch = 7, "leader"));
        let bytes = memory.0.lock().unwrap().clone();
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(line["service"], "order-\"3");
        assert_eq!(line["epoch"], 7);
        assert_eq!(line["message"], "leader");
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_style_or_filter_that_is_not_understood_is_refused_with_what_to_write() {
        fn check(result: Result<(), TelemetryError>, expected: Option<&str>) {
            let text = result.err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(text, None),
                Some(part) => assert!(text.as_deref().is_some_and(|text| text.contains(part)), "{text:?}"),
            }
        }
        check(Style::parse(None).map(drop), None);
        check(Style::parse(Some("json")).map(drop), None);
        check(Style::parse(Some("JSON")).map(drop), Some("can be \"text\" or \"json\""));
        check(parse_filter(None).map(drop), None);
        check(parse_filter(Some("")).map(drop), None);
        check(parse_filter(Some("debug,async_nats=off")).map(drop), None);
        check(parse_filter(Some("a=b=c")).map(drop), Some("try RUST_LOG=info"));
    }
}
