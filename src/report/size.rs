//! Bytes for people.

/// Bytes, to three digits, such as `10.6 GiB`; never wider than eight characters below 1000 TiB.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Not 1000: what rounds up to it would need a fourth digit.
    while scaled >= 999.5 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = if scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn three_digits_are_shown_whatever_the_unit() {
        let shown = [
            0,
            1 << 10,
            10_235,
            1_023_000,
            1 << 20,
            104_800_000,
            22 << 30,
        ]
        .map(size);
        let expected = [
            "0.00 KiB", "1.00 KiB", "10.0 KiB", "999 KiB", "1.00 MiB", "99.9 MiB", "22.0 GiB",
        ];
        assert_eq!(shown, expected);
    }
}
