//! Medians, spreads and ratios of what was measured in rounds.

use serde::Serialize;

/// A ratio of two times that took turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The median of the rounds' ratios.
    pub median: f64,
    /// Half the distance between the quartiles, as a share of the median.
    pub spread: f64,
}

impl Ratio {
    /// Round by round: what disturbs a round disturbs both. None without a round that both have finished.
    pub fn of(times: &[f64], to: &[f64]) -> Option<Ratio> {
        let rounds = times.iter().zip(to);
        let ratios: Vec<f64> = rounds.map(|(time, to)| time / to).collect();
        let median = median(&ratios)?;
        let distance = quantile(&ratios, 0.75)? - quantile(&ratios, 0.25)?;
        Some(Ratio {
            median,
            spread: distance / 2.0 / median,
        })
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which that share of all lies; between two of them in proportion.
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
    fn a_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn one_disturbed_round_does_not_move_a_ratio() {
        let to = [1.0, 10.0, 2.0, 4.0, 8.0];
        let times = [0.5, 5.0, 1.0, 2.0, 800.0];
        let expected = Ratio {
            median: 0.5,
            spread: 0.0,
        };
        assert_eq!(Ratio::of(&times, &to), Some(expected));
    }

    #[test]
    fn the_spread_is_half_the_quartiles_distance() {
        let times = [1.0, 2.0, 3.0, 4.0, 5.0];
        let ratio = Ratio::of(&times, &[1.0; 5]).expect("five rounds");
        // Quartiles at 2 and 4.
        assert_eq!(ratio.median, 3.0);
        assert!((ratio.spread - 1.0 / 3.0).abs() < 1e-12, "{ratio:?}");
    }

    #[test]
    fn rounds_are_compared_with_their_own() {
        // The machine is ten times slower in the second round, and the ratio the same.
        let ratio = Ratio::of(&[2.0, 20.0], &[1.0, 10.0]).expect("two rounds");
        assert_eq!((ratio.median, ratio.spread), (2.0, 0.0));
    }
}
