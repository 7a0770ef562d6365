//! Whose rule dropped a packet: agents are known by the names of their chains.

use netdrop_tests::firewall::unread;
use netdrop_tests::reason::lacks_evidence;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Lab, Trace, lab, wait};
use serde_json::json;

#[test]
fn docker_isolation() {
    let Some(lab) = Lab::new("owner-docker", &["iptables-legacy"]) else { return };
    let routed = lab.routed();
    // As Docker sets it up between its networks, with the lab's devices as bridges.
    for rule in [
        "-N DOCKER-ISOLATION-STAGE-1",
        "-N DOCKER-ISOLATION-STAGE-2",
        "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        "-A DOCKER-ISOLATION-STAGE-1 -i left ! -o left -j DOCKER-ISOLATION-STAGE-2",
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
        "-A DOCKER-ISOLATION-STAGE-2 -o right -j DROP",
        "-A DOCKER-ISOLATION-STAGE-2 -j RETURN",
    ] {
        if let Err(refused) = routed.r.try_run_with_input(&format!("iptables-legacy -w {rule}"), "") {
            return lab::skip_for_kernel("owner-docker", "the filter table", &refused);
        }
    }
    let tracing = Trace::of(&routed.r).start();
    send_udp(&routed.a.udp_socket("10.1.0.2:5100"), "10.2.0.2:9000", 5, 64);
    wait::until_counter("packets of the rule", 5, || {
        let listed = routed.r.run("iptables-legacy -w -nvxL DOCKER-ISOLATION-STAGE-2 1");
        listed.split_whitespace().next().and_then(|packets| packets.parse().ok()).unwrap_or(0)
    });
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: 5,
        packet: json!({"proto": "udp", "dport": 9000}),
    });
    if lacks_evidence(event, "netfilter") || unread(event) {
        return;
    }
    let netfilter = &event["evidence"]["netfilter"];
    let told = ["hook", "table", "base_chain", "chain", "owner"].map(|field| &netfilter[field]);
    let owner = "Docker isolation between networks";
    assert_eq!(told, ["forward", "filter", "FORWARD", "DOCKER-ISOLATION-STAGE-2", owner], "{event}");
}

#[test]
fn a_service_without_endpoints() {
    let Some(lab) = Lab::new("owner-kube", &["iptables-nft"]) else { return };
    let routed = lab.routed();
    for rule in [
        "-N KUBE-SERVICES",
        "-A OUTPUT -m conntrack --ctstate NEW -m comment --comment service-portals -j KUBE-SERVICES",
        "-A KUBE-SERVICES -d 10.2.0.2/32 -p udp -m comment --comment no-endpoints -m udp --dport 53 -j REJECT",
    ] {
        if let Err(refused) = routed.r.try_run_with_input(&format!("iptables-nft -w {rule}"), "") {
            return lab::skip_for_kernel("owner-kube", "REJECT of iptables-nft", &refused);
        }
    }
    let tracing = Trace::of(&routed.r).start();
    send_udp(&routed.r.udp_socket("10.2.0.1:5100"), "10.2.0.2:53", 1, 64);
    wait::until_counter("own packets dropped", 1, || routed.r.mib("IpOutDiscards"));
    let outcome = tracing.stop();
    let event = outcome.expect(&Dropped {
        cause: "netfilter-rule",
        class: "harmful",
        netns: &routed.r,
        count: 1,
        packet: json!({"proto": "udp", "dport": 53}),
    });
    if lacks_evidence(event, "netfilter") || unread(event) {
        return;
    }
    let netfilter = &event["evidence"]["netfilter"];
    let told = ["hook", "table", "base_chain", "chain", "verdict", "owner"].map(|field| &netfilter[field]);
    let owner = "kube-proxy: service without endpoints";
    assert_eq!(told, ["output", "filter", "OUTPUT", "KUBE-SERVICES", "reject", owner], "{event}");
}
