//! What was lately: numbers that fade.

use std::time::Duration;

use tokio::time::Instant;

/// How often something happens, with a memory of about a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_second: f64,
    at: Instant,
}

const MEMORY_SECONDS: f64 = 60.0;

impl Rate {
    pub(super) fn none(now: Instant) -> Self {
        Self { per_second: 0.0, at: now }
    }

    /// It happened.
    pub(super) fn note(&mut self, now: Instant) {
        *self = Self { per_second: self.at(now) + 1.0 / MEMORY_SECONDS, at: now };
    }

    /// Times per second, as of now.
    pub(super) fn at(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.per_second * (-age / MEMORY_SECONDS).exp()
    }
}

/// The most of something that there was, halved with every half-life that went by since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peak {
    value: f64,
    at: Instant,
    half_life: Duration,
}

impl Peak {
    pub(super) fn none(half_life: Duration, now: Instant) -> Self {
        Self { value: 0.0, at: now, half_life }
    }

    /// There are so many now.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    pub(super) fn note(&mut self, count: usize, now: Instant) {
        self.value = self.faded(now).max(count as f64);
        self.at = now;
    }

    /// The nearest whole number, as of now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count and has shrunk since")]
    pub(super) fn at(&self, now: Instant) -> usize {
        self.faded(now).round() as usize
    }

    fn faded(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        self.value * (-age.as_secs_f64() / self.half_life.as_secs_f64()).exp2()
    }
}

/// How long something takes, the last eight times or so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usual(Option<f64>);

impl Usual {
    /// It took so long.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.0 = Some(self.0.map_or(took, |before| before + (took - before) / 8.0));
    }

    /// In seconds, once it is known.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_halves_with_every_half_life_and_a_higher_one_takes_its_place() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut peak = Peak::none(minute, now);
        peak.note(8, now);
        peak.note(3, now);
        assert_eq!([0, 1, 2, 3, 10].map(|n| peak.at(now + minute * n)), [8, 4, 2, 1, 0]);
        peak.note(5, now + minute);
        assert_eq!(peak.at(now + minute), 5);
    }

    #[test]
    fn a_rate_of_one_a_second_is_found_and_forgotten() {
        let mut now = Instant::now();
        let mut rate = Rate::none(now);
        for _ in 0..600 {
            now += Duration::from_secs(1);
            rate.note(now);
        }
        assert!((0.9..1.1).contains(&rate.at(now)), "{rate:?}");
        assert!(rate.at(now + Duration::from_secs(600)) < 0.001);
    }

    #[test]
    fn what_is_usual_follows_what_happens() {
        let mut usual = Usual::default();
        assert_eq!(usual.seconds(), None);
        usual.note(Duration::from_secs(9));
        assert_eq!(usual.seconds(), Some(9.0));
        for _ in 0..50 {
            usual.note(Duration::from_secs(1));
        }
        assert!(usual.seconds().is_some_and(|seconds| seconds < 1.1));
    }
}
