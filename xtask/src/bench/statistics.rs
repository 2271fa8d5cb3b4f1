//! Medians of paired figures.

/// The median; zero of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values
        .into_iter()
        .filter(|value| value.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// Median of what `compare` makes of each round's pair.
pub(crate) fn paired<T>(ours: &[T], plain: &[T], compare: impl Fn(&T, &T) -> f64) -> f64 {
    median(
        ours.iter()
            .zip(plain)
            .map(|(ours, plain)| compare(ours, plain)),
    )
}

/// The geometric mean; zero of nothing.
pub(crate) fn geometric_mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (sum / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([1.0, f64::NAN]), 1.0);
        assert_eq!(
            paired(&[2.0, 9.0, 4.0], &[1.0, 3.0, 2.0], |a, b| a / b),
            2.0
        );
    }

    #[test]
    fn geometric_means() {
        assert!((geometric_mean(&[2.0, 8.0]) - 4.0).abs() < 1e-12);
    }
}
