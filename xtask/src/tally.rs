//! Counting tests by what their runners print.
//!
//! Understood are libtest (`test result: ok. 3 passed; 0 failed; 1 ignored; …`), Python's unittest (`Ran 3 tests in …`
//! followed by `OK (skipped=1)` or `FAILED (failures=1, errors=1)`), node:test (`# pass 3`) and a plain line
//! `3 passed, 0 failed, 1 skipped`.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Whether nothing was counted.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a runner's output line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    counted: Tally,
    /// Tests of a unittest run whose verdict is still to come.
    ran: Option<u64>,
}

impl Reader {
    /// Takes in one line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
            self.counted += words(counts, ';');
        } else if let Some(rest) = line.strip_prefix("Ran ") {
            self.ran = rest.split_once(" test").and_then(|(count, _)| count.parse().ok());
        } else if let Some(ran) = self.ran.filter(|_| verdict(line)) {
            self.ran = None;
            let (failed, skipped) = (value(line, "failures=") + value(line, "errors="), value(line, "skipped="));
            self.counted += Tally { passed: ran.saturating_sub(failed + skipped), failed, skipped };
        } else if let Some(rest) = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")) {
            self.counted += node(rest);
        } else if line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(" passed, ") {
            self.counted += words(line, ',');
        }
    }

    /// What was counted so far.
    pub(crate) fn tally(&self) -> Tally {
        self.counted
    }
}

fn verdict(line: &str) -> bool {
    line == "OK" || line.starts_with("OK (") || line.starts_with("FAILED (") || line.starts_with("NO TESTS RAN")
}

fn words(text: &str, separator: char) -> Tally {
    let mut tally = Tally::default();
    for part in text.split(separator) {
        let Some((count, word)) = part.trim().split_once(' ') else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        match word {
            "passed" => tally.passed += count,
            "failed" => tally.failed += count,
            "ignored" | "skipped" => tally.skipped += count,
            _ => {}
        }
    }
    tally
}

fn node(rest: &str) -> Tally {
    let Some((word, count)) = rest.split_once(' ') else { return Tally::default() };
    let Ok(count) = count.parse() else { return Tally::default() };
    match word {
        "pass" => Tally { passed: count, ..Tally::default() },
        "fail" | "cancelled" => Tally { failed: count, ..Tally::default() },
        "skipped" | "todo" => Tally { skipped: count, ..Tally::default() },
        _ => Tally::default(),
    }
}

fn value(line: &str, key: &str) -> u64 {
    let digits = line.split_once(key).map_or("", |(_, rest)| rest);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: &str) {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        assert_eq!(reader.tally().to_string(), expected, "{output}");
    }

    #[test]
    fn each_runners_summary_is_counted() {
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
             test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "14 passed, 1 failed, 1 skipped",
        );
        check("Ran 5 tests in 0.2s\n\nOK (skipped=2)", "3 passed, 0 failed, 2 skipped");
        check("Ran 5 tests in 0.2s\n\nFAILED (failures=1, errors=2)", "2 passed, 3 failed, 0 skipped");
        check("Ran 1 test in 0.2s\n\nOK", "1 passed, 0 failed, 0 skipped");
        check("# tests 4\n# pass 3\n# fail 1\n# skipped 0", "3 passed, 1 failed, 0 skipped");
        check("ℹ pass 3\nℹ fail 0\nℹ skipped 1", "3 passed, 0 failed, 1 skipped");
        check("7 passed, 1 failed, 2 skipped", "7 passed, 1 failed, 2 skipped");
        check("7 passed, 1 failed", "7 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn other_lines_count_nothing() {
        check("OK\nrunning 3 tests\ntest a ... ok\n# a heading\n12 things passed", "0 passed, 0 failed, 0 skipped");
    }
}
