//! The same work without netdrop and with it, by turns: what disturbs the machine disturbs both alike.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{
    nat::Nat,
    report::Table,
    running::Running,
    stats::Sample,
    tool::{NETDROP_READY, Programs, netdrop},
};
use crate::{command, interrupt::Interrupt};

/// The figures of both sides.
pub(super) struct Turns {
    pub(super) alone: Sample,
    pub(super) traced: Sample,
    /// With netdrop as a share of without, by pair.
    pub(super) shares: Sample,
    pub(super) pairs: usize,
    /// Segments sent again, without and with.
    resent: [u64; 2],
    pub(super) notes: Vec<String>,
}

impl Turns {
    /// Takes `pairs` pairs of figures, each pair in a fresh site: connections that are remembered from earlier ones
    /// would make the later ones slower.
    pub(super) fn take(
        what: &str,
        pairs: u32,
        programs: &Programs,
        interrupt: Interrupt,
        measure: impl Fn(&Nat) -> Result<f64>,
    ) -> Result<Self> {
        let (mut alone, mut traced, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        let (mut resent, mut notes) = ([0; 2], Vec::new());
        for pair in 0..pairs {
            command::announce(what, &format!("pair {} of {pairs}", pair + 1));
            let mut figures = [0.0; 2];
            // What drifts, drifts against each order alike.
            let order = if pair.is_multiple_of(2) { [false, true] } else { [true, false] };
            let measured = Nat::build().and_then(|nat| {
                for with in order {
                    let before = nat.resent()?;
                    figures[usize::from(with)] =
                        if with { under_netdrop(programs, || measure(&nat))? } else { measure(&nat)? };
                    resent[usize::from(with)] += nat.resent()? - before;
                }
                Ok(())
            });
            if interrupt.is_set() {
                notes.push(format!("interrupted in pair {}: these are the figures until then", pair + 1));
                break;
            }
            measured?;
            let [without, with] = figures;
            alone.push(without);
            traced.push(with);
            shares.push(with / without);
        }
        let pairs = shares.len();
        match (Sample::new(alone), Sample::new(traced), Sample::new(shares)) {
            (Some(alone), Some(traced), Some(shares)) => {
                Ok(Self { alone, traced, shares, pairs, resent, notes })
            }
            // Only then is there no pair at all.
            _ => bail!("interrupted"),
        }
    }

    /// The median with netdrop as a share of the median without.
    pub(super) fn share(&self) -> f64 {
        self.traced.median() / self.alone.median()
    }

    /// Both sides, with their spread; `digits` after the point.
    pub(super) fn table(&self, figure: &str, digits: usize) -> Table {
        let mut table = Table::new(&["TRACED BY", figure, "QUARTILES", "MIN..MAX", "RESENT"]);
        for (name, sample, resent) in
            [("nothing", &self.alone, self.resent[0]), ("netdrop trace --json", &self.traced, self.resent[1])]
        {
            let ((low, high), (min, max)) = (sample.quartiles(), sample.range());
            table.row(vec![
                name.to_owned(),
                format!("{:.digits$}", sample.median()),
                format!("{low:.digits$}..{high:.digits$}"),
                format!("{min:.digits$}..{max:.digits$}"),
                resent.to_string(),
            ]);
        }
        table
    }

    /// The table for machines.
    pub(super) fn json(&self) -> Value {
        let side = |sample: &Sample, resent: u64| {
            let ((low, high), (min, max)) = (sample.quartiles(), sample.range());
            json!({
                "median": sample.median(), "quartiles": [low, high], "range": [min, max], "resent": resent,
            })
        };
        let (low, high) = self.shares.quartiles();
        json!({
            "pairs": self.pairs, "alone": side(&self.alone, self.resent[0]),
            "traced": side(&self.traced, self.resent[1]), "ratio": self.share(), "ratio_quartiles": [low, high],
        })
    }
}

/// Measures while netdrop observes the whole machine by every hook that it has here.
fn under_netdrop(programs: &Programs, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let running = Running::start(netdrop(&programs.netdrop, &["--json"]), NETDROP_READY)?;
    let figure = measure()?;
    running.stop()?;
    Ok(figure)
}
