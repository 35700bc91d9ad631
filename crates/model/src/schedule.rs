//! When something is due: again and again by a cron expression, or once, on the clocks of a time zone.
//!
//! The dialect is the contract's (section 10.1): six fields `second minute hour day-of-month month day-of-week`, the second
//! a plain number, so that nothing is due more than once a minute. What a change of the clocks does is the library's rule:
//! what falls into the hour that is left out is due when the hour is over, and a fixed time in the hour that comes twice is
//! due once.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Longest expression, time or name of a time zone, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// When something is due.
#[derive(Clone)]
pub struct Schedule {
    due: Due,
    zone: TimeZone,
}

#[derive(Clone)]
enum Due {
    Again(Box<Cron>),
    Once(Timestamp),
}

impl Schedule {
    /// Reads `cron(0 0 4 * * *)` or `at(2026-01-02T03:04:05)`.
    ///
    /// # Errors
    /// What is wrong and what would be right, to be read after the member's name.
    pub fn parse(expression: &str, zone: &TimeZone) -> Result<Self, String> {
        let inside = |name: &str| expression.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        let due = if let Some(cron) = inside("cron") {
            Due::Again(Box::new(read_cron(cron)?))
        } else if let Some(time) = inside("at") {
            Due::Once(read_time(time, zone)?)
        } else {
            return Err(format!(
                "must be cron(second minute hour day-of-month month day-of-week) or at(2026-01-02T03:04:05) (actual: '{}')",
                shown(expression)
            ));
        };
        Ok(Self { due, zone: zone.clone() })
    }

    /// The last time it was due, `now` included.
    #[must_use]
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.due {
            Due::Again(cron) => Some(cron.find_previous_occurrence(&self.local(now), true).ok()?.timestamp()),
            Due::Once(at) => Some(*at).filter(|at| *at <= now),
        }
    }

    /// The next time it is due, `now` not included.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.due {
            Due::Again(cron) => Some(cron.find_next_occurrence(&self.local(now), false).ok()?.timestamp()),
            Due::Once(at) => Some(*at).filter(|at| *at > now),
        }
    }

    /// Whole seconds: nothing is due in between.
    fn local(&self, now: Timestamp) -> Zoned {
        Timestamp::from_second(now.as_second()).unwrap_or(now).to_zoned(self.zone.clone())
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.due {
            Due::Again(cron) => write!(f, "cron({}) in {:?}", cron.as_str(), self.zone.iana_name()),
            Due::Once(at) => write!(f, "at({at})"),
        }
    }
}

/// The time zone of that name, for example `Asia/Shanghai`; none means UTC.
///
/// # Errors
/// When there is no such time zone.
pub fn read_zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(TimeZone::UTC) };
    let plain = name.len() <= TEXT_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+'));
    let found = if plain { TimeZone::get(name).ok() } else { None };
    found.ok_or_else(|| format!("must be a time zone like Asia/Shanghai or UTC (actual: '{}')", shown(name)))
}

