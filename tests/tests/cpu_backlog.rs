//! Packets that find a CPU's queue of received packets full.

use netdrop_tests::frame::Hop;
use netdrop_tests::reason::expect_reason;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, softnet, wait};
use serde_json::json;

/// Packets that may wait; the kernel takes one more.
const LIMIT: u64 = 20;

/// Ports of the switch besides the sender's: one frame becomes as many packets before the first of them is taken
/// from the queue.
const PORTS: u64 = 100;

/// Packets that the devices of a namespace dropped as they came in.
#[track_caller]
fn rx_dropped(netns: &Netns) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&netns.run("ip -s -j link show")).expect("ip speaks JSON");
    let links = links.as_array().into_iter().flatten();
    links.map(|link| link["stats64"]["rx"]["dropped"].as_u64().expect("every device counts drops")).sum()
}

#[test]
fn one_frame_to_many_ports() {
    for family in [Family::Ipv4, Family::Ipv6] {
        // The limit is one for the whole machine, and so is the queue.
        let Some(lab) = Lab::alone("backlog", &["bridge"]) else { return };
        let (switch, hosts) = (lab.netns("switch"), lab.netns("hosts"));
        let mut script = "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n".to_owned();
        for port in 0..PORTS {
            script.push_str(&format!(
                "link add p{port} master br0 type veth peer name h{port} netns {}\nlink set p{port} up\n",
                hosts.name()
            ));
        }
        switch.run_with_input("ip -batch -", &script);
        let up: String = (0..PORTS).map(|port| format!("link set h{port} up\n")).collect();
        hosts.run_with_input("ip -batch -", &up);
        switch.await_forwarding(PORTS as usize);
        let (src, dst) = family.pick(("10.0.0.1", "10.0.0.255"), ("fd00::1", "ff02::1"));
        let frame = Hop {
            macs: ([0x02, 0, 0, 0, 0, 1], family.pick([0xff; 6], [0x33, 0x33, 0, 0, 0, 1])),
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
        }
        .udp(64, 5450, 5451, &[0; 64]);
        let tracing = Trace::of(&hosts).start();

        let (by_cpus, by_devices) = (softnet::dropped(), rx_dropped(&hosts));
        {
            let _limit = lab.global_sysctl("net/core/netdev_max_backlog", &LIMIT.to_string());
            switch.send_frames("br0", [&frame]);
        }
        let dropped = wait::until_stable("rx dropped", || rx_dropped(&hosts) - by_devices);
        assert!(dropped >= PORTS - LIMIT - 1, "{dropped} of {PORTS}");
        // The machine's own traffic may have met the limit as well.
        assert!(softnet::dropped() - by_cpus >= dropped);

        let outcome = tracing.stop();
        let event = outcome.expect(&Dropped {
            cause: "cpu-backlog-full",
            class: "harmful",
            netns: &hosts,
            count: dropped,
            packet: json!({"family": family.name(), "proto": "udp", "src": src, "sport": 5450, "dst": dst, "dport": 5451}),
        });
        expect_reason(event, "CPU_BACKLOG");
        assert_eq!(event["direction"], "in", "{event}");
    }
}
