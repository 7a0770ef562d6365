//! Whatever a tool prints, or a container's rules hold: parsers neither panic nor make more of it than it is.

use proptest::prelude::*;

use super::candidates::{Counters, Dropper, Place, Search};
use super::model::Ruleset;
use super::{legacy, nft};
use crate::packet::Packet;

/// Pieces that rulesets are made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: [&str; 34] = [
        "table",
        "ip",
        "inet",
        "filter",
        "chain",
        "x",
        "{",
        "}",
        "{ ",
        " }\n",
        "\n",
        " ",
        "\"",
        "# handle 7",
        "vmap",
        "@m",
        ":",
        "drop",
        "jump",
        "goto",
        "counter packets 3 bytes",
        "map",
        "elements = {",
        ",",
        "tcp dport",
        "!=",
        "type filter hook input priority 0; policy drop;",
        "*filter\n",
        ":INPUT DROP [0:0]\n",
        "COMMIT\n",
        "[0:0] -A INPUT",
        "-j DROP",
        "--dports 1,2:",
        "\\",
    ];
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..80).prop_map(|pieces| pieces.join(" "))
}

fn check(text: &str) -> Result<(), TestCaseError> {
    for mut ruleset in [nft::parse(text, text), legacy::parse(text, "ip")] {
        let rules: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
        prop_assert!(rules <= text.lines().count());
        let bytes: usize =
            ruleset.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.text.len()).sum();
        prop_assert!(bytes <= text.len() + rules * 8);
        ruleset.link();
        follow(&ruleset);
    }
    Ok(())
}

fn follow(ruleset: &Ruleset) {
    let packet = Packet::default();
    let place = Place { family: "ip", hook: "input", device: None, bridged: false };
    let counters = Counters { after: true, compared: true };
    let search =
        Search { place, packet: &packet, dropper: Dropper::Any, rejected: false, observed: None, counters };
    search.find(ruleset);
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn pieces_of_rulesets(text in pieces()) {
        check(&text)?;
    }

    #[test]
    fn cut_off_anywhere(end in 0usize..4000) {
        for text in [
            include_str!("testdata/nft-1.0.6.txt"),
            include_str!("testdata/nft-iptables.txt"),
            include_str!("testdata/docker.txt"),
        ] {
            check(text.get(..end).unwrap_or(text))?;
        }
    }
}
