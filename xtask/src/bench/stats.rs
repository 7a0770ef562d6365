//! Medians and their spread.

/// A sorted sample of figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    /// Sorts the figures; nothing without any.
    pub(super) fn new(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        (!figures.is_empty()).then_some(Self(figures))
    }

    /// The figure below which this share of the sample lies, between two figures in proportion.
    fn quantile(&self, share: f64) -> f64 {
        let at = share * (self.0.len() - 1) as f64;
        let (below, above) = (self.0[at.floor() as usize], self.0[at.ceil() as usize]);
        below + (above - below) * at.fract()
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// First and third quartile.
    pub(super) fn quartiles(&self) -> (f64, f64) {
        (self.quantile(0.25), self.quantile(0.75))
    }

    /// The smallest and the largest.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.quantile(0.0), self.quantile(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_figures() {
        let sample = Sample::new(vec![40.0, 10.0, 30.0, 20.0]).unwrap();
        assert_eq!(sample.median(), 25.0);
        assert_eq!(sample.quartiles(), (17.5, 32.5));
        assert_eq!(sample.range(), (10.0, 40.0));
    }

    #[test]
    fn one_figure_is_its_own_spread() {
        let sample = Sample::new(vec![7.0]).unwrap();
        assert_eq!((sample.median(), sample.quartiles(), sample.range()), (7.0, (7.0, 7.0), (7.0, 7.0)));
        assert_eq!(Sample::new(Vec::new()), None);
    }
}
