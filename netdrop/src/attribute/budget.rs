//! How much of a CPU looks at `/proc` may take.

use std::time::{Duration, Instant};

/// What may be spent at once after a pause, counted in the time that it takes to earn it: with one part in 40, a quarter
/// of a second.
const BURST: Duration = Duration::from_secs(10);

/// Time that may be spent: each look is paid for by a pause many times as long, some of it in advance.
#[derive(Debug)]
pub(super) struct Budget {
    share: u32,
    paid: Option<Instant>,
}

impl Budget {
    /// One that allows one part in `share`.
    pub(super) const fn new(share: u32) -> Self {
        Self { share, paid: None }
    }

    /// Whether a look may be made.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.paid.is_none_or(|paid| paid <= now)
    }

    /// A look has taken this long.
    pub(super) fn spend(&mut self, now: Instant, took: Duration) {
        let least = now.checked_sub(BURST).unwrap_or(now);
        let paid = self.paid.map_or(least, |paid| paid.max(least));
        self.paid = Some(paid + took * self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_share() {
        let mut budget = Budget::new(20);
        let start = Instant::now();
        let look = Duration::from_millis(10);
        let looks = (0..1000).take_while(|_| {
            let allowed = budget.allows(start);
            budget.spend(start, look);
            allowed
        });
        assert_eq!(looks.count(), 51);
        assert!(!budget.allows(start));
        assert!(budget.allows(start + 20 * 2 * look));
    }
}