/// A time like `2026-01-02T03:04:05Z`; without `Z` or an offset it is on the clocks of `zone`.
///
/// # Errors
/// When it is no such time.
pub fn read_time(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || format!("must be a time like 2026-01-02T03:04:05Z, or without Z in the timeZone (actual: '{}')", shown(text));
    if text.len() > TEXT_BYTES_MAX || !text.contains('T') {
        return Err(wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // An offset that no timestamp has is not to be overlooked.
    let local: DateTime =
        if text.ends_with(|last: char| last.is_ascii_digit()) { text.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
    zone.to_timestamp(local).map_err(|_| wrong())
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

fn read_cron(text: &str) -> Result<Cron, String> {
    const FORM: &str = "must have six fields between the brackets: second minute hour day-of-month month day-of-week";
    let fields: Vec<&str> = text.split(' ').filter(|field| !field.is_empty()).collect();
    let [second, minute, hour, day, month, weekday] = fields[..] else { return Err(FORM.to_owned()) };
    let plain =
        |field: &str| field.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-' | b'*' | b'/' | b'?'));
    if text.len() > TEXT_BYTES_MAX || !fields.iter().all(|field| plain(field)) {
        return Err(format!(
            "must have only digits, names of months and weekdays, and , - * / ? in its fields (actual: '{}')",
            shown(text)
        ));
    }
    if second.parse::<u8>().is_err() {
        return Err(format!("must have a plain number from 0 to 59 as its second (actual: '{}')", shown(second)));
    }
    if [second, minute, hour, month].iter().any(|field| field.contains('?')) {
        return Err("must have ? in the fields of the days only".to_owned());
    }
    if weekday.contains('/') || weekday.split([',', '-']).any(|part| part == "0") {
        return Err(format!(
            "must have 1 to 7 (Monday to Sunday) or MON to SUN as its day of the week (actual: '{}')",
            shown(weekday)
        ));
    }
    let named = |field: &str, names: &[&str]| {
        let words = field.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        words.into_iter().all(|word| names.iter().any(|name| name.eq_ignore_ascii_case(word)))
    };
    let plain = [minute, hour, day].iter().all(|field| named(field, &[]));
    if !plain || !named(month, &MONTHS) || !named(weekday, &WEEKDAYS) {
        return Err(format!("must have JAN to DEC and MON to SUN as its only words (actual: '{}')", shown(text)));
    }
    let any = |field: &str| if field == "?" { "*".to_owned() } else { field.to_owned() };
    let pattern = format!("{second} {minute} {hour} {} {month} {}", any(day), any(weekday));
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    let cron = parser.parse(&pattern).map_err(|error| format!("is no cron expression: {error} (actual: '{}')", shown(text)))?;
    // The 30th of February never comes.
    match cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!("is never due (actual: '{}')", shown(text))),
    }
}

/// What a client sent, as far as it is fit to be repeated.
fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        read_zone(Some(name)).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_cron_expression_is_due_on_the_clocks_of_its_zone() {
        let at_four = Schedule::parse("cron(0 0 4 * * *)", &zone("Asia/Shanghai")).unwrap();
        assert_eq!(at_four.next(time("2026-03-01T00:00:00Z")), Some(time("2026-03-01T20:00:00Z")));
        assert_eq!(at_four.last(time("2026-03-01T20:00:00Z")), Some(time("2026-03-01T20:00:00Z")));
        assert_eq!(at_four.last(time("2026-03-01T19:59:59Z")), Some(time("2026-02-28T20:00:00Z")));
        let workdays = Schedule::parse("cron(30 15 8 ? JAN,FEB MON-FRI)", &TimeZone::UTC).unwrap();
        assert_eq!(workdays.next(time("2026-01-02T12:00:00Z")), Some(time("2026-01-05T08:15:30Z")));
        assert_eq!(workdays.next(time("2026-02-27T12:00:00Z")), Some(time("2027-01-01T08:15:30Z")));
        let sundays = Schedule::parse("cron(0 0 0 ? * 7)", &TimeZone::UTC).unwrap();
        assert_eq!(sundays.next(time("2026-01-01T00:00:00Z")), Some(time("2026-01-04T00:00:00Z")));
    }

    #[test]
    fn a_single_moment_is_due_once() {
        let once = Schedule::parse("at(2026-07-01T10:00:00)", &zone("Europe/Berlin")).unwrap();
        let moment = time("2026-07-01T08:00:00Z");
        assert_eq!((once.last(moment), once.next(moment)), (Some(moment), None));
        let before = moment - SignedDuration::from_secs(1);
        assert_eq!((once.last(before), once.next(before)), (None, Some(moment)));
        let absolute = Schedule::parse("at(2026-07-01T10:00:00Z)", &zone("Europe/Berlin")).unwrap();
        assert_eq!(absolute.next(moment), Some(time("2026-07-01T10:00:00Z")));
    }

    /// Looks at every minute of three years around the changes of the clocks, and at what is due next and was due last.
    #[test]
    fn what_is_due_agrees_with_a_look_at_every_minute() {
        for (name, from) in [
            ("UTC", "2026-02-20T00:00:00Z"),
            ("Europe/Berlin", "2026-03-27T00:00:00Z"),
            ("America/New_York", "2026-10-30T00:00:00Z"),
        ] {
            for expression in ["cron(0 */7 * * * *)", "cron(0 30 1,2 * * *)", "cron(0 15 2-4 * * 7)", "cron(0 0 12 1 3,4,11 ?)"] {
                let schedule = Schedule::parse(expression, &zone(name)).unwrap();
                let Due::Again(cron) = &schedule.due else { unreachable!() };
                let (mut now, mut due) = (time(from), Vec::new());
                for _ in 0..60 * 24 * 5 {
                    if cron.is_time_matching(&schedule.local(now)).unwrap() {
                        due.push(now);
                    }
                    now += SignedDuration::from_mins(1);
                }
                // A fixed time that comes twice is due once, and one that is left out is made up for: so of those that
                // match, at most one hour's worth is not due, and what is due matches or stands at the end of a gap.
                let mut at = time(from) - SignedDuration::from_secs(1);
                let mut found = Vec::new();
                while let Some(next) = schedule.next(at).filter(|next| *next < now) {
                    assert!(next > at, "{name} {expression}: {next} comes after {at}");
                    assert_eq!(schedule.last(next), Some(next), "{name} {expression}");
                    let between = next + SignedDuration::from_secs(59);
                    assert_eq!(schedule.last(between), Some(next), "{name} {expression}");
                    found.push(next);
                    at = next;
                }
                let missing = due.iter().filter(|time| !found.contains(time)).count();
                let made_up = found.iter().filter(|time| !due.contains(time)).count();
                let changes = usize::from(name != "UTC");
                assert!(missing <= changes * 2 && made_up <= changes * 2, "{name} {expression}: {missing} {made_up}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (expression, part) in [
            ("", "must be cron("),
            ("0 0 4 * * *", "must be cron("),
            ("cron(0 0 4 * * *", "must be cron("),
            ("cron()", "six fields"),
            ("cron(0 4 * * *)", "six fields"),
            ("cron(0 0 4 * * * 2026)", "six fields"),
            ("cron(* 0 4 * * *)", "plain number"),
            ("cron(0/5 0 4 * * *)", "plain number"),
            ("cron(60 0 4 * * *)", "is no cron"),
            ("cron(0 61 4 * * *)", "is no cron"),
            ("cron(0 0 25 * * *)", "is no cron"),
            ("cron(0 0 4 32 * *)", "is no cron"),
            ("cron(0 0 4 * 13 *)", "is no cron"),
            ("cron(0 0 4 ? * 0)", "Monday"),
            ("cron(0 0 4 ? * 8)", "is no cron"),
            ("cron(0 0 4 ? * 1/2)", "Monday"),
            ("cron(0 0 4 L * *)", "only words"),
            ("cron(0 ? 4 * * *)", "days only"),
            ("cron(0 0 4 * * \u{202e})", "only digits"),
            ("cron(0 0 0 30 2 ?)", "never due"),
            ("cron(@daily)", "six fields"),
            ("at()", "must be a time"),
            ("at(2026-13-01T00:00:00)", "must be a time"),
            ("at(2026-01-01)", "must be a time"),
            ("at(2026-01-01T00:00:00+99:00)", "must be a time"),
            ("at(tomorrow)", "must be a time"),
        ] {
            let error = Schedule::parse(expression, &TimeZone::UTC).expect_err(expression);
            assert!(error.contains(part), "{expression}: {error}");
        }
        let long = format!("cron({})", "0 ".repeat(100_000));
        assert!(Schedule::parse(&long, &TimeZone::UTC).is_err());
        for name in ["Mars/Olympus", "../../etc/passwd", "Asia/Shanghai\0", "+08:00", " UTC"] {
            assert!(read_zone(Some(name)).is_err(), "{name}");
        }
        assert_eq!(read_zone(None), Ok(TimeZone::UTC));
    }
}
