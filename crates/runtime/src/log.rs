//! Output of a guest: read from its pipe, cut into lines, tagged with the call in flight, limited in rate.
//!
//! A task per guest reads the pipe whenever there is something in it. A call that has its answer reads what is left in
//! the pipe itself before it goes on: a bootstrap flushes before it answers, so everything the call printed is there.
//!
//! # Invariants
//! - Memory per guest is one line of at most [`LINE_BYTES_MAX`] and, when asked for, a tail of 4 KB. Never more.
//! - The pipe is always read on: a guest that prints without end is delayed, never blocked for ever. What is over
//!   the rate is dropped and counted, and the count is a line of its own in the log.
//! - Lines are data: they are cut at newlines and at the cap, nothing in them is looked at.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dunlin_model::{InstanceId, RequestId};
use jiff::Timestamp;
use tokio::net::unix::pipe;

/// Longest line that is kept, in bytes; the rest of a longer one is cut off.
const LINE_BYTES_MAX: usize = 32 << 10;
/// What ends a line that was cut off.
const CUT_MARK: &[u8] = b" ...[line truncated]";
/// Bytes of a call's output that can be asked back.
const TAIL_BYTES: usize = 4 << 10;
/// Output that is kept per second, in bytes; every line counts as [`LINE_COST`] more than it has.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// Output that is kept at once.
const BURST_BYTES: u64 = 4 << 20;
/// What a line costs besides its bytes.
const LINE_COST: u64 = 64;
/// How long the reader rests between two reads while output is being dropped, so that a flood costs little here.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Most bytes read before an answer is handed on: as much as a pipe can hold unless the guest goes on printing.
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// One line a guest printed, or one the platform wrote into its stream.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// Who printed it.
    pub instance: &'a InstanceId,
    /// The call in flight; absent between calls and when several are.
    pub request: Option<&'a RequestId>,
    /// The line without its end. Any bytes: not necessarily UTF-8.
    pub text: &'a [u8],
    /// When the platform read it.
    pub at: Timestamp,
}

/// Where lines go. Called from the reader of every guest: it must return at once and never block.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one line.
    fn line(&self, line: LogLine<'_>);
}

/// The output of one guest.
pub(crate) struct Output {
    pipe: pipe::Receiver,
    cutter: Mutex<Cutter>,
}

