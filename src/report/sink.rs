//! Where events become output: lines for people, with live bars on a terminal, or JSON lines.

use std::collections::BTreeMap;
use std::io::Write;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::{Detail, lines};
use crate::run::event::{Event, EventSink};

/// Shows lines, and bars while executors are pushed.
pub struct TextSink<W: Write + Send> {
    out: W,
    detail: Detail,
    bars: MultiProgress,
    uploads: BTreeMap<String, ProgressBar>,
    /// The header of the play or task that has no result yet. A task that nothing came of (all
    /// hosts were skipped by their batch) leaves no empty header behind.
    pending: Vec<String>,
}

impl<W: Write + Send> TextSink<W> {
    /// Writes to `out`; bars are drawn on standard error when `live`.
    pub fn new(out: W, detail: Detail, live: bool) -> Self {
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            out,
            detail,
            bars: MultiProgress::with_draw_target(target),
            uploads: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    fn print(&mut self, lines: &[String]) {
        let out = &mut self.out;
        self.bars.suspend(|| {
            for line in lines {
                // A reader that went away (`| head`) must not end the run in its middle.
                let _ = writeln!(out, "{line}");
            }
            let _ = out.flush();
        });
    }

    fn upload(&mut self, host: &str, done_bytes: u64, total_bytes: u64) {
        let bars = &self.bars;
        let bar = self.uploads.entry(host.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total_bytes));
            let template = "{prefix:20} {bar:30} {bytes:>10}/{total_bytes} {bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(host.to_owned());
            bar
        });
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
        if done_bytes >= total_bytes {
            bar.finish_and_clear();
        }
    }
}

impl<W: Write + Send> EventSink for TextSink<W> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Upload { host, done_bytes, total_bytes } => {
                self.upload(host, *done_bytes, *total_bytes);
            }
            Event::Play { .. } => self.pending = lines(event, self.detail),
            Event::Task { .. } => {
                // A play's header is kept until its first task has a result.
                self.pending.truncate(2);
                if self.pending.get(1).is_some_and(|line| !line.starts_with("PLAY [")) {
                    self.pending.clear();
                }
                self.pending.extend(lines(event, self.detail));
            }
            _ => {
                let mut shown = match event {
                    Event::Result(_) | Event::Retry { .. } => std::mem::take(&mut self.pending),
                    _ => Vec::new(),
                };
                shown.extend(lines(event, self.detail));
                self.print(&shown);
            }
        }
    }
}

/// Writes each event as a line of JSON.
pub struct JsonSink<W: Write + Send> {
    out: W,
}

impl<W: Write + Send> JsonSink<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> EventSink for JsonSink<W> {
    fn event(&mut self, event: &Event) {
        if let Ok(text) = serde_json::to_string(event) {
            // As above: a reader that went away does not end the run.
            let _ = writeln!(self.out, "{text}");
            let _ = self.out.flush();
        }
    }
}
