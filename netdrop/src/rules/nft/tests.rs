use super::*;

const PLAIN: &str = include_str!("../testdata/nft-1.0.6.txt");
const IPTABLES: &str = include_str!("../testdata/nft-iptables.txt");

fn chain<'r>(ruleset: &'r Ruleset, table: &str, name: &str) -> &'r Chain {
    let found = ruleset.chains.iter().find(|chain| chain.table.name == table && chain.name == name);
    found.unwrap_or_else(|| panic!("no chain {name} in {table}"))
}

fn by_handle(chain: &Chain, handle: u64) -> &Rule {
    let found = chain.rules.iter().find(|rule| rule.handle == Some(handle));
    found.unwrap_or_else(|| panic!("no rule with handle {handle}"))
}

fn verdicts(rule: &Rule) -> Vec<&Verdict> {
    rule.outcomes.iter().map(|outcome| &outcome.verdict).collect()
}

#[test]
fn chains_with_their_hooks() {
    let ruleset = parse(PLAIN, "");
    let names: Vec<_> = ruleset.chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["foo", "input", "ing", "two", "f", "in"]);
    let base = |table, name| chain(&ruleset, table, name).base.clone();
    assert_eq!(base("t1", "foo"), None);
    let input = base("t1", "input").unwrap();
    assert_eq!((input.kind.as_deref(), input.hook.as_str()), (Some("filter"), "input"));
    assert_eq!(input.policy.unwrap().text, "policy drop");
    assert_eq!(base("nd", "ing").unwrap().devices, ["eth0"]);
    assert_eq!(base("nd", "two").unwrap().devices, ["eth0", "wg*"]);
    assert_eq!(base("br", "f").unwrap().hook, "forward");
    assert_eq!(base("asleep", "in"), None, "hooks of a dormant table are not there");
    assert!(ruleset.chains.iter().all(|chain| chain.table.tool == Tool::Nft));
}

#[test]
fn rules_with_their_counters() {
    let ruleset = parse(PLAIN, "");
    let foo = &chain(&ruleset, "t1", "foo").rules[..];
    assert_eq!(foo.len(), 1);
    assert_eq!(foo[0].shown(), "counter drop comment \"hi { there\" # handle 7");
    assert_eq!((foo[0].packets, verdicts(&foo[0])), (Some(3), vec![&Verdict::Drop]));
    let input = chain(&ruleset, "t1", "input");
    assert_eq!(input.rules.len(), 18);
    assert_eq!(by_handle(input, 13).packets, Some(7), "a counter that is an object of the table");
    assert_eq!(by_handle(input, 14).packets, None);
    let anonymous = by_handle(input, 18);
    assert_eq!(verdicts(anonymous), [&Verdict::Drop]);
    assert_eq!(anonymous.packets, None, "the counter is one of the inner rule");
}

#[test]
fn verdicts_of_rules() {
    let ruleset = parse(PLAIN, "");
    let input = chain(&ruleset, "t1", "input");
    let to_foo = Verdict::Jump("foo".to_owned());
    let expected: [(u64, &[&Verdict]); 12] = [
        (9, &[&Verdict::Drop, &to_foo, &to_foo]),
        (10, &[&Verdict::Drop, &to_foo]),
        (11, &[&Verdict::Drop, &to_foo]),
        (13, &[&Verdict::Reject]),
        (14, &[&Verdict::Reject]),
        (20, &[&Verdict::Drop]),
        (21, &[&Verdict::Drop]),
        (22, &[&Verdict::Drop]),
        (24, &[&Verdict::Drop]),
        (25, &[]),
        (26, &[]),
        (33, &[&Verdict::Drop]),
    ];
    for (handle, known) in expected {
        assert_eq!(verdicts(by_handle(input, handle)), known, "handle {handle}");
    }
    let when: Vec<_> = by_handle(input, 10).outcomes.iter().map(|outcome| outcome.when.clone()).collect();
    let port = |port: &'static str| Condition::of(Subject::DestinationPort, [port], false);
    assert_eq!(when, [port("80"), port("443")]);
    assert!(by_handle(input, 11).outcomes.iter().all(|outcome| outcome.when.is_none()), "a concatenation");
}

#[test]
fn conditions_of_rules() {
    let ruleset = parse(PLAIN, "");
    let input = chain(&ruleset, "t1", "input");
    let of = |handle| by_handle(input, handle).conditions.clone();
    let condition = |subject, values: &[&'static str], negated| {
        Condition::of(subject, values.iter().copied(), negated).unwrap()
    };
    let port = Subject::DestinationPort;
    assert_eq!(of(13), [Condition::protocol(17), condition(port, &["1", "2", "3", "4"], false)]);
    assert_eq!(of(14), [Condition::version(4), Condition::protocol(6)], "the set is not looked into");
    assert_eq!(of(20), [Condition::version(4)], "of a concatenation the version alone is certain");
    assert_eq!(of(21), [condition(Subject::In, &["lo"], false)]);
    assert_eq!(of(27), [Condition::version(4), Condition::protocol(99)]);
    assert_eq!(of(29), [Condition::protocol(1)]);
    let source = condition(Subject::Source, &["10.0.0.0/8"], true);
    assert_eq!(
        of(32),
        [Condition::protocol(17), condition(port, &["5000-5010"], false), Condition::version(4), source]
    );
    assert_eq!(of(33), [Condition::protocol(6), Condition::protocol(6), condition(port, &["80"], true)]);
    assert_eq!(of(34), [], "neither the packet's own addresses");
    assert_eq!(of(22), []);
}

#[test]
fn tables_of_iptables() {
    let ruleset = parse(IPTABLES, "");
    assert!(ruleset.chains.iter().all(|chain| chain.table.tool == Tool::IptablesNft));
    let (warning, rest) = IPTABLES.split_once('\n').unwrap();
    assert_eq!(parse(rest, warning), ruleset, "older ones warn by standard error");
    assert_eq!(parse(rest, ""), ruleset, "some do not warn");
    let own = rest.replace("chain INPUT", "chain input");
    assert_eq!(parse(&own, "").chains[0].table.tool, Tool::Nft);
    assert_eq!(parse(&own, warning).chains[0].table.tool, Tool::IptablesNft);
    let input = chain(&ruleset, "filter", "INPUT");
    let random = by_handle(input, 2);
    assert_eq!(random.shown(), "udp dport 5101 meta random & 2147483647 < 644245094 counter drop # handle 2");
    assert_eq!((random.packets, random.conditions.len()), (Some(4), 2));
    assert_eq!(verdicts(by_handle(input, 5)), [&Verdict::Jump("FOO".to_owned())]);
    assert_eq!(verdicts(by_handle(input, 9)), [&Verdict::Reject]);
    assert!(by_handle(input, 10).outcomes.is_empty());
    let foo = chain(&ruleset, "filter", "FOO");
    assert_eq!(verdicts(by_handle(foo, 6)), [&Verdict::Drop]);
    assert_eq!(verdicts(by_handle(foo, 7)), [&Verdict::Queue]);
}

#[test]
fn what_is_no_ruleset_is_none() {
    for text in
        ["", "nft: error", "chain x {\n drop\n}", "table ip x {", "table ip x {\n chain y {", "}\n}\n"]
    {
        assert!(parse(text, "").chains.iter().all(|chain| chain.rules.is_empty()), "{text}");
    }
}
