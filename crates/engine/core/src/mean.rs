//! The mean of gradients, in tower order: it has the same bits whatever order they came in.

use std::ops::Range;

/// The mean of one number of each tower: their sum in the given order, divided by their number.
#[inline(always)]
pub fn mean_of<const N: usize>(towers: [f32; N]) -> f32 {
    const { assert!(N > 0, "there is at least one tower") };
    towers[1..]
        .iter()
        .fold(towers[0], |sum, number| sum + number)
        / N as f32
}

/// The mean of the towers' numbers in `piece`, element by element: their sum in the given order,
/// divided by their number.
///
/// # Panics
///
/// If there is no tower, one ends before `piece`, or `mean` is not of its length.
#[inline(always)]
pub fn mean(towers: &[&[f32]], piece: Range<usize>, mean: &mut [f32]) {
    let (first, others) = towers.split_first().expect("there is at least one tower");
    mean.copy_from_slice(&first[piece.clone()]);
    // Each count is code of its own, with its own load for each tower: a processor learns by the
    // load what memory it will want next, and one that goes from tower to tower teaches it nothing.
    for group in others.chunks(4) {
        match *group {
            [a] => add_each([a], piece.clone(), mean),
            [a, b] => add_each([a, b], piece.clone(), mean),
            [a, b, c] => add_each([a, b, c], piece.clone(), mean),
            [a, b, c, d] => add_each([a, b, c, d], piece.clone(), mean),
            _ => unreachable!("a group has one to four towers"),
        }
    }
    let count = towers.len() as f32;
    for sum in mean {
        *sum /= count;
    }
}

/// Adds the numbers of one tower after the other to `sums`.
#[inline(always)]
fn add_each<const N: usize>(towers: [&[f32]; N], piece: Range<usize>, sums: &mut [f32]) {
    let towers = towers.map(|tower| &tower[piece.clone()]);
    // Known here, it need not be asked again for each number.
    assert!(towers.iter().all(|tower| tower.len() == sums.len()));
    for (index, sum) in sums.iter_mut().enumerate() {
        for tower in towers {
            *sum += tower[index];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregator::Aggregator;
    use crate::fixtures::contribution;

    proptest! {
        #[test]
        fn the_mean_has_the_same_bits_in_every_order_of_arrival(
            order in Just((0..5_u32).collect::<Vec<_>>()).prop_shuffle(),
            numbers in prop::collection::vec(-1e6_f32..1e6, 5),
        ) {
            let mut aggregator = Aggregator::new(5);
            for tower in order {
                aggregator.add(contribution(0, tower, [numbers[tower as usize], 0.0]));
            }
            let complete = aggregator.take_complete().unwrap();
            let mut found = [0.0];
            let towers: Vec<&[f32]> = complete.iter().map(|tower| &tower.gradient.0[..]).collect();
            mean(&towers, 0..1, &mut found);
            let expected = numbers[1..].iter().fold(numbers[0], |sum, number| sum + number) / 5.0;
            prop_assert_eq!(found[0].to_bits(), expected.to_bits());
        }
    }
}
