//! Drops at sockets and by TCP's own decision, against the causes they must get.

use netdrop_common::facts::{Facts, Network, TcpClass, Transport};

use super::verdicts::{Row, check};
use crate::cause::{Class, Confidence};

#[test]
fn drops_at_sockets_get_their_causes() {
    use Class::{Benign, Harmful, Suspect};
    use Confidence::{Inferred, Observed};
    let none = Facts::default();
    let tcp = |class| none.with_network(Network::Ipv4).with_transport(Transport::Tcp).with_tcp_class(class);
    let state = |state, class| tcp(class).with_socket_state(state);
    let table: &[Row<'_>] = &[
        // Closed ports.
        (
            Some("NO_SOCKET"),
            "__udp4_lib_rcv",
            none.with_transport(Transport::Udp),
            ("port-closed", Suspect, Observed),
        ),
        (
            Some("NO_SOCKET"),
            "__udp6_lib_rcv",
            none.with_transport(Transport::Udp),
            ("port-closed", Suspect, Observed),
        ),
        (Some("NO_SOCKET"), "tcp_v4_rcv", tcp(TcpClass::Syn), ("port-closed", Suspect, Observed)),
        (Some("NO_SOCKET"), "tcp_v6_rcv", tcp(TcpClass::Ack), ("connection-teardown", Suspect, Observed)),
        (Some("NO_SOCKET"), "tcp_v4_rcv", tcp(TcpClass::Psh), ("connection-teardown", Suspect, Observed)),
        (Some("NO_SOCKET"), "tcp_v4_rcv", tcp(TcpClass::Rst), ("connection-teardown", Benign, Observed)),
        (Some("NO_SOCKET"), "tcp_v4_rcv", tcp(TcpClass::Fin), ("connection-teardown", Benign, Observed)),
        (None, "tcp_v4_rcv", tcp(TcpClass::Syn), ("port-closed", Suspect, Inferred)),
        (None, "tcp_v4_rcv", tcp(TcpClass::Fin), ("connection-teardown", Benign, Inferred)),
        (None, "tcp_v4_rcv", tcp(TcpClass::Ack), ("unknown", Suspect, Inferred)),
        (None, "__udp4_lib_rcv", none, ("port-closed", Suspect, Inferred)),
        (
            Some("NO_SOCKET"),
            "cookie_v4_check",
            tcp(TcpClass::Ack),
            ("tcp-accept-queue-full", Harmful, Inferred),
        ),
        (
            Some("NO_SOCKET"),
            "cookie_v6_check",
            tcp(TcpClass::Rst),
            ("tcp-accept-queue-full", Harmful, Inferred),
        ),
        (
            Some("NO_SOCKET"),
            "ping_rcv",
            none.with_transport(Transport::Icmp),
            ("processed-normally", Benign, Observed),
        ),
        // Buffers.
        (
            Some("SOCKET_RCVBUFF"),
            "udp_queue_rcv_one_skb",
            none,
            ("udp-receive-buffer-full", Harmful, Observed),
        ),
        (
            Some("SOCKET_RCVBUFF"),
            "udpv6_queue_rcv_one_skb",
            none,
            ("udp-receive-buffer-full", Harmful, Observed),
        ),
        (Some("SOCKET_RCVBUFF"), "raw_rcv_skb", none, ("socket-receive-buffer-full", Harmful, Observed)),
        (None, "udp_queue_rcv_one_skb", none, ("udp-receive-buffer-full", Harmful, Inferred)),
        (Some("PROTO_MEM"), "tcp_data_queue", none, ("tcp-receive-buffer-full", Harmful, Inferred)),
        (
            Some("PROTO_MEM"),
            "tcp_data_queue",
            state(1, TcpClass::Psh).with_receive_buffer_full(true),
            ("tcp-receive-buffer-full", Harmful, Observed),
        ),
        (
            Some("PROTO_MEM"),
            "tcp_rcv_established",
            state(1, TcpClass::Psh),
            ("protocol-memory-exhausted", Harmful, Observed),
        ),
        (
            Some("TCP_INVALID_END_SEQUENCE"),
            "tcp_validate_incoming",
            state(1, TcpClass::Psh).with_receive_buffer_full(true),
            ("tcp-receive-buffer-full", Suspect, Inferred),
        ),
        (
            Some("TCP_INVALID_SEQUENCE"),
            "tcp_validate_incoming",
            state(1, TcpClass::Psh),
            ("tcp-out-of-window", Suspect, Observed),
        ),
        (Some("PROTO_MEM"), "udp_queue_rcv_one_skb", none, ("protocol-memory-exhausted", Harmful, Observed)),
        (
            Some("TCP_OFO_QUEUE_PRUNE"),
            "tcp_prune_ofo_queue",
            none,
            ("tcp-receive-buffer-full", Harmful, Observed),
        ),
        // TCP by socket state.
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(6, TcpClass::Fin),
            ("connection-teardown", Benign, Observed),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(6, TcpClass::Syn),
            ("tcp-out-of-window", Suspect, Inferred),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(6, TcpClass::Psh),
            ("connection-teardown", Suspect, Observed),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_rcv_state_process",
            state(4, TcpClass::Ack),
            ("connection-teardown", Benign, Observed),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_rcv_state_process",
            state(0, TcpClass::Ack),
            ("connection-teardown", Benign, Inferred),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_rcv_state_process",
            state(1, TcpClass::Ack),
            ("unknown", Suspect, Inferred),
        ),
        (None, "tcp_rcv_state_process", none, ("connection-teardown", Benign, Inferred)),
        (
            Some("TCP_FLAGS"),
            "tcp_v4_do_rcv",
            state(10, TcpClass::Fin),
            ("connection-teardown", Benign, Observed),
        ),
        (
            Some("TCP_FLAGS"),
            "tcp_v6_do_rcv",
            state(10, TcpClass::Psh),
            ("connection-teardown", Suspect, Observed),
        ),
        (
            Some("TCP_FLAGS"),
            "tcp_rcv_state_process",
            state(10, TcpClass::Fin),
            ("tcp-invalid-flags", Suspect, Observed),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v6_rcv",
            state(9, TcpClass::Ack),
            ("connection-teardown", Benign, Observed),
        ),
        (Some("NOT_SPECIFIED"), "tcp_v4_rcv", state(10, TcpClass::Syn), ("duplicate-data", Benign, Observed)),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(12, TcpClass::Rst),
            ("connection-teardown", Benign, Inferred),
        ),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(10, TcpClass::Psh),
            ("tcp-accept-queue-full", Suspect, Inferred),
        ),
        (Some("NOT_SPECIFIED"), "tcp_v4_rcv", state(10, TcpClass::Ack), ("unknown", Suspect, Inferred)),
        (
            Some("NOT_SPECIFIED"),
            "tcp_v4_rcv",
            state(0, TcpClass::Fin),
            ("connection-teardown", Benign, Inferred),
        ),
        (
            Some("TCP_RFC7323_PAWS"),
            "tcp_validate_incoming",
            none,
            ("tcp-timestamp-rejected", Suspect, Observed),
        ),
        (Some("TCP_RFC7323_PAWS_ACK"), "tcp_validate_incoming", none, ("duplicate-data", Benign, Observed)),
        (
            Some("TCP_INVALID_SYN"),
            "tcp_validate_incoming",
            tcp(TcpClass::SynAck),
            ("duplicate-data", Benign, Observed),
        ),
        (
            Some("TCP_INVALID_SYN"),
            "tcp_validate_incoming",
            tcp(TcpClass::Syn),
            ("tcp-invalid-flags", Suspect, Observed),
        ),
        (Some("TCP_LISTEN_OVERFLOW"), "tcp_v4_rcv", none, ("tcp-accept-queue-full", Harmful, Observed)),
    ];
    check(table);
}
