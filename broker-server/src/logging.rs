//! Logs: text or JSON lines to the console and to a file.
//!
//! A text line is `2026-01-31 12:00:00.000000+00:00 [info] message key=value`; a JSON line is an object with `time`,
//! `level`, `msg` and the fields. Whatever clients send can stand in a field, so every control character is escaped in
//! both forms: nobody can forge a line or send escape sequences to a terminal.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{ConsoleStream, LogConfig, LogFormat, LogLevel, LogOutput};

/// Target of the event that tells why brokerd ends: for the file only, because standard error gets the plain message.
pub const ENDING: &str = "ending";
/// Most bytes of one field or message; what is longer is cut.
const MAX_VALUE_BYTES: usize = 8_192;

/// The running log. Events of the `tracing` macros go to it.
#[derive(Debug)]
pub struct Log {
    console: Option<LevelHandle>,
    file: Option<(LogFile, LevelHandle)>,
}

type LevelHandle = reload::Handle<LevelFilter, Registry>;
type Output = Box<dyn Layer<Registry> + Send + Sync>;

impl Log {
    /// Opens the outputs and takes all events of the process from now on. Once a process.
    ///
    /// # Errors
    /// The log file cannot be opened, or there is a log already.
    pub fn start(config: &LogConfig) -> io::Result<Self> {
        let (outputs, log) = outputs(config)?;
        tracing_subscriber::registry().with(outputs).try_init().map_err(io::Error::other)?;
        Ok(log)
    }

    /// Takes over the levels of `config` and opens the log file anew, so that a renamed one is let go.
    ///
    /// Outputs that were off at the start stay off.
    ///
    /// # Errors
    /// The log file cannot be opened; then the old one is kept.
    pub fn reload(&self, config: &LogConfig) -> io::Result<()> {
        if let (Some(handle), Some(output)) = (&self.console, config.console) {
            handle.reload(filter_of(output.level)).map_err(io::Error::other)?;
        }
        if let (Some((file, handle)), Some((_, output))) = (&self.file, &config.file) {
            handle.reload(filter_of(output.level)).map_err(io::Error::other)?;
            file.reopen()?;
        }
        Ok(())
    }
}

fn outputs(config: &LogConfig) -> io::Result<(Vec<Output>, Log)> {
    let mut outputs = Vec::new();
    let console = config.console.map(|output| {
        let (layer, handle) = match config.console_stream {
            ConsoleStream::Stdout => layer(output, io::stdout, Audience::Console),
            ConsoleStream::Stderr => layer(output, io::stderr, Audience::Console),
        };
        outputs.push(layer);
        handle
    });
    let file = match &config.file {
        None => None,
        Some((path, output)) => {
            let file = LogFile::open(path)?;
            let (layer, handle) = layer(*output, file.clone(), Audience::File);
            outputs.push(layer);
            Some((file, handle))
        }
    };
    Ok((outputs, Log { console, file }))
}

/// Who reads an output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    Console,
    File,
}

fn layer<W>(output: LogOutput, writer: W, audience: Audience) -> (Output, LevelHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter_of(output.level));
    let lines =
        tracing_subscriber::fmt::layer().event_format(Lines(output.format)).with_ansi(false).with_writer(writer);
    let wanted = filter_fn(move |metadata| {
        (audience == Audience::File || metadata.target() != ENDING) && !is_chatter(metadata.target(), *metadata.level())
    });
    (lines.with_filter(filter.and(wanted)).boxed(), handle)
}

/// What the library of Raft says of each of its steps is for its authors; that a node cannot be reached it says at every heartbeat.
fn is_chatter(target: &str, level: Level) -> bool {
    target.starts_with("openraft") && level > Level::ERROR
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// A log file that can be opened anew under the same path.
#[derive(Clone, Debug)]
struct LogFile {
    path: Arc<PathBuf>,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open_for_appending(path)?;
        Ok(Self { path: Arc::new(path.to_path_buf()), file: Arc::new(Mutex::new(file)) })
    }

    fn reopen(&self) -> io::Result<()> {
        *self.locked() = open_for_appending(&self.path)?;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, File> {
        // A panic while writing leaves a file that can be written on.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_for_appending(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LockedFile<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LockedFile(self.locked())
    }
}

struct LockedFile<'a>(MutexGuard<'a, File>);

impl Write for LockedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes an event as one line.
struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line { json: self.0 == LogFormat::Json, message: String::new(), fields: String::new() };
        event.record(&mut line);
        let Line { json, message, fields } = line;
        let (time, level) = (time_now()?, level_name(*event.metadata().level()));
        if json {
            writeln!(writer, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"msg\":\"{message}\"{fields}}}")
        } else {
            writeln!(writer, "{time} [{level}] {message}{fields}")
        }
    }
}

/// The time in the form RabbitMQ's logs have it.
fn time_now() -> Result<String, fmt::Error> {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text))?;
    Ok(text.replacen('T', " ", 1).replacen('Z', "+00:00", 1))
}

/// The message and the fields of an event, escaped.
struct Line {
    json: bool,
    message: String,
    fields: String,
}

