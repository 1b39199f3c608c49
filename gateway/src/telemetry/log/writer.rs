//! The one thread that writes log lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait.
const MAX_LINES: usize = 16 << 10;
/// Most bytes that wait.
const MAX_BYTES: usize = 32 << 20;
/// How long the writing thread lets lines gather. Whoever logs under load finds it awake and need not wake it.
const GATHER: Duration = Duration::from_millis(1);

/// The near end of the queue. Writing is one allocation-free push.
#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
    waiting: Arc<AtomicUsize>,
    lost: Counter,
    max_bytes: usize,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is out.
    Flush(SyncSender<()>),
}

impl Writer {
    pub(super) fn start(out: impl Write + Send + 'static, json: bool) -> io::Result<Self> {
        Self::bounded(out, json, MAX_LINES, MAX_BYTES)
    }

    pub(super) fn bounded(out: impl Write + Send + 'static, json: bool, max_lines: usize, max_bytes: usize) -> io::Result<Self> {
        let (queue, messages) = sync_channel(max_lines);
        let writer = Self { queue, waiting: Arc::default(), lost: Counter::default(), max_bytes };
        let far_end =
            FarEnd { out: io::BufWriter::new(out), waiting: writer.waiting.clone(), lost: writer.lost.clone(), told: 0, json };
        std::thread::Builder::new().name("mayfly-log".into()).spawn(move || far_end.run(&messages))?;
        Ok(writer)
    }

    /// Takes a whole line, with its newline, or counts it as lost.
    pub(super) fn write(&self, line: Vec<u8>) {
        let bytes = line.len();
        let room = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            waiting.checked_add(bytes).filter(|sum| *sum <= self.max_bytes)
        });
        if room.is_err() {
            self.lost.inc();
        } else if self.queue.try_send(Message::Line(line)).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.lost.inc();
        }
    }

    pub(super) fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (answer, answered) = sync_channel(1);
        let mut message = Message::Flush(answer);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = answered.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    pub(super) fn lost(&self) -> Counter {
        self.lost.clone()
    }
}

impl Write for Writer {
    /// The subscriber writes each event in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Self::write(self, line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The far end of the queue.
struct FarEnd<W: Write> {
    out: io::BufWriter<W>,
    waiting: Arc<AtomicUsize>,
    lost: Counter,
    /// How many lost lines were told of.
    told: u64,
    json: bool,
}

impl<W: Write> FarEnd<W> {
    /// Writes until the last near end is gone. Flushes whenever there is nothing to write.
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take(message);
            let mut more = true;
            while more {
                messages.try_iter().for_each(|message| self.take(message));
                self.tell();
                let _ = self.out.flush();
                std::thread::sleep(GATHER);
                more = messages.try_recv().map(|message| self.take(message)).is_ok();
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                // A log that cannot be written has nowhere to say so but the metric.
                if self.out.write_all(&line).is_err() {
                    self.lost.inc();
                    self.told += 1;
                }
                self.waiting.fetch_sub(line.len(), Ordering::AcqRel);
            }
            Message::Flush(answer) => {
                self.tell();
                let _ = self.out.flush();
                let _ = answer.try_send(());
            }
        }
    }

    fn tell(&mut self) {
        let lost = self.lost.get();
        if lost == self.told {
            return;
        }
        let (timestamp, count) = (super::line::now(), lost - self.told);
        let written = if self.json {
            writeln!(self.out, r#"{{"timestamp":"{timestamp}","level":"ERROR","event":"log_lines_lost","count":{count}}}"#)
        } else {
            writeln!(self.out, "{timestamp} ERROR {count} log lines were lost: whatever reads the log is too slow")
        };
        if written.is_ok() {
            self.told = lost;
        }
    }
}
