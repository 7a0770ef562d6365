//! The kernel struct members that the kernel side reads, in one list that both sides expand: the kernel
//! side into rodata globals, userspace into the table it resolves from the running kernel's BTF.

/// Global value of a member this kernel does not have; code that needs it is pruned.
pub const ABSENT: u16 = u16::MAX;

/// Calls `$apply!` with rows of `NAME: "struct" "member.path", need;`.
///
/// An empty path asks for the size of the struct. `need` is `required` where netdrop cannot trace
/// without the member, `optional` where it loses one fact. `"module:struct"` is a struct that may be part of
/// the kernel image or of that module. `"a|b"` is the first of several members that
/// this architecture has.
#[macro_export]
macro_rules! kernel_fields {
    ($apply:ident) => {
        $apply! {
            SKB_LEN: "sk_buff" "len", required;
            SKB_DEV: "sk_buff" "dev", required;
            SKB_SK: "sk_buff" "sk", required;
            SKB_HEAD: "sk_buff" "head", required;
            SKB_DATA: "sk_buff" "data", required;
            SKB_TAIL: "sk_buff" "tail", required;
            SKB_END: "sk_buff" "end", required;
            SKB_NETWORK_HEADER: "sk_buff" "network_header", required;
            SKB_MAC_HEADER: "sk_buff" "mac_header", required;
            SKB_PROTOCOL: "sk_buff" "protocol", required;
            SKB_IIF: "sk_buff" "skb_iif", required;
            SKB_REFDST: "sk_buff" "_skb_refdst", required;
            SKB_QUEUE_MAPPING: "sk_buff" "queue_mapping", required;
            SKB_TRUESIZE: "sk_buff" "truesize", required;
            SKB_TRANSPORT_HEADER: "sk_buff" "transport_header", required;
            SKB_NFCT: "sk_buff" "_nfct", optional;
            SHARED_GSO_SEGS: "skb_shared_info" "gso_segs", required;
            SHARED_GSO_SIZE: "skb_shared_info" "gso_size", required;
            DEV_IFINDEX: "net_device" "ifindex", required;
            DEV_NAME: "net_device" "name", required;
            DEV_NET: "net_device" "nd_net.net", required;
            DEV_TX: "net_device" "_tx", required;
            DEV_MTU: "net_device" "mtu", required;
            DEV_FLAGS: "net_device" "flags", required;
            DEV_HARD_HEADER_LEN: "net_device" "hard_header_len", required;
            DEV_LINK_OPS: "net_device" "rtnl_link_ops", required;
            DEV_IP: "net_device" "ip_ptr", required;
            DEV_IP6: "net_device" "ip6_ptr", optional;
            DEV_SIZE: "net_device" "", required;
            LINK_OPS_KIND: "rtnl_link_ops" "kind", required;
            VETH_PEER: "veth:veth_priv" "peer", optional;
            IN_DEVICE_ARP: "in_device" "arp_parms", required;
            INET6_DEV_ND: "inet6_dev" "nd_parms", optional;
            NEIGH_PARMS_TABLE: "neigh_parms" "tbl", required;
            NEIGH_PARMS_DATA: "neigh_parms" "data", required;
            NEIGH_TABLE_ENTRIES: "neigh_table" "gc_entries.counter", optional;
            NEIGH_TABLE_LIMIT: "neigh_table" "gc_thresh3", optional;
            NET_INUM: "net" "ns.inum", required;
            NET_COOKIE: "net" "net_cookie", optional;
            NET_LOOPBACK: "net" "loopback_dev", required;
            NET_LIST: "net" "list", optional;
            NET_MIB: "net" "mib.net_statistics", optional;
            NET_CT_STAT: "net" "ct.stat", optional;
            NET_SOMAXCONN: "net" "core.sysctl_somaxconn", optional;
            NET_MAX_SYN_BACKLOG: "net" "ipv4.sysctl_max_syn_backlog", optional;
            NET_SYNCOOKIES: "net" "ipv4.sysctl_tcp_syncookies", optional;
            CT_STAT_SIZE: "ip_conntrack_stat" "", optional;
            CT_STAT_INSERT_FAILED: "ip_conntrack_stat" "insert_failed", optional;
            CT_STAT_DROP: "ip_conntrack_stat" "drop", optional;
            CT_STAT_INVALID: "ip_conntrack_stat" "invalid", optional;
            CT_STAT_CLASH_RESOLVE: "ip_conntrack_stat" "clash_resolve", optional;
            CT_STAT_CHAIN_TOO_LONG: "ip_conntrack_stat" "chaintoolong", optional;
            CONN_TUPLES: "nf_conntrack:nf_conn" "tuplehash", optional;
            CONN_STATUS: "nf_conntrack:nf_conn" "status", optional;
            CONN_ZONE: "nf_conntrack:nf_conn" "zone.id", optional;
            TUPLE_HASH_SIZE: "nf_conntrack:nf_conntrack_tuple_hash" "", optional;
            TUPLE_HASH_TUPLE: "nf_conntrack:nf_conntrack_tuple_hash" "tuple", optional;
            TUPLE_SRC: "nf_conntrack:nf_conntrack_tuple" "src.u3", optional;
            TUPLE_SRC_PORT: "nf_conntrack:nf_conntrack_tuple" "src.u", optional;
            TUPLE_FAMILY: "nf_conntrack:nf_conntrack_tuple" "src.l3num", optional;
            TUPLE_DST: "nf_conntrack:nf_conntrack_tuple" "dst.u3", optional;
            TUPLE_DST_PORT: "nf_conntrack:nf_conntrack_tuple" "dst.u", optional;
            TUPLE_PROTO: "nf_conntrack:nf_conntrack_tuple" "dst.protonum", optional;
            TUPLE_DIRECTION: "nf_conntrack:nf_conntrack_tuple" "dst.dir", optional;
            NF_STATE_HOOK: "nf_hook_state" "hook", optional;
            NF_STATE_FAMILY: "nf_hook_state" "pf", optional;
            XT_TABLE_NAME: "x_tables:xt_table" "name", optional;
            NFT_PACKET_SKB: "nf_tables:nft_pktinfo" "skb", optional;
            NFT_CHAIN_NAME: "nf_tables:nft_chain" "name", optional;
            NFT_CHAIN_TABLE: "nf_tables:nft_chain" "table", optional;
            NFT_TABLE_NAME: "nf_tables:nft_table" "name", optional;
            NFT_TABLE_FAMILY: "nf_tables:nft_table" "family", optional;
            TASK_NSPROXY: "task_struct" "nsproxy", optional;
            TASK_FILES: "task_struct" "files", optional;
            FILES_TABLE: "files_struct" "fdt", optional;
            TABLE_LENGTH: "fdtable" "max_fds", optional;
            TABLE_FILES: "fdtable" "fd", optional;
            FILE_PRIVATE: "file" "private_data", optional;
            SOCKET_FILE: "socket" "file", optional;
            SOCKET_SOCK: "socket" "sk", optional;
            CALL_NUMBER: "pt_regs" "orig_ax|syscallno", optional;
            CALL_FIRST: "pt_regs" "di|orig_x0", optional;
            CALL_SECOND: "pt_regs" "si|regs", optional;
            CALL_FIFTH: "pt_regs" "r8|regs", optional;
            NSPROXY_NET: "nsproxy" "net_ns", optional;
            BPF_ARRAY_PER_CPU: "bpf_array" "pptrs", optional;
            SOCK_NET: "sock" "__sk_common.skc_net.net", required;
            SOCK_FAMILY: "sock" "__sk_common.skc_family", required;
            SOCK_STATE: "sock" "__sk_common.skc_state", required;
            SOCK_RCVBUF: "sock" "sk_rcvbuf", required;
            SOCK_SNDBUF: "sock" "sk_sndbuf", required;
            SOCK_RMEM: "sock" "sk_backlog.rmem_alloc.counter", required;
            SOCK_BACKLOG: "sock" "sk_backlog.len", required;
            SOCK_PROTOCOL: "sock" "sk_protocol", optional;
            SOCK_PROTO: "sock" "__sk_common.skc_prot", required;
            SOCK_LISTENER: "sock" "__sk_common.skc_listener", required;
            SOCK_PORT: "sock" "__sk_common.skc_num", required;
            SOCK_PEER_PORT: "sock" "__sk_common.skc_dport", required;
            SOCK_PEER: "sock" "__sk_common.skc_daddr", required;
            SOCK_PEER6: "sock" "__sk_common.skc_v6_daddr", optional;
            SOCK_ADDRESS: "sock" "__sk_common.skc_rcv_saddr", required;
            SOCK_ADDRESS6: "sock" "__sk_common.skc_v6_rcv_saddr", optional;
            SOCK_ACCEPT_QUEUE: "sock" "sk_ack_backlog", required;
            SOCK_ACCEPT_LIMIT: "sock" "sk_max_ack_backlog", required;
            SOCK_SOCKET: "sock" "sk_socket", optional;
            SOCKET_ALLOC_SOCKET: "socket_alloc" "socket", optional;
            SOCKET_ALLOC_INODE: "socket_alloc" "vfs_inode.i_ino", optional;
            CONNECTION_HALF_OPEN: "inet_connection_sock" "icsk_accept_queue.qlen.counter", optional;
            INET_SOURCE_PORT: "inet_sock" "inet_sport", optional;
            PROTO_MEMORY: "proto" "memory_allocated", required;
            PROTO_LIMITS: "proto" "sysctl_mem", required;
            DST_DEV: "dst_entry" "dev", required;
            DST_ERROR: "dst_entry" "error", required;
            DST_INPUT: "dst_entry" "input", required;
            DST_METRICS: "dst_entry" "_metrics", required;
            TXQ_SIZE: "netdev_queue" "", required;
            TXQ_QDISC: "netdev_queue" "qdisc", required;
            TXQ_DEV: "netdev_queue" "dev", required;
            QDISC_OPS: "Qdisc" "ops", required;
            QDISC_LIMIT: "Qdisc" "limit", required;
            QDISC_QLEN: "Qdisc" "q.qlen", required;
            QDISC_HANDLE: "Qdisc" "handle", required;
            QDISC_PARENT: "Qdisc" "parent", required;
            QDISC_BACKLOG: "Qdisc" "qstats.backlog", required;
            QDISC_QUEUE: "Qdisc" "dev_queue", optional;
            QDISC_OPS_ID: "Qdisc_ops" "id", required;
        }
    };
}

/// `sk_buff.pkt_type` is a bit field: globals for its first byte, the shift in it, and its width.
pub const PKT_TYPE_BYTE: &str = "SKB_PKT_TYPE_BYTE";
/// See [`PKT_TYPE_BYTE`].
pub const PKT_TYPE_SHIFT: &str = "SKB_PKT_TYPE_SHIFT";

/// Index of `unres_qlen_bytes` in `neigh_parms.data` (enum of include/net/neighbour.h), or [`ABSENT`].
pub const NEIGH_QUEUE_INDEX: &str = "NEIGH_QUEUE_LEN_BYTES";
/// The enumerator that holds it.
pub const NEIGH_QUEUE_ENUMERATOR: &str = "NEIGH_VAR_QUEUE_LEN_BYTES";
