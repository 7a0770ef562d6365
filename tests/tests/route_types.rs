//! Routes that refuse, on a router and on the host that sends.

use std::io::ErrorKind;

use netdrop_tests::family::at;
use netdrop_tests::link::Routed;
use netdrop_tests::traffic::send_udp;
use netdrop_tests::{Dropped, Family, Lab, Netns, Trace, wait};
use serde_json::{Value, json};

/// Datagrams of each scenario.
const COUNT: u64 = 6;

/// What a router does with datagrams for [`Family::elsewhere`].
struct Refusal<'a> {
    family: Family,
    /// Brings the router into the state.
    prepare: &'a dyn Fn(&Netns, Family),
    /// Class of the drops.
    class: &'static str,
    /// Type and error of the route, as evidence; nothing where no route refuses, and something else may
    /// look the same.
    route: Option<(&'static str, &'static str)>,
    /// A counter of the kernel that counts just these, where there is one.
    counter: Option<&'static str>,
}

/// Sends datagrams through the router and returns the first event of their drops.
#[track_caller]
fn refused(name: &str, refusal: &Refusal<'_>) -> Option<Value> {
    let Refusal { family, prepare, class, route, counter } = *refusal;
    let lab = Lab::new(name, &["nft"])?;
    let routed = lab.routed_of(family);
    prepare(&routed.r, family);
    routed.r.nft_count("udp dport 5211");
    let before = counter.map(|counter| routed.r.mib(counter));
    let tracing = Trace::of(&routed.r).start();

    let socket = routed.a.udp_socket(&at(routed.a_end.ip, 5210));
    send_udp(&socket, &at(family.elsewhere(), 5211), COUNT, 64);
    // All came in, and none got any further.
    wait::until_counter("prerouting", COUNT, || routed.r.nft_packets("prerouting"));
    if let (Some(counter), Some(before)) = (counter, before) {
        wait::until_counter(counter, before + COUNT, || routed.r.mib(counter));
    }
    for hook in ["input", "forward", "postrouting"] {
        assert_eq!(routed.r.nft_packets(hook), 0, "datagrams at {hook}");
    }

    let outcome = tracing.stop();
    let event = outcome.expect(&dropped(&routed, family, class));
    let confidence = if route.is_some() { "observed" } else { "inferred" };
    assert_eq!(event["cause"]["confidence"], confidence, "{event}");
    assert_eq!(event["interface"]["name"], "left", "{event}");
    let evidence = route.map_or(Value::Null, |(kind, error)| json!({"type": kind, "error": error}));
    assert_eq!(event["evidence"]["route"], evidence, "{event}");
    Some(event.clone())
}

fn dropped<'a>(routed: &'a Routed, family: Family, class: &'static str) -> Dropped<'a> {
    Dropped {
        cause: "no-route",
        class,
        netns: &routed.r,
        count: COUNT,
        packet: json!({"family": family.name(), "proto": "udp", "src": routed.a_end.ip.to_string(),
            "sport": 5210, "dst": family.elsewhere().to_string(), "dport": 5211,
            "len": family.header_len() + 8 + 64}),
    }
}

/// Sends datagrams to a route of a `kind` that refuses with `error`. `counter` counts them for IPv6; IPv4 has none.
#[track_caller]
fn route_that_refuses(kind: &'static str, error: &'static str, counter: Option<&'static str>) {
    for (name, family, counter) in
        [(kind.to_owned(), Family::Ipv4, None), (format!("{kind}6"), Family::Ipv6, counter)]
    {
        let prepare = |r: &Netns, family: Family| {
            r.run(&format!("{} route add {kind} {}", family.ip(), family.elsewhere_net()));
        };
        let route = Some((kind, error));
        refused(&name, &Refusal { family, prepare: &prepare, class: "harmful", route, counter });
    }
}

#[test]
fn unreachable() {
    route_that_refuses("unreachable", "EHOSTUNREACH", Some("Ip6InNoRoutes"));
}

