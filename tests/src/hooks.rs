//! Counters at the IP layer's hooks: how far packets came, by the kernel's own count.

use crate::netns::Netns;

impl Netns {
    /// Counts at every hook what `matches`, and drops nothing. The counters are named after the hooks
    /// (`prerouting`, `input`, `forward`, `output`, `postrouting`): read them with [`Netns::nft_packets`].
    #[track_caller]
    pub fn nft_count(&self, matches: &str) {
        let chains: String = ["prerouting", "input", "forward", "output", "postrouting"]
            .iter()
            .map(|hook| {
                format!(
                    "counter {hook} {{ }}
                    chain {hook} {{
                        type filter hook {hook} priority 0; policy accept;
                        {matches} counter name {hook}
                    }}\n"
                )
            })
            .collect();
        self.nft(&format!("table inet ndt {{\n{chains}}}"));
    }
}
