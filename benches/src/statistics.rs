//! Medians and spreads.

use std::time::Duration;

use crate::sample::Sample;

/// Several samples of one thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// Median of the wall times.
    pub wall: Duration,
    /// The shortest.
    pub fastest: Duration,
    /// The longest.
    pub slowest: Duration,
    /// Median of the CPU times.
    pub cpu: Duration,
    /// The highest peak of all.
    pub peak_bytes: u64,
}

impl Summary {
    /// `None` of no samples.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let walls = sorted(samples.iter().map(|sample| sample.wall));
        Some(Self {
            count: samples.len(),
            wall: median(&walls)?,
            fastest: *walls.first()?,
            slowest: *walls.last()?,
            cpu: median(&sorted(samples.iter().map(|sample| sample.cpu)))?,
            peak_bytes: samples.iter().map(|sample| sample.peak_bytes).max()?,
        })
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times
}

/// The middle one, or the mean of the two in the middle.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some((*lower + *upper) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(millis: &[u64], expected: Option<(u64, u64, u64)>) {
        let sample = |millis: &u64| {
            let time = Duration::from_millis(*millis);
            Sample { wall: time, cpu: time, peak_bytes: *millis }
        };
        let summary = Summary::of(&millis.iter().map(sample).collect::<Vec<_>>());
        let figures = summary
            .map(|s| (s.fastest, s.wall, s.slowest))
            .map(|(a, b, c)| (a.as_millis() as u64, b.as_millis() as u64, c.as_millis() as u64));
        assert_eq!(figures, expected);
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        check(&[], None);
        check(&[7], Some((7, 7, 7)));
        check(&[30, 10, 20], Some((10, 20, 30)));
        check(&[40, 10, 20, 30], Some((10, 25, 40)));
    }
}
