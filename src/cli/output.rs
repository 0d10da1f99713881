//! The only place that writes to standard output and standard error for the commands.
//!
//! A reader that goes away (`| head`) ends the program quietly.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{
    Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle,
    presets,
};
use serde::Serialize;

use crate::error::{ExitCode, Failure};

/// How a command shows its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// Prints text to standard output, with a line end.
pub fn line(text: &str) -> Result<(), Failure> {
    write_all(text.as_bytes()).and_then(|()| write_all(b"\n"))
}

/// Writes bytes to standard output.
pub fn write_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Nobody reads any more: not an error, but nothing more to do either.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Ok, ""))
        }
        Err(error) => Err(Failure::new(ExitCode::Error, format!("cannot write output: {error}"))),
    }
}

/// Prints a value as indented JSON.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(ExitCode::Error, format!("cannot show as JSON: {error}")))?;
    line(&text)
}

/// Prints an error text to standard error.
pub fn error(text: &str) {
    let mut err = std::io::stderr().lock();
    let painted = if paints(&std::io::stderr()) {
        text.replacen("error:", "\u{1b}[1;31merror:\u{1b}[0m", 1)
            .replace("\nhint:", "\n\u{1b}[36mhint:\u{1b}[0m")
    } else {
        text.to_owned()
    };
    // Where standard error is gone there is nobody left to tell.
    let _ = writeln!(err, "{painted}");
}

/// Whether colour belongs on this stream: a terminal, and `NO_COLOR` is not set
/// (<https://no-color.org>).
pub fn paints(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table in the look of `kubectl`: no borders, two spaces between columns.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    table_of(&header)
}

/// The same with any number of columns.
pub fn table_of(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

/// What etcdctl's tables look like (`etcdctl/ctlv3/command/printer_table.go`).
const BOXED: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('+', '-', '+', '+'))
    .header_lines(ContentLineStyle::new('|', '|', '|'))
    .header_separator(LineStyle::new('+', '-', '+', '+'))
    .content_lines(ContentLineStyle::new('|', '|', '|'))
    .bottom_border(LineStyle::new('+', '-', '+', '+'));

/// A table with lines around it, as etcdctl prints it.
pub fn boxed(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let aligned = |text: &str, alignment| Cell::new(text).set_alignment(alignment);
    let row = |row: Vec<String>| {
        row.into_iter().map(|text| aligned(&text, CellAlignment::Right)).collect::<Vec<_>>()
    };
    // A title that cannot be in the middle is left of it.
    let title = |(at, title): (usize, &&str)| {
        let width =
            rows.iter().filter_map(|row| row.get(at)).map(|text| text.chars().count()).max();
        let gap = width.unwrap_or(0).saturating_sub(title.len());
        aligned(&format!("{title}{}", " ".repeat(gap % 2)), CellAlignment::Center)
    };
    let titles: Vec<Cell> = header.iter().enumerate().map(title).collect();
    let mut table = Table::new();
    table
        .load_style(BOXED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles)
        .add_rows(rows.into_iter().map(row));
    line(&table.to_string())
}

/// A table's text without the blanks that pad the first column and the line ends.
pub fn render(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A span of seconds in kubectl's short form: `45s`, `12m`, `3h`, `8d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in binary units, as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if count >= size {
            return format!("{}.{} {unit}", count / size, count % size * 10 / size);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_kubectl() {
        assert_eq!(
            [5, 119, 120, 7199, 7200, 172_799, 172_800].map(age),
            ["5s", "119s", "2m", "119m", "2h", "47h", "2d"]
        );
    }

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let mut table = table(["NAME", "STATUS"]);
        table.add_row(["server1", "Ready"]);
        assert_eq!(render(&mut table), "NAME      STATUS\nserver1   Ready");
    }
}
