//! Medians, and ratios of times that were measured in rounds.

use serde::Serialize;

/// The ratio of two times that were measured in the same rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The median of the ratios of all rounds.
    pub median: f64,
    /// Half the interquartile range, as a share of the median. `None` if there are too few rounds.
    pub spread: Option<f64>,
}

/// The smallest number of rounds whose spread means something.
const ROUNDS: usize = 3;

/// The largest spread of a ratio that is shown without a remark.
pub const PRECISE: f64 = 0.05;

/// The largest spread of a ratio that is shown at all.
pub const ROUGH: f64 = 0.25;

impl Ratio {
    /// Divides the times round by round, because a disturbance often affects a whole round. Returns `None` if the two
    /// have no round in common.
    pub fn of(times: &[f64], to: &[f64]) -> Option<Ratio> {
        let rounds = times.iter().zip(to);
        let ratios: Vec<f64> = rounds.map(|(time, to)| time / to).collect();
        let median = median(&ratios)?;
        let distance = quantile(&ratios, 0.75)? - quantile(&ratios, 0.25)?;
        Some(Ratio {
            median,
            spread: (ratios.len() >= ROUNDS).then_some(distance / 2.0 / median),
        })
    }

    pub fn is_precise(self) -> bool {
        self.spread.is_some_and(|spread| spread <= PRECISE)
    }

    /// Returns whether the rounds differ so much that the ratio says nothing.
    pub fn is_noise(self) -> bool {
        self.spread.is_some_and(|spread| spread > ROUGH)
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Returns the quantile for `share`, from 0 to 1, interpolated linearly.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn one_disturbed_round_does_not_change_the_ratio() {
        let to = [1.0, 10.0, 2.0, 4.0, 8.0];
        let times = [0.5, 5.0, 1.0, 2.0, 800.0];
        let expected = Ratio {
            median: 0.5,
            spread: Some(0.0),
        };
        assert_eq!(Ratio::of(&times, &to), Some(expected));
    }

    #[test]
    fn the_spread_is_half_the_interquartile_range() {
        let times = [1.0, 2.0, 3.0, 4.0, 5.0];
        let ratio = Ratio::of(&times, &[1.0; 5]).expect("five rounds");
        // The quartiles are 2 and 4.
        assert_eq!(ratio.median, 3.0);
        let spread = ratio.spread.expect("five rounds");
        assert!((spread - 1.0 / 3.0).abs() < 1e-12, "{ratio:?}");
        assert!(ratio.is_noise() && !ratio.is_precise());
    }

    #[test]
    fn times_are_divided_within_a_round() {
        // The machine is ten times slower in the second round, but the ratio is the same.
        let ratio = Ratio::of(&[2.0, 20.0, 4.0], &[1.0, 10.0, 2.0]).expect("three rounds");
        assert_eq!((ratio.median, ratio.spread), (2.0, Some(0.0)));
        assert!(ratio.is_precise() && !ratio.is_noise());
    }

    #[test]
    fn two_rounds_have_no_spread_and_are_not_precise() {
        let ratio = Ratio::of(&[2.0, 20.0], &[1.0, 10.0]).expect("two rounds");
        assert_eq!((ratio.median, ratio.spread), (2.0, None));
        assert!(!ratio.is_precise() && !ratio.is_noise());
    }
}
