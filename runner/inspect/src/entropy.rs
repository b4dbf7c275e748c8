//! Shannon entropy, the same on every machine.
//!
//! The C library's logarithm may differ in its last bit from host to host; this one uses only addition,
//! multiplication and division, which IEEE 754 fixes, so that the rounded result is always the same.

/// Bytes that may still be counted for entropies of parts. Parts of a hostile file can overlap without end.
pub(crate) struct Budget {
    left: u64,
}

impl Budget {
    /// Enough to count every byte of the file eight times.
    pub(crate) fn of(length: usize) -> Self {
        Self {
            left: (length as u64).saturating_mul(8).saturating_add(1 << 16),
        }
    }

    /// The entropy of `bytes`; none where there are no bytes, or where too many were counted already.
    pub(crate) fn entropy(&mut self, bytes: &[u8]) -> Option<f64> {
        if bytes.is_empty() {
            return None;
        }
        self.left = self.left.checked_sub(bytes.len() as u64)?;
        Some(entropy(bytes))
    }
}

/// Bits per byte, rounded to three decimals; 0 for no bytes.
pub(crate) fn entropy(bytes: &[u8]) -> f64 {
    if bytes.is_empty() {
        return 0.0;
    }
    let mut counts = [0u64; 256];
    for &byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = bytes.len() as f64;
    // H = log2(n) - sum(c * log2(c)) / n
    let sum: f64 = counts
        .iter()
        .filter(|&&count| count > 1)
        .map(|&count| count as f64 * log2(count as f64))
        .sum();
    let bits = (log2(total) - sum / total).clamp(0.0, 8.0);
    (bits * 1000.0).round() / 1000.0
}

/// The binary logarithm of a number of at least 1.
fn log2(value: f64) -> f64 {
    let mut mantissa = value;
    let mut exponent = 0.0;
    while mantissa >= 2.0 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln(m) = 2 atanh((m - 1) / (m + 1)); the quotient is at most 1/3, so 20 terms are beyond the last bit.
    let quotient = (mantissa - 1.0) / (mantissa + 1.0);
    let square = quotient * quotient;
    let mut power = quotient;
    let mut sum = 0.0;
    for term in 0..20 {
        sum += power / f64::from(2 * term + 1);
        power *= square;
    }
    exponent + 2.0 * sum / std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(entropy(b""), 0.0);
        assert_eq!(entropy(&[7; 100]), 0.0);
        assert_eq!(entropy(b"abababab"), 1.0);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(entropy(&all), 8.0);
        // -(1/3) log2(1/3) - (2/3) log2(2/3)
        assert_eq!(entropy(b"aab"), 0.918);
    }

    #[test]
    fn logarithm_is_right() {
        for value in [1.0, 1.5, 2.0, 3.0, 10.0, 1e6, 123_456_789.0f64] {
            assert!((log2(value) - value.log2()).abs() < 1e-12, "{value}");
        }
    }

    #[test]
    fn counting_is_bounded() {
        let bytes = [1, 2, 3, 4];
        let mut budget = Budget { left: 6 };
        assert_eq!(budget.entropy(&bytes), Some(2.0));
        assert_eq!(budget.entropy(&bytes), None);
    }
}
