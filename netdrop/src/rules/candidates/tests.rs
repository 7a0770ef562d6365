use super::*;
use crate::packet::{Family, Protocol};
use crate::rules::culprit::Culprit;
use crate::rules::{legacy, nft};

const DOCKER: &str = include_str!("../testdata/docker.txt");
const KUBE_PROXY: &str = include_str!("../testdata/kube-proxy.txt");
const PLAIN: &str = include_str!("../testdata/nft-1.0.6.txt");

const NEVER_READ: Counters = Counters { after: false, compared: false };
const AFTER: Counters = Counters { after: true, compared: false };
const NFTABLES: Dropper = Dropper::Nftables { family: None, kind: None };

fn packet(proto: Protocol, dst: &str, dport: u16) -> Packet {
    Packet {
        family: Some(Family::Ipv4),
        proto: Some(proto),
        src: Some("172.17.0.9".parse().unwrap()),
        dst: Some(dst.parse().unwrap()),
        sport: Some(40000),
        dport: Some(dport),
        ..Packet::default()
    }
}

fn place<'a>(family: &'a str, hook: &'a str, device: &'a str) -> Place<'a> {
    Place { family, hook, device: Some(device), bridged: false }
}

fn search<'a>(place: Place<'a>, packet: &'a Packet, dropper: Dropper, counters: Counters) -> Search<'a> {
    Search { place, packet, dropper, rejected: false, observed: None, counters }
}

fn linked(mut ruleset: Ruleset) -> Ruleset {
    ruleset.link();
    ruleset
}

/// What was found, `chain: rule`.
fn found(search: &Search<'_>, ruleset: &Ruleset) -> Vec<String> {
    let found = search.find(ruleset);
    found.iter().map(|found| format!("{}: {}", found.chain.name, found.rule.shown())).collect()
}

#[test]
fn dockers_isolation_by_its_counter() {
    let ruleset = linked(legacy::parse(DOCKER, "ip"));
    let tcp = packet(Protocol::TCP, "172.18.0.2", 80);
    let forward = place("ip", "forward", "br-1234567890ab");
    let drops = found(&search(forward, &tcp, Dropper::OtherThanNftables, AFTER), &ruleset);
    assert_eq!(
        drops,
        [
            "DOCKER-ISOLATION-STAGE-2: -A DOCKER-ISOLATION-STAGE-2 -o br-1234567890ab -j DROP",
            "FORWARD: -P FORWARD DROP",
        ]
    );
    let moved = DOCKER.replace("[6:360]", "[7:420]").replace("[40:2400]", "[41:2460]");
    let mut later = linked(legacy::parse(&moved, "ip"));
    later.compare(&ruleset);
    let compared =
        search(forward, &tcp, Dropper::OtherThanNftables, Counters { after: true, compared: true });
    let found = compared.find(&later);
    let culprit = Culprit::new(&found).unwrap();
    assert_eq!((culprit.rules, culprit.verdict), (1, Some("drop")));
    let candidate = &culprit.candidates[0];
    assert_eq!((candidate.table.as_str(), candidate.base_chain.as_deref()), ("filter", Some("FORWARD")));
    assert_eq!(candidate.owner, Some("Docker isolation between networks"));
}

#[test]
fn counters_read_before_the_drop_leave_out_nothing() {
    let ruleset = linked(legacy::parse(DOCKER, "ip"));
    let tcp = packet(Protocol::TCP, "172.18.0.2", 80);
    let forward = place("ip", "forward", "br-1234567890ab");
    let drops = found(&search(forward, &tcp, Dropper::OtherThanNftables, NEVER_READ), &ruleset);
    assert_eq!(drops.len(), 3, "{drops:?}");
}

#[test]
fn kube_proxys_reject_by_what_it_matches() {
    let ruleset = linked(legacy::parse(KUBE_PROXY, "ip"));
    let output = place("ip", "output", "eth0");
    let service = packet(Protocol::TCP, "10.96.0.50", 80);
    let drops = search(output, &service, Dropper::OtherThanNftables, NEVER_READ).find(&ruleset);
    let culprit = Culprit::new(&drops).unwrap();
    assert_eq!(culprit.verdict, Some("reject"));
    assert_eq!(culprit.candidates[0].chain, "KUBE-SERVICES");
    assert_eq!(culprit.candidates[0].owner, Some("kube-proxy: service without endpoints"));
    let other = packet(Protocol::TCP, "10.96.0.51", 80);
    assert!(found(&search(output, &other, Dropper::OtherThanNftables, NEVER_READ), &ruleset).is_empty());
}

