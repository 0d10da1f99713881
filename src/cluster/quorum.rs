//! Quorum arithmetic: how many voters must agree, and how many may fail. Pure.

/// How many of `voters` form a quorum: more than half.
pub const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many more voters may fail while the rest is still a quorum; `None` when there is none now.
pub const fn survives(voters: usize, healthy: usize) -> Option<usize> {
    if voters == 0 { None } else { healthy.checked_sub(quorum(voters)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn an_even_number_survives_no_more_than_the_odd_one_below() {
        for odd in [1, 3, 5, 7] {
            assert_eq!(survives(odd, odd), survives(odd + 1, odd + 1));
        }
    }

    #[test]
    fn without_a_quorum_nothing_survives() {
        assert_eq!((survives(3, 2), survives(3, 1), survives(0, 0)), (Some(0), None, None));
    }
}
