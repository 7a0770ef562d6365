//! Packet filter rules that count what they drop.

use crate::counters::json;
use crate::netns::Netns;

impl Netns {
    /// Loads an nft script.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        self.run_with_input("nft -f -", script);
    }

    /// Loads an nft script; `Err` holds the refusal where the kernel lacks what it needs.
    pub fn try_nft(&self, script: &str) -> Result<(), String> {
        self.try_run_with_input("nft -f -", script).map(drop)
    }

    /// Loads one inet base chain with one rule that counts and drops what `matches`.
    ///
    /// The chain's counter is named after its hook: read it with [`Netns::nft_packets`].
    #[track_caller]
    pub fn nft_drop(&self, hook: &str, matches: &str) {
        self.nft(&format!(
            "table inet ndt {{
                counter {hook} {{ }}
                chain {hook} {{
                    type filter hook {hook} priority 0; policy accept;
                    {matches} counter name {hook} drop
                }}
            }}"
        ));
    }

    /// Packets a named counter of table `inet ndt` has seen.
    #[track_caller]
    pub fn nft_packets(&self, counter: &str) -> u64 {
        let listed = json(&self.run(&format!("nft -j list counter inet ndt {counter}")));
        listed["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|object| object["counter"]["packets"].as_u64())
            .unwrap_or_else(|| panic!("no counter {counter} in {listed}"))
    }
}
