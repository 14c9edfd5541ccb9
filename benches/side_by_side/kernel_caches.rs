//! Emptying the caches of the kernel, which only real root may do: whoever measures asks the process that started it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::Outcome;

/// What to empty, by the number that the kernel takes.
#[derive(Clone, Copy, Debug)]
pub enum Drop {
    /// Names and inodes, not data.
    Names = 2,
    /// Everything.
    All = 3,
}

/// Asks for it over standard output and waits for the answer on standard input; false where nobody may.
pub fn drop(what: Drop) -> Outcome<bool> {
    let mut output = io::stdout();
    writeln!(output, "{}", what as u8)?;
    output.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "done")
}

/// Answers these questions until the asker ends; how often caches were emptied for it.
pub fn serve(questions: impl Read, mut answers: impl Write) -> io::Result<u64> {
    let mut times = 0;
    for question in BufReader::new(questions).lines() {
        let dropped = fs::write("/proc/sys/vm/drop_caches", question?);
        times += u64::from(dropped.is_ok());
        answers.write_all(if dropped.is_ok() { b"done\n" } else { b"no\n" })?;
    }
    Ok(times)
}

/// How often anybody has made the kernel forget names and inodes since it started.
pub fn drops() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("drop_slab "));
    line.and_then(|number| number.parse().ok()).unwrap_or_default()
}
