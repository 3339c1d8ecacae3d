//! Which GPU takes which of the layers that are on GPUs.

use super::{
    Problem,
    estimate::{Lesson, Sizes},
};

impl Problem<'_> {
    /// Layers of each GPU, so that the fullest is as little full as can be; what the user says goes before.
    pub(super) fn shares(&self, lesson: &Lesson, sizes: &Sizes, gpu_layers: u32) -> Vec<f32> {
        let wish = &self.config.placement.tensor_split;
        if !wish.is_empty() {
            return wish.clone();
        }
        let (rooms, costs) = self.to_share(lesson, sizes, gpu_layers);
        // Whole numbers, so that rounding cannot move a layer.
        let counts = balance(&costs, &rooms);
        counts.into_iter().map(|count| count as f32).collect()
    }
}

/// Splits `costs` into consecutive runs, one for each of `rooms`, with the largest ratio of a run to its room as small
/// as possible: how many are in each run.
fn balance(costs: &[u64], rooms: &[u64]) -> Vec<usize> {
    let mut counts = vec![0; rooms.len()];
    if rooms.iter().all(|room| *room == 0) {
        if let Some(last) = counts.last_mut() {
            *last = costs.len();
        }
        return counts;
    }
    let total: u64 = costs.iter().sum();
    let roomiest = rooms.iter().copied().max().unwrap_or(1);
    let (mut low, mut high) = (0.0, total as f64 / roomiest as f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match pack(costs, rooms, middle) {
            Some(_) => high = middle,
            None => low = middle,
        }
    }
    pack(costs, rooms, high * (1.0 + f64::EPSILON)).unwrap_or_else(|| {
        counts[rooms.len() - 1] = costs.len();
        counts
    })
}

/// Gives each room in turn as many as `fullness` of it holds; `None`: some are left over.
fn pack(costs: &[u64], rooms: &[u64], fullness: f64) -> Option<Vec<usize>> {
    let mut rest = costs;
    let counts = rooms
        .iter()
        .map(|room| {
            let limit = *room as f64 * fullness;
            let mut sum = 0;
            let fitting = |cost: &&u64| {
                sum += **cost;
                sum as f64 <= limit
            };
            let count = rest.iter().take_while(fitting).count();
            rest = &rest[count..];
            count
        })
        .collect();
    rest.is_empty().then_some(counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_layers_are_shared_in_proportion_to_the_rooms() {
        assert_eq!(balance(&[10; 41], &[100, 100]), [21, 20]);
        assert_eq!(balance(&[10; 40], &[100, 300]), [10, 30]);
        assert_eq!(balance(&[10; 4], &[0, 100]), [0, 4]);
        assert_eq!(balance(&[10; 4], &[100, 0]), [4, 0]);
        assert_eq!(balance(&[10; 4], &[0, 0]), [0, 4]);
        assert_eq!(balance(&[], &[1, 2]), [0, 0]);
        assert!(balance(&[], &[]).is_empty());
    }

    #[test]
    fn a_heavy_output_leaves_its_gpu_fewer_layers() {
        assert_eq!(balance(&[10, 10, 10, 10, 10, 50], &[100, 100]), [5, 1]);
    }

    proptest! {
        #[test]
        fn no_other_split_is_less_full(
            costs in prop::collection::vec(1_u64..100, 1..10),
            rooms in prop::collection::vec(1_u64..500, 1..4),
        ) {
            let fullness = |counts: &[usize]| {
                let mut rest = &costs[..];
                counts.iter().zip(&rooms).fold(0.0_f64, |most, (count, room)| {
                    let (own, others) = rest.split_at(*count);
                    rest = others;
                    most.max(own.iter().sum::<u64>() as f64 / *room as f64)
                })
            };
            let counts = balance(&costs, &rooms);
            prop_assert_eq!(counts.iter().sum::<usize>(), costs.len());
            let ours = fullness(&counts);
            let ends = 0..=costs.len();
            for first in ends.clone() {
                for second in first..=costs.len() {
                    let other = match rooms.len() {
                        1 => vec![costs.len()],
                        2 => vec![first, costs.len() - first],
                        _ => vec![first, second - first, costs.len() - second],
                    };
                    prop_assert!(ours <= fullness(&other) + 1e-9, "{counts:?} {other:?}");
                }
            }
        }
    }
}