impl Line {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            escape(&mut self.message, value, self.json);
            return;
        }
        let bare =
            !self.json && !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        self.begin(field);
        if bare {
            escape(&mut self.fields, value, true);
        } else {
            self.fields.push('"');
            escape(&mut self.fields, value, true);
            self.fields.push('"');
        }
    }

    fn add_plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.begin(field);
        // Writing to a string cannot fail.
        let _ = write!(self.fields, "{value}");
    }

    fn begin(&mut self, field: &Field) {
        let name = field.name();
        // Writing to a string cannot fail.
        let _ = match (self.json, name) {
            (true, "time" | "level" | "msg") => write!(self.fields, ",\"field_{name}\":"),
            (true, _) => write!(self.fields, ",\"{name}\":"),
            (false, _) => write!(self.fields, " {name}="),
        };
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is not finite.
        if value.is_finite() { self.add_plain(field, value) } else { self.add(field, &value.to_string()) }
    }
}

/// Adds `text` with control characters, and what changes the direction or the line of text, as `\n` or `\u001b`.
/// `quoted` escapes quotes and backslashes too, as JSON wants it.
fn escape(target: &mut String, text: &str, quoted: bool) {
    let end = text.char_indices().map(|(index, _)| index).find(|index| *index >= MAX_VALUE_BYTES).unwrap_or(text.len());
    let (kept, cut) = text.split_at(end);
    for character in kept.chars() {
        match character {
            '"' | '\\' if quoted => target.extend(['\\', character]),
            '\n' => target.push_str("\\n"),
            '\r' => target.push_str("\\r"),
            '\t' => target.push_str("\\t"),
            character if misleading(character) => {
                // Writing to a string cannot fail; all these characters are below U+10000.
                let _ = write!(target, "\\u{:04x}", u32::from(character));
            }
            character => target.push(character),
        }
    }
    if !cut.is_empty() {
        target.push_str("...");
    }
}

fn misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A message for the screen: lines stay lines, anything else that could play tricks is escaped.
pub(crate) fn one_screen(message: &str) -> String {
    let mut shown = String::new();
    for (index, line) in message.split('\n').enumerate() {
        if index > 0 {
            shown.push('\n');
        }
        escape(&mut shown, line, false);
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// What `work` logs to a file at `level` in `format`, without the time.
    fn logged(level: LogLevel, format: LogFormat, work: impl FnOnce(&Log, &LogConfig)) -> String {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log/b.log");
        let file = Some((path.clone(), LogOutput { level, format }));
        let config = LogConfig { console: None, console_stream: ConsoleStream::Stderr, file };
        let (outputs, log) = outputs(&config).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(outputs), || work(&log, &config));
        fs::read_to_string(path).unwrap()
    }

    const NASTY: &str = "a\nfake [error] line\r\u{1b}[31mred\u{9b}2J \"q\" \\ \u{202e}x\u{7f}";

    #[test]
    fn text_lines_have_time_level_message_and_fields() {
        let text = logged(LogLevel::Info, LogFormat::Text, |_, _| {
            tracing::info!(port = 5672, user = "a b", peer = %"1.2.3.4", "accepted");
            tracing::debug!("not wanted");
        });
        let (time, rest) = text.split_once(" [").unwrap();
        assert_eq!(rest, "info] accepted port=5672 user=\"a b\" peer=1.2.3.4\n");
        assert_eq!(time.len(), "2026-01-31 12:00:00.000000+00:00".len(), "{time}");
        assert!(time.ends_with("+00:00") && time.as_bytes()[10] == b' ', "{time}");
    }

    #[test]
    fn json_lines_are_objects() {
        let text = logged(LogLevel::Debug, LogFormat::Json, |_, _| {
            tracing::warn!(count = 3, ok = true, share = f64::NAN, level = "x", "odd");
        });
        let (_, rest) = text.split_once(",\"level\"").unwrap();
        assert_eq!(
            rest,
            ":\"warning\",\"msg\":\"odd\",\"count\":3,\"ok\":true,\"share\":\"NaN\",\"field_level\":\"x\"}\n"
        );
    }

    #[test]
    fn nothing_a_client_sends_makes_a_line_or_an_escape_sequence() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(LogLevel::Info, format, |_, _| {
                tracing::info!(name = NASTY, shown = %NASTY, debugged = ?NASTY, "user said {NASTY}");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end_matches('\n').chars().any(misleading), "{text:?}");
            assert!(text.contains("\\u001b[31mred\\u009b2J"), "{text:?}");
        }
    }

    #[test]
    fn levels_change_and_files_are_reopened_while_running() {
        let text = logged(LogLevel::Warning, LogFormat::Text, |log, config| {
            tracing::info!("before");
            let mut config = config.clone();
            let (path, output) = config.file.as_mut().unwrap();
            output.level = LogLevel::Info;
            let moved = path.with_extension("1");
            fs::rename(&*path, &moved).unwrap();
            tracing::warn!("to the old file");
            log.reload(&config).unwrap();
            tracing::info!("to the new file");
            assert!(fs::read_to_string(moved).unwrap().ends_with("[warning] to the old file\n"));
        });
        assert!(text.ends_with("[info] to the new file\n") && !text.contains("before"), "{text}");
    }

    #[test]
    fn long_values_are_cut() {
        let mut cut = String::new();
        escape(&mut cut, &"é".repeat(MAX_VALUE_BYTES), false);
        assert_eq!(cut.len(), MAX_VALUE_BYTES + 3);
    }

    proptest! {
        #[test]
        fn any_text_stays_on_its_line(text in any::<String>()) {
            let mut escaped = String::new();
            escape(&mut escaped, &text, true);
            prop_assert!(!escaped.chars().any(misleading));
        }
    }
}