#[test]
fn families_hooks_and_devices_of_nft() {
    let ruleset = linked(nft::parse(PLAIN, ""));
    let tcp = packet(Protocol::TCP, "192.0.2.1", 7000);
    assert!(found(&search(place("ip", "output", "eth0"), &tcp, NFTABLES, NEVER_READ), &ruleset).is_empty());
    assert!(found(&search(place("arp", "input", "eth0"), &tcp, NFTABLES, NEVER_READ), &ruleset).is_empty());
    let bridged = found(&search(place("bridge", "forward", "eth0"), &tcp, NFTABLES, NEVER_READ), &ruleset);
    assert_eq!(bridged, ["f: ether saddr 02:00:00:00:00:01 drop # handle 2"]);
    let from = Packet { src: Some("1.2.3.4".parse().unwrap()), ..tcp.clone() };
    let at = |hook, device| {
        found(&search(place("netdev", hook, device), &from, NFTABLES, NEVER_READ), &ruleset).len()
    };
    assert_eq!([at("ingress", "eth0"), at("ingress", "eth1"), at("egress", "wg1")], [1, 0, 1]);
    let ipv4 = Dropper::Nftables { family: Some("ip"), kind: Some("filter") };
    assert!(found(&search(place("ip", "input", "eth0"), &tcp, ipv4, NEVER_READ), &ruleset).is_empty());
    let legacy = Dropper::OtherThanNftables;
    assert!(found(&search(place("ip", "input", "eth0"), &tcp, legacy, NEVER_READ), &ruleset).is_empty());
}

#[test]
fn elements_of_verdict_maps_by_their_key() {
    let text = "table inet t {\n chain foo {\n counter packets 1 bytes 1 drop # handle 9\n }\n chain in {\n \
                type filter hook input priority 0; policy accept;\n \
                tcp dport vmap { 80 : drop, 443 : jump foo, 22 : accept } # handle 2\n }\n}\n";
    let ruleset = linked(nft::parse(text, ""));
    let at = |port| {
        let tcp = packet(Protocol::TCP, "192.0.2.1", port);
        found(&search(place("ip", "input", "eth0"), &tcp, NFTABLES, NEVER_READ), &ruleset)
    };
    assert_eq!(at(80), ["in: tcp dport vmap { 80 : drop, 443 : jump foo, 22 : accept } # handle 2"]);
    assert_eq!(at(443), ["foo: counter drop # handle 9"]);
    assert!(at(22).is_empty());
}

#[test]
fn a_queue_drops_what_a_rule_gave_it() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n[1:1] -A INPUT -j DROP\n[1:1] -A INPUT -j NFQUEUE --queue-num 1\nCOMMIT\n";
    let ruleset = linked(legacy::parse(text, "ip"));
    let udp = packet(Protocol::UDP, "192.0.2.1", 53);
    let by = |dropper| found(&search(place("ip", "input", "eth0"), &udp, dropper, AFTER), &ruleset);
    assert_eq!(by(Dropper::Queue), ["INPUT: -A INPUT -j NFQUEUE --queue-num 1"]);
    assert_eq!(by(Dropper::Any), ["INPUT: -A INPUT -j DROP"]);
}

#[test]
fn what_a_hook_saw_leaves_other_tables_out() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n[1:1] -A PREROUTING -j DROP\nCOMMIT\n\
                *mangle\n:PREROUTING ACCEPT [0:0]\n[1:1] -A PREROUTING -j DROP\nCOMMIT\n";
    let ruleset = linked(legacy::parse(text, "ip"));
    let udp = packet(Protocol::UDP, "192.0.2.1", 53);
    let mut search = search(place("ip", "prerouting", "eth0"), &udp, Dropper::OtherThanNftables, AFTER);
    assert_eq!(search.find(&ruleset).len(), 2);
    search.observed = Some(Observed { family: Some("ip"), table: "mangle", chain: Some("PREROUTING") });
    let found = search.find(&ruleset);
    assert_eq!((found.len(), found[0].chain.table.name.as_str()), (1, "mangle"));
}

#[test]
fn jumps_in_a_circle_end() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n[1:1] -A INPUT -j A\n[1:1] -A A -j B\n\
                [1:1] -A B -j A\n[1:1] -A B -j DROP\nCOMMIT\n";
    let ruleset = linked(legacy::parse(text, "ip"));
    let udp = packet(Protocol::UDP, "192.0.2.1", 53);
    let at = search(place("ip", "input", "eth0"), &udp, Dropper::Any, AFTER);
    assert_eq!(found(&at, &ruleset), ["B: -A B -j DROP"]);
}

#[test]
fn many_rules_are_counted_and_not_all_listed() {
    let rules: String =
        (0..50).map(|mark| format!("[1:1] -A INPUT -m mark --mark {mark} -j DROP\n")).collect();
    let ruleset = linked(legacy::parse(&format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n"), "ip"));
    let udp = packet(Protocol::UDP, "192.0.2.1", 53);
    let at = search(place("ip", "input", "eth0"), &udp, Dropper::Any, AFTER);
    let culprit = Culprit::new(&at.find(&ruleset)).unwrap();
    assert_eq!((culprit.rules, culprit.candidates.len(), culprit.candidates[0].rules.len()), (50, 1, 8));
}

#[test]
fn long_names_are_seen_cut() {
    let long = "a".repeat(60);
    assert!(cut(&long[..31], &long, 32) && cut("mangle", "mangle", 32));
    assert!(!cut("mang", "mangle", 32) && !cut(&long[..31], "b", 32));
}
