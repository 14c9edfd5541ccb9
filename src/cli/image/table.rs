//! Columns as docker writes them, and how it writes sizes, times and ids.

use std::io::{self, Write};

use crate::cli::error::one_line;
use crate::store::{Digest, timestamp};

/// Rows under a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// The fewest characters that a column has, the spaces behind it included.
const NARROWEST: usize = 10;
/// The spaces between columns.
const APART: usize = 3;

impl Table {
    /// Begins with the heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a row. Control characters are escaped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// Writes all rows: columns are three spaces apart and at least [`NARROWEST`] wide. The last one is not filled up.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            NARROWEST.max(widest + APART)
        };
        let widths: Vec<usize> = (1..columns).map(|column| width(column - 1)).collect();
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&widths) {
                write!(out, "{cell:width$}")?;
            }
            writeln!(out, "{}", row.last().map_or("", String::as_str))?;
        }
        Ok(())
    }
}

/// A number of bytes with four significant characters at most: `1.93kB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    // Three digits count; zeros behind the point do not.
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// How long ago a time of a configuration was: `3 weeks ago`.
pub fn since(created: Option<&str>) -> String {
    let Some(time) = created.and_then(timestamp::parse) else { return "N/A".to_owned() };
    format!("{} ago", duration(timestamp::now() - time))
}

fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// An id: its first 12 digits or, if `whole`, all of it.
pub fn id(digest: &Digest, whole: bool) -> String {
    if whole { digest.to_string() } else { digest.hex()[..12].to_owned() }
}

/// The beginning of `text`, of at most `most` characters.
pub fn cut(text: &str, most: usize, whole: bool) -> String {
    if whole || text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1930, "1.93kB"),
            (5_580_000, "5.58MB"),
            (10_800_000, "10.8MB"),
            (67_900_000, "67.9MB"),
            (386_000_000, "386MB"),
            (2_000_000, "2MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_those_of_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3000, "50 minutes"),
            (4000, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["a\u{1b}[2J".to_owned(), "b\n".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A            B\na\\u{1b}[2J   b\\n\n");
    }

    /// As docker 28.2 writes `history` of an image.
    #[test]
    fn columns_are_those_of_docker() {
        let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        let row = |cells: [&str; 5]| cells.map(ToOwned::to_owned);
        table.row(row(["aaaaaaaaaaaa", "3 years ago", "/bin/sh", "5B", ""]));
        table.row(row(["<missing>", "3 years ago", "x", "0B", "made"]));
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let docker = [
            "IMAGE          CREATED       CREATED BY   SIZE      COMMENT\n",
            "aaaaaaaaaaaa   3 years ago   /bin/sh      5B        \n",
            "<missing>      3 years ago   x            0B        made\n",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), docker.concat());
    }
}