#[test]
fn prohibit() {
    route_that_refuses("prohibit", "EACCES", Some("Ip6InNoRoutes"));
}

#[test]
fn blackhole() {
    route_that_refuses("blackhole", "EINVAL", None);
}

#[test]
fn throw_that_leads_nowhere() {
    let counters =
        [("throw", Family::Ipv4, Some("IpExtInNoRoutes")), ("throw6", Family::Ipv6, Some("Ip6InNoRoutes"))];
    for (name, family, counter) in counters {
        let prepare = |r: &Netns, family: Family| {
            // The route in table 77 would do; throw says "look in the next table", where there is none.
            let (ip, net, via) = (family.ip(), family.elsewhere_net(), family.pick("10.2.0.2", "fd02::2"));
            r.run(&format!("{ip} route add default via {via} table 77"));
            r.run(&format!("{ip} route add throw {net} table 77"));
            r.run(&format!("{ip} rule add priority 100 table 77"));
        };
        let route = Some(("none", "ENETUNREACH"));
        refused(name, &Refusal { family, prepare: &prepare, class: "suspect", route, counter });
    }
}

#[test]
fn no_route() {
    let counters = [
        ("no-route", Family::Ipv4, Some("IpExtInNoRoutes")),
        ("no-route6", Family::Ipv6, Some("Ip6InNoRoutes")),
    ];
    for (name, family, counter) in counters {
        let route = Some(("none", "ENETUNREACH"));
        refused(name, &Refusal { family, prepare: &|_, _| {}, class: "suspect", route, counter });
    }
}

#[test]
fn host_that_does_not_forward() {
    let counters = [
        ("no-forward", Family::Ipv4, Some("IpInAddrErrors")),
        ("no-forward6", Family::Ipv6, Some("Ip6InAddrErrors")),
    ];
    for (name, family, counter) in counters {
        // IPv6 has a good route in hand when it finds that it may not forward.
        let route = family.pick(Some(("none", "EHOSTUNREACH")), None);
        let prepare = |r: &Netns, family: Family| {
            // The route is there, the will is not.
            let via = family.pick("10.2.0.2", "fd02::2");
            r.run(&format!("{} route add default via {via}", family.ip()));
            r.sysctl(family.pick("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"), "0");
        };
        refused(name, &Refusal { family, prepare: &prepare, class: "suspect", route, counter });
    }
}

#[test]
fn own_sends_are_refused_and_not_dropped() {
    for (name, family) in [("own-sends", Family::Ipv4), ("own-sends6", Family::Ipv6)] {
        let Some(lab) = Lab::new(name, &[]) else { return };
        let pair = lab.pair_of(family);
        let tracing = Trace::of(&pair.a).start();

        let socket = pair.a.udp_socket(&at(pair.a_end.ip, 5212));
        let (ip, net) = (family.ip(), family.elsewhere_net());
        let target = at(family.elsewhere(), 5213);
        let send = || socket.send_to(b"x", &target).map_err(|error| error.raw_os_error());
        assert_eq!(send(), Err(Some(libc::ENETUNREACH)), "without a route");
        for (kind, errno) in [
            ("unreachable", libc::EHOSTUNREACH),
            ("prohibit", libc::EACCES),
            ("blackhole", libc::EINVAL),
            ("throw", libc::ENETUNREACH),
        ] {
            pair.a.run(&format!("{ip} route replace {kind} {net}"));
            assert_eq!(send(), Err(Some(errno)), "{kind}");
        }
        // What is dropped is seen: a port of this host that nobody has.
        let own = pair.a.udp_socket(&at(pair.a_end.ip, 5214));
        own.connect(at(pair.a_end.ip, 5215)).expect("connect to a closed port");
        own.send(b"x").expect("send to a closed port");
        match own.recv(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => panic!("the port is not closed: {other:?}"),
        }

        let outcome = tracing.stop();
        assert_eq!(outcome.number("shown"), 1, "drops that are none");
        assert_eq!(outcome.cause_count("port-closed"), 1);
        assert_eq!(outcome.cause_count("no-route"), 0);
    }
}
