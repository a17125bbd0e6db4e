//! Medians, and the ratio of times that were measured in rounds.

use serde::Serialize;

/// The ratio of two times that were measured in the same rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratio {
    /// The median of the ratios of all rounds.
    pub median: f64,
    /// Half the interquartile range, as a share of the median; `None` for a single round.
    pub spread: Option<f64>,
}

impl Ratio {
    /// Divides the times round by round, because a busy machine often slows down a whole round. Returns `None` without
    /// rounds.
    pub fn of(times: &[f64], to: &[f64]) -> Option<Ratio> {
        let ratios: Vec<f64> = times.iter().zip(to).map(|(time, to)| time / to).collect();
        let median = median(&ratios)?;
        let range = quantile(&ratios, 0.75)? - quantile(&ratios, 0.25)?;
        Some(Ratio {
            median,
            spread: (ratios.len() > 1).then_some(range / 2.0 / median),
        })
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Returns the quantile for `share`, from 0 to 1, interpolated linearly.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len().checked_sub(1)? as f64;
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
    fn times_are_divided_within_a_round() {
        // The machine is ten times slower in the second round, and the last one is disturbed.
        let ratio = Ratio::of(&[2.0, 20.0, 2.0, 2.0, 900.0], &[1.0, 10.0, 1.0, 1.0, 1.0]);
        let ratio = ratio.expect("five rounds");
        assert_eq!((ratio.median, ratio.spread), (2.0, Some(0.0)));
        let one = Ratio::of(&[2.0], &[1.0]).expect("one round");
        assert_eq!((one.median, one.spread), (2.0, None));
        assert!(Ratio::of(&[], &[]).is_none());
    }
}
