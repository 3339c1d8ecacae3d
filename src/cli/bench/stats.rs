//! Medians, quantiles and spreads of small samples.

use serde::{Deserialize, Serialize};

/// One figure over several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// In the order in which they were measured.
    pub(super) runs: Vec<f64>,
}

impl Summary {
    /// `None` for no runs at all.
    pub(super) fn of(runs: Vec<f64>) -> Option<Self> {
        let sorted = sorted(runs.clone());
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
            runs,
        })
    }
}

/// `a / b`; 1 for two zeros, `None` where there is no such number.
pub(super) fn ratio(a: f64, b: f64) -> Option<f64> {
    if a == 0.0 && b == 0.0 {
        return Some(1.0);
    }
    Some(a / b).filter(|ratio| ratio.is_finite())
}

/// The median of values in any order; `None` when there are none.
pub(super) fn median(values: Vec<f64>) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Ascending.
pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which the share `q` of `sorted` lies, interpolated between neighbours.
pub(super) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    let share = place - below as f64;
    Some(sorted[below] + (sorted[above] - sorted[below]) * share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn the_99th_percentile_of_0_to_100_is_99() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.99), Some(99.0));
        assert_eq!(quantile(&values, 1.0), Some(100.0));
    }

    #[test]
    fn a_ratio_is_a_finite_number_or_none() {
        assert_eq!(ratio(1.0, 2.0), Some(0.5));
        assert_eq!(ratio(0.0, 0.0), Some(1.0));
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(f64::MAX, f64::MIN_POSITIVE), None);
    }

    proptest! {
        #[test]
        fn quantiles_stay_inside_the_sample_and_rise(
            values in prop::collection::vec(-1e9..1e9, 1..40),
            q in 0.0..1.0,
            r in 0.0..1.0,
        ) {
            let sorted = sorted(values);
            let (low, high) = (f64::min(q, r), f64::max(q, r));
            let (a, b) = (quantile(&sorted, low).unwrap(), quantile(&sorted, high).unwrap());
            prop_assert!(a <= b + 1e-3);
            prop_assert!(a >= sorted[0] && b <= sorted[sorted.len() - 1] + 1e-3);
        }
    }
}
