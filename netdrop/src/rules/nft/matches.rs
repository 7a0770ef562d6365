//! What a rule asks of packets, in the words of nft.

use crate::rules::condition::{Condition, Subject};
use crate::rules::words::Word;

/// What a verdict map is asked for, by the words in front of it; nothing for a concatenation.
pub(super) fn subject_before(words: &[Word]) -> Option<Subject> {
    let keys: Vec<&str> = words.iter().rev().take(3).map(Word::key).collect();
    match keys[..] {
        [last, header, before, ..] if !foreign(before) => subject(header, last).map(|(subject, _)| subject),
        [last, header] => subject(header, last).map(|(subject, _)| subject),
        _ => None,
    }
}

/// Whether the word in front of a header says that it is not the packet's own, or not the whole key.
fn foreign(before: &str) -> bool {
    matches!(before, "." | "original" | "reply" | "vxlan" | "geneve" | "gre" | "gretap" | "set" | "map")
}

/// What a header and its field are, and what they imply.
fn subject(header: &str, field: &str) -> Option<(Subject, Option<Condition>)> {
    let port = match field {
        "dport" => Some(Subject::DestinationPort),
        "sport" => Some(Subject::SourcePort),
        _ => None,
    };
    let address = match field {
        "daddr" => Some(Subject::Destination),
        "saddr" => Some(Subject::Source),
        _ => None,
    };
    Some(match header {
        "th" => (port?, None),
        "tcp" => (port?, Some(Condition::protocol(6))),
        "udp" => (port?, Some(Condition::protocol(17))),
        "sctp" => (port?, Some(Condition::protocol(132))),
        "ip" if field == "protocol" => (Subject::Protocol, Some(Condition::version(4))),
        "ip" => (address?, Some(Condition::version(4))),
        "ip6" => (address?, Some(Condition::version(6))),
        "meta" if field == "l4proto" => (Subject::Protocol, None),
        _ => return None,
    })
}

/// What a rule asks of packets, by the words before its verdict.
pub(super) fn conditions(words: &[Word]) -> Vec<Condition> {
    let mut found = Vec::new();
    let mut depth = 0;
    for place in 0..words.len() {
        let key = |ahead: usize| words.get(place + ahead).map_or("", Word::key);
        match key(0) {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth > 0 || place > 0 && foreign(words[place - 1].key()) {
            continue;
        }
        match (key(0), key(1)) {
            ("tcp", "flags" | "option" | "sequence" | "ackseq" | "window") => {
                found.push(Condition::protocol(6));
            }
            ("icmp", "type" | "code") => found.push(Condition::protocol(1)),
            ("icmpv6", "type" | "code") => found.push(Condition::protocol(58)),
            ("nfproto", "ipv4") => found.push(Condition::version(4)),
            ("nfproto", "ipv6") => found.push(Condition::version(6)),
            ("iif" | "iifname", _) => found.extend(compared(Subject::In, &words[place + 1..])),
            ("oif" | "oifname", _) => found.extend(compared(Subject::Out, &words[place + 1..])),
            (header, field) => {
                if let Some((subject, implied)) = subject(header, field) {
                    found.extend(implied);
                    found.extend(compared(subject, &words[place + 2..]));
                }
            }
        }
    }
    found
}

/// The values that a subject is compared with: `80`, `!= 80`, `{ 80, 443 }`; nothing for what is not understood.
fn compared(subject: Subject, words: &[Word]) -> Option<Condition> {
    let negated = words.first()?.key() == "!=";
    let words = if negated || words.first()?.key() == "==" { &words[1..] } else { words };
    let first = words.first()?;
    if first.key() != "{" {
        // What goes on is a calculation or a concatenation.
        let goes_on = matches!(words.get(1).map(Word::key), Some("." | "&" | "|" | "^" | "<<" | ">>"));
        let value = (!goes_on).then_some(first.text.as_str())?;
        return Condition::of(subject, [value], negated);
    }
    let end = words.iter().position(|word| word.key() == "}")?;
    let listed = words[1..end].iter().filter(|word| word.key() != ",");
    Condition::of(subject, listed.map(|word| word.text.as_str()), negated)
}
