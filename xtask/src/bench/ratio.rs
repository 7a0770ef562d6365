//! What netdrop may add to a drop, in terms of what bpftrace adds in the same run.

use super::{
    report::Bar,
    scene::Scene,
    stats::Sample,
    tool::{Rung, Tool},
};

/// What one tool may add, in terms of another.
pub(super) struct Ratio {
    what: &'static str,
    tool: Tool,
    of: Tool,
    limit: f64,
}

impl Ratio {
    /// Those that are judged in a scene.
    pub(super) const fn of(scene: Scene) -> &'static [Self] {
        match scene {
            Scene::Nft => &[
                Self {
                    what: "counting, of what bpftrace's count by reason adds",
                    tool: Tool::Count(Rung::Best),
                    of: Tool::BpftraceCount,
                    limit: 1.0 / 3.0,
                },
                Self {
                    what: "the full event, of what bpftrace's 5-tuple adds",
                    tool: Tool::Events(Rung::Best),
                    of: Tool::BpftraceTuple,
                    limit: 1.0 / 5.0,
                },
            ],
            Scene::Iptables => &[Self {
                what: "counting with the witness, of what bpftrace's count by reason adds",
                tool: Tool::Count(Rung::Best),
                of: Tool::BpftraceCount,
                limit: 2.0 / 3.0,
            }],
        }
    }

    /// Compares medians of what was `added` to a drop, by pair; nothing when one of the two was not measured.
    pub(super) fn judge<'a>(&self, added: impl Fn(Tool) -> Option<&'a [f64]>) -> Option<Bar> {
        let (ours, theirs) = (added(self.tool)?, added(self.of)?);
        let theirs_added = Sample::new(theirs.to_vec())?.median();
        if theirs_added <= 0.0 {
            let text = format!(
                "{}: not known, the other's cost is lost in the noise: more --pairs or --drops",
                self.what
            );
            return Some(Bar { met: false, text });
        }
        let found = Sample::new(ours.to_vec())?.median() / theirs_added;
        let by_pair = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        let (low, high) = Sample::new(by_pair.collect())?.quartiles();
        let limit = self.limit;
        Some(Bar {
            met: found <= limit,
            text: format!(
                "{}: {found:.3}, at most {limit:.3} (quartiles by pair {low:.3}..{high:.3})",
                self.what
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_is_lost_in_the_noise_meets_no_bar() {
        let [counting, _] = Ratio::of(Scene::Nft) else { panic!("counting and the full event") };
        let judge = |ours: f64, theirs: f64| {
            let (ours, theirs) = ([ours], [theirs]);
            let bar = counting.judge(|tool| Some(if tool == counting.tool { &ours } else { &theirs }));
            bar.expect("both were measured").met
        };
        assert!(judge(100.0, 400.0) && judge(-10.0, 400.0));
        assert!(!judge(200.0, 400.0) && !judge(100.0, -400.0) && !judge(0.0, 0.0));
    }

    #[test]
    fn nothing_is_judged_against_a_tool_that_did_not_run() {
        for ratio in [Scene::Nft, Scene::Iptables].into_iter().flat_map(Ratio::of) {
            assert!(ratio.judge(|tool| (tool == ratio.tool).then_some(&[1.0][..])).is_none());
        }
    }
}
