use super::*;
use crate::rules::condition::Values;

const DOCKER: &str = include_str!("../testdata/docker.txt");

fn chain<'r>(ruleset: &'r Ruleset, table: &str, name: &str) -> &'r Chain {
    let found = ruleset.chains.iter().find(|chain| chain.table.name == table && chain.name == name);
    found.unwrap_or_else(|| panic!("no chain {name} in {table}"))
}

#[test]
fn a_docker_host() {
    let ruleset = parse(DOCKER, "ip");
    assert_eq!(ruleset.chains.len(), 5 + 7);
    let forward = chain(&ruleset, "filter", "FORWARD");
    let base = forward.base.as_ref().unwrap();
    assert_eq!(base.hook, "forward");
    let policy = base.policy.as_ref().unwrap();
    assert_eq!((policy.text.as_str(), policy.packets), ("-P FORWARD DROP", Some(2)));
    assert_eq!(forward.rules.len(), 6);
    let isolation = chain(&ruleset, "filter", "DOCKER-ISOLATION-STAGE-2");
    assert_eq!(isolation.base, None);
    let drop = &isolation.rules[1];
    assert_eq!(drop.text, "-A DOCKER-ISOLATION-STAGE-2 -o br-1234567890ab -j DROP");
    assert_eq!(drop.packets, Some(6));
    assert_eq!(drop.outcomes, [Outcome::from(Verdict::Drop)]);
    let names = Values::Names(vec!["br-1234567890ab".to_owned()]);
    assert_eq!(drop.conditions, [Condition { subject: Subject::Out, values: names, negated: false }]);
    assert!(chain(&ruleset, "nat", "PREROUTING").base.as_ref().unwrap().policy.is_none());
}

#[test]
fn options_of_rules() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n\
                [1:2] -A INPUT ! -s 10.0.0.0/8 -i eth+ -p udp -m multiport --dports 53,1000:2000 -m comment --comment \"-p tcp \\\"x\" \
                ! --sport 9 -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";
    let ruleset = parse(text, "ip6");
    let rule = &ruleset.chains[0].rules[0];
    assert_eq!(rule.packets, Some(1));
    assert_eq!(rule.outcomes, [Outcome::from(Verdict::Reject)]);
    let subjects: Vec<_> = rule.conditions.iter().map(|known| (known.subject, known.negated)).collect();
    let expected = [
        (Subject::Source, true),
        (Subject::In, false),
        (Subject::Protocol, false),
        (Subject::DestinationPort, false),
        (Subject::SourcePort, true),
    ];
    assert_eq!(subjects, expected);
    assert_eq!(rule.conditions[3].values, Values::Numbers(vec![(53, 53), (1000, 2000)]));
    assert_eq!(ruleset.chains[0].table.family, "ip6");
}

#[test]
fn what_is_no_ruleset_is_none() {
    for text in [
        "",
        "iptables-save: command not found",
        ":INPUT DROP [0:0]\n[0:0] -A INPUT -j DROP",
        "*filter\n:\n[\n[0:0] -A",
    ] {
        assert!(parse(text, "ip").chains.is_empty(), "{text}");
    }
}
