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

/// Answers these questions until the asker ends.
pub fn serve(questions: impl Read, mut answers: impl Write) -> io::Result<()> {
    for question in BufReader::new(questions).lines() {
        let dropped = fs::write("/proc/sys/vm/drop_caches", question?);
        answers.write_all(if dropped.is_ok() { b"done\n" } else { b"no\n" })?;
    }
    Ok(())
}