impl Output {
    /// Starts reading. The task ends with the pipe, that is when the cell has ended.
    pub(crate) fn start(pipe: OwnedFd) -> io::Result<Arc<Self>> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let output = Arc::new(Self { pipe, cutter: Mutex::new(Cutter::new(Instant::now())) });
        tokio::spawn(read_on(Arc::clone(&output)));
        Ok(output)
    }

    /// From now on lines belong to `instance`. What the bootstrap printed before is forgotten.
    pub(crate) fn open(&self, instance: InstanceId, sink: Arc<dyn LogSink>) {
        self.drain();
        let mut cutter = self.cutter();
        cutter.tail.clear();
        cutter.keep_tail = false;
        cutter.sink = Some((instance, sink));
    }

    /// What the bootstrap printed last, for the operator.
    pub(crate) fn boot_tail(&self) -> String {
        self.drain();
        String::from_utf8_lossy(&self.cutter().tail).into_owned()
    }

    /// Hands on what was printed so far, an unfinished line too.
    pub(crate) fn flush(&self) {
        self.drain();
        let mut cutter = self.cutter();
        cutter.end_line();
        cutter.report_loss();
    }

    /// A call begins: lines are its own from here on, unless another is in flight.
    pub(crate) fn call_begins(&self, request: &RequestId, keep_tail: bool) {
        self.drain();
        let mut cutter = self.cutter();
        cutter.in_flight += 1;
        cutter.request = (cutter.in_flight == 1).then(|| request.clone());
        if keep_tail {
            cutter.tail.clear();
            cutter.keep_tail = true;
        }
    }

    /// A call has its answer: what it printed is handed to the sink, and the tail back.
    pub(crate) fn call_ends(&self) -> Vec<u8> {
        self.flush();
        let mut cutter = self.cutter();
        cutter.in_flight = cutter.in_flight.saturating_sub(1);
        cutter.request = None;
        if cutter.in_flight == 0 && std::mem::take(&mut cutter.keep_tail) { std::mem::take(&mut cutter.tail) } else { Vec::new() }
    }

    /// Writes a line of the platform's into the stream.
    pub(crate) fn platform_line(&self, request: &RequestId, text: &str) {
        let cutter = self.cutter();
        if let Some((instance, sink)) = &cutter.sink {
            sink.line(LogLine { instance, request: Some(request), text: text.as_bytes(), at: Timestamp::now() });
        }
    }

    /// Reads what is in the pipe now. The reader task may be reading too; each read is cut under the lock.
    fn drain(&self) {
        let mut left = DRAIN_BYTES_MAX;
        while left > 0 {
            // Straight from the descriptor: what was printed a moment ago may not have reached the event loop yet.
            match self.read_some(|chunk| Ok(rustix::io::read(&self.pipe, chunk)?)) {
                Ok(Some(n)) => left = left.saturating_sub(n),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// One read: how many bytes, `None` at the end of the pipe.
    fn read_some(&self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Option<usize>> {
        // Read and cut under one lock, so that two readers cannot swap what they read.
        let mut cutter = self.cutter();
        let mut chunk = std::mem::take(&mut cutter.chunk);
        if chunk.is_empty() {
            chunk.resize(4 << 10, 0);
        }
        let result = read(&mut chunk[..]);
        if let Ok(n) = &result {
            let n = *n;
            cutter.take(&chunk[..n], Instant::now());
            if n == chunk.len() && n < READ_BYTES {
                // It prints much: read more at a time.
                chunk.resize(READ_BYTES, 0);
            }
        } else if chunk.len() == READ_BYTES {
            // Quiet again: an idle guest holds no large buffer.
            chunk = Vec::new();
        }
        cutter.chunk = chunk;
        match result {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    fn cutter(&self) -> MutexGuard<'_, Cutter> {
        self.cutter.lock().expect("a log sink does not panic")
    }
}

async fn read_on(output: Arc<Output>) {
    loop {
        if output.pipe.readable().await.is_err() {
            return;
        }
        // Through the event loop, so that it learns when the pipe is empty.
        match output.read_some(|chunk| output.pipe.try_read(chunk)) {
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => return,
        }
        if output.cutter().dropping() {
            tokio::time::sleep(FLOOD_PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Cuts bytes into lines, pays for each out of a budget, and hands them on. Knows no pipe and no clock.
struct Cutter {
    sink: Option<(InstanceId, Arc<dyn LogSink>)>,
    request: Option<RequestId>,
    in_flight: u32,
    /// The line under way, at most [`LINE_BYTES_MAX`].
    line: Vec<u8>,
    /// The rest of the line under way is being cut off.
    cutting: bool,
    /// Last bytes of the call's lines, or of the bootstrap's before there is a sink.
    tail: Vec<u8>,
    keep_tail: bool,
    /// What may still be kept, and since when that is so.
    budget: u64,
    since: Instant,
    lost_lines: u64,
    lost_bytes: u64,
    /// The buffer of the next read.
    chunk: Vec<u8>,
}

impl Cutter {
    fn new(now: Instant) -> Self {
        Self {
            sink: None,
            request: None,
            in_flight: 0,
            line: Vec::new(),
            cutting: false,
            tail: Vec::new(),
            keep_tail: true,
            budget: BURST_BYTES,
            since: now,
            lost_lines: 0,
            lost_bytes: 0,
            chunk: Vec::new(),
        }
    }

    fn take(&mut self, mut bytes: &[u8], now: Instant) {
        let earned = u64::try_from(now.saturating_duration_since(self.since).as_micros()).unwrap_or(u64::MAX);
        self.budget = self.budget.saturating_add(earned.saturating_mul(BYTES_PER_SECOND) / 1_000_000).min(BURST_BYTES);
        self.since = now;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.finish_line();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, more: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&more[..more.len().min(room)]);
        if more.len() > room {
            self.cutting = true;
            self.lost_bytes += (more.len() - room) as u64;
        }
    }

    /// Ends a line that has no newline, if one is under way.
    fn end_line(&mut self) {
        if !self.line.is_empty() || self.cutting {
            self.finish_line();
        }
    }

    fn finish_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if self.cutting {
            self.cutting = false;
            // What was cut off is told by its mark, not by the count of lost lines.
            if self.lost_lines == 0 {
                self.lost_bytes = 0;
            }
            line.truncate(LINE_BYTES_MAX - CUT_MARK.len());
            line.extend_from_slice(CUT_MARK);
        }
        let cost = line.len() as u64 + LINE_COST;
        if cost <= self.budget {
            self.report_loss();
            self.budget = self.budget.saturating_sub(cost);
            self.emit(&line);
        } else {
            self.lost_lines += 1;
            self.lost_bytes += line.len() as u64;
        }
        // The buffer goes on to the next line, unless it grew large.
        if line.capacity() <= 4 << 10 {
            line.clear();
            self.line = line;
        }
    }

    /// Says how much was dropped, once there is room again or the call is over.
    fn report_loss(&mut self) {
        if self.lost_lines == 0 {
            return;
        }
        let (lines, bytes) = (std::mem::take(&mut self.lost_lines), std::mem::take(&mut self.lost_bytes));
        self.emit(
            format!("[{lines} lines ({bytes} bytes) of output were dropped: more than {BYTES_PER_SECOND} bytes per second]")
                .as_bytes(),
        );
    }

    fn emit(&mut self, line: &[u8]) {
        if let Some((instance, sink)) = &self.sink {
            sink.line(LogLine { instance, request: self.request.as_ref(), text: line, at: Timestamp::now() });
        }
        if self.keep_tail {
            self.tail.extend_from_slice(&line[line.len().saturating_sub(TAIL_BYTES)..]);
            self.tail.push(b'\n');
            let over = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..over);
        }
    }

    fn dropping(&self) -> bool {
        self.lost_lines > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(Option<RequestId>, Vec<u8>)>>);

    impl LogSink for Lines {
        fn line(&self, line: LogLine<'_>) {
            self.0.lock().unwrap().push((line.request.cloned(), line.text.to_vec()));
        }
    }

    fn cutter() -> (Cutter, Arc<Lines>, Instant) {
        let now = Instant::now();
        let lines = Arc::new(Lines::default());
        let mut cutter = Cutter::new(now);
        cutter.sink = Some((InstanceId::random(), lines.clone()));
        (cutter, lines, now)
    }

    fn texts(lines: &Lines) -> Vec<Vec<u8>> {
        lines.0.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_the_reads_end() {
        let (mut cutter, lines, now) = cutter();
        for part in [&b"one\ntw"[..], b"o\n", b"\n", b"\xff\0\x1b[31m\nrest"] {
            cutter.take(part, now);
        }
        cutter.end_line();
        assert_eq!(texts(&lines), [&b"one"[..], b"two", b"", b"\xff\0\x1b[31m", b"rest"]);
    }

    #[test]
    fn a_line_without_end_is_cut_once_and_costs_one_line_of_memory() {
        let (mut cutter, lines, now) = cutter();
        for _ in 0..100 {
            cutter.take(&[b'x'; 64 << 10], now);
            assert!(cutter.line.capacity() <= 2 * LINE_BYTES_MAX);
        }
        cutter.take(b"\nnext\n", now);
        let texts = texts(&lines);
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0].len(), LINE_BYTES_MAX);
        assert!(texts[0].ends_with(CUT_MARK));
        assert_eq!(texts[1], b"next");
    }

    #[test]
    fn a_flood_is_dropped_counted_and_reported() {
        let (mut cutter, lines, now) = cutter();
        let block = b"0123456789\n".repeat(1000);
        for _ in 0..1000 {
            cutter.take(&block, now);
        }
        let kept = BURST_BYTES / (10 + LINE_COST);
        assert_eq!(texts(&lines).len() as u64, kept);
        cutter.take(b"later\n", now + Duration::from_secs(1));
        let texts = texts(&lines);
        assert_eq!(texts.last().unwrap(), b"later");
        let report = String::from_utf8(texts[texts.len() - 2].clone()).unwrap();
        assert!(report.starts_with(&format!("[{} lines ({} bytes)", 1_000_000 - kept, (1_000_000 - kept) * 10)), "{report}");
    }

    #[test]
    fn the_tail_is_the_last_four_kilobytes() {
        let (mut cutter, _, now) = cutter();
        for i in 0..2000 {
            cutter.take(format!("line {i}\n").as_bytes(), now);
        }
        assert_eq!(cutter.tail.len(), TAIL_BYTES);
        assert!(cutter.tail.ends_with(b"line 1998\nline 1999\n"));
    }

    #[tokio::test]
    async fn what_is_in_the_pipe_when_a_call_ends_belongs_to_that_call() {
        let (reader, mut writer) = io::pipe().unwrap();
        let output = Output::start(reader.into()).unwrap();
        let lines = Arc::new(Lines::default());
        output.open(InstanceId::random(), lines.clone());
        let requests = [RequestId::random(), RequestId::random()];
        for request in &requests {
            output.call_begins(request, true);
            io::Write::write_all(&mut writer, format!("hello from {request}").as_bytes()).unwrap();
            assert_eq!(output.call_ends(), format!("hello from {request}\n").into_bytes());
        }
        let seen = lines.0.lock().unwrap().clone();
        let expected: Vec<_> =
            requests.iter().map(|request| (Some(request.clone()), format!("hello from {request}").into_bytes())).collect();
        assert_eq!(seen, expected);
    }
}
