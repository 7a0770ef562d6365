//! Values of facts that are one of a few: their numbers in a key, and their spelling in catalogue rules.

macro_rules! code {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            #[default]
            $($(#[$vdoc])* $variant = $value,)*
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value a code stands for; an unknown code reads as the first value, "not known".
            #[must_use]
            pub const fn from_code(code: u8) -> Self {
                match code {
                    $($value => Self::$variant,)*
                    _ => Self::ALL[0],
                }
            }

            /// The spelling used in catalogue rules.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The value with this spelling.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

code! {
    /// Network-layer protocol.
    Network {
        /// Not gathered or not readable.
        Unknown = 0, "unknown";
        /// IPv4.
        Ipv4 = 1, "ipv4";
        /// IPv6.
        Ipv6 = 2, "ipv6";
        /// ARP.
        Arp = 3, "arp";
        /// Any other ethertype.
        Other = 4, "other";
    }
}

code! {
    /// Transport-layer protocol.
    Transport {
        /// Not gathered or not readable.
        Unknown = 0, "unknown";
        /// TCP.
        Tcp = 1, "tcp";
        /// UDP.
        Udp = 2, "udp";
        /// ICMP for IPv4.
        Icmp = 3, "icmp";
        /// ICMP for IPv6.
        Icmp6 = 4, "icmp6";
        /// A later fragment: it carries no transport header.
        Fragment = 5, "fragment";
        /// Any other protocol.
        Other = 6, "other";
    }
}

code! {
    /// What kind of segment a TCP packet is.
    TcpClass {
        /// Not TCP, not gathered or not readable.
        None = 0, "none";
        /// SYN without ACK.
        Syn = 1, "syn";
        /// SYN and ACK.
        SynAck = 2, "syn-ack";
        /// RST, with or without ACK.
        Rst = 3, "rst";
        /// FIN, with or without ACK.
        Fin = 4, "fin";
        /// ACK with nothing else.
        Ack = 5, "ack";
        /// ACK and PSH: carries data.
        Psh = 6, "psh";
        /// No flag, or a combination that no TCP sends.
        Odd = 7, "odd";
    }
}

code! {
    /// Kind of a qdisc (`Qdisc.ops->id`).
    QdiscKind {
        /// Not gathered, or no device.
        Unknown = 0, "unknown";
        /// noop: the device has no carrier or is coming up.
        Noop = 1, "noop";
        /// noqueue: software devices.
        Noqueue = 2, "noqueue";
        /// netem.
        Netem = 3, "netem";
        /// Any other kind.
        Other = 4, "other";
    }
}

code! {
    /// The other end of a veth, as `is_skb_forwardable` (net/core/dev.c) sees it.
    VethPeer {
        /// Not gathered, no veth, or a kernel that does not tell.
        Unknown = 0, "unknown";
        /// Up, and the frame fits.
        Up = 1, "up";
        /// Not IFF_UP.
        Down = 2, "down";
        /// Up, and the frame is longer than its MTU allows.
        TooLong = 3, "too-long";
    }
}

code! {
    /// What a listener did with a packet of a handshake, by the counters that moved with it.
    ListenDrop {
        /// Not looked at, or nothing to compare with.
        Unknown = 0, "unknown";
        /// No counter of a listener moved.
        Quiet = 1, "quiet";
        /// The accept queue was full (ListenOverflows).
        AcceptQueue = 2, "accept-queue";
        /// The SYN queue was full (TCPReqQFullDrop).
        SynQueue = 3, "syn-queue";
        /// A quarter of `tcp_max_syn_backlog` or less was left, without SYN cookies (ListenDrops alone).
        SynBacklog = 4, "syn-backlog";
        /// ListenDrops moved for a reason that is none of these: no memory, no route back, a security module.
        Other = 5, "other";
        /// The counters moved by more than one drop: which of them this is cannot be told.
        Several = 6, "several";
    }
}

code! {
    /// What connection tracking did with a packet that netfilter dropped: by a hook, or by the counters that moved.
    Conntrack {
        /// Not looked at, or nothing to compare with.
        Unknown = 0, "unknown";
        /// No counter moved: connection tracking has nothing to do with this drop.
        Quiet = 1, "quiet";
        /// Its entry clashed with another (insert_failed and drop).
        Clash = 2, "clash";
        /// As [`Clash`](Self::Clash), after source NAT had looked for another port and found none that was free.
        NatPorts = 3, "nat-ports";
        /// Its entry could not be inserted: dying, or its extensions gone stale (insert_failed alone).
        Failed = 4, "failed";
        /// As [`Failed`](Self::Failed), the hash chain being too long (chaintoolong).
        ChainTooLong = 5, "chain-too-long";
        /// There was no room for an entry (drop alone).
        TableFull = 6, "table-full";
        /// The packet has no entry because it is INVALID (invalid).
        Invalid = 7, "invalid";
        /// As [`Invalid`](Self::Invalid), but the packet may also have been dropped before tracking saw it.
        MaybeInvalid = 8, "maybe-invalid";
        /// The counters moved by more than one packet: which of them this is cannot be told.
        Several = 9, "several";
    }
}

code! {
    /// Why TCP discarded a segment, by the counter that moved with it (kernels before 5.17).
    TcpDiscard {
        /// Not looked at, or nothing to compare with.
        Unknown = 0, "unknown";
        /// No counter moved.
        Quiet = 1, "quiet";
        /// No room in the receive buffer for data in order (TCPRcvQDrop).
        ReceiveQueue = 2, "receive-queue";
        /// No room in the receive buffer for data out of order (TCPOFODrop).
        OutOfOrder = 3, "out-of-order";
        /// Thrown out of the queue of data out of order (OfoPruned).
        Pruned = 4, "pruned";
        /// Timestamp too old (PAWSEstab).
        Paws = 5, "paws";
        /// Data against a closed window (TCPZeroWindowDrop).
        ZeroWindow = 6, "zero-window";
        /// More than one counter moved.
        Several = 7, "several";
    }
}

/// TCP flag bits as they stand in byte 13 of the header (RFC 9293).
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

impl TcpClass {
    /// The class of a segment with these flag bits.
    #[must_use]
    pub const fn from_flags(flags: u8) -> Self {
        let syn = flags & tcp::SYN != 0;
        let fin = flags & tcp::FIN != 0;
        if flags & tcp::RST != 0 {
            if syn || fin { Self::Odd } else { Self::Rst }
        } else if syn {
            if fin {
                Self::Odd
            } else if flags & tcp::ACK != 0 {
                Self::SynAck
            } else {
                Self::Syn
            }
        } else if flags & tcp::ACK == 0 {
            Self::Odd
        } else if fin {
            Self::Fin
        } else if flags & tcp::PSH != 0 {
            Self::Psh
        } else {
            Self::Ack
        }
    }
}

code! {
    /// What the kernel refused.
    Refused {
        /// Not known.
        Unknown = 0, "unknown";
        /// A port of its own choice: none was free.
        NoFreePort = 1, "no-free-port";
        /// The port that was asked for: it is taken.
        PortTaken = 2, "port-taken";
    }
}

code! {
    /// The call that was refused.
    Call {
        /// Not known.
        Unknown = 0, "unknown";
        /// connect().
        Connect = 1, "connect";
        /// bind().
        Bind = 2, "bind";
        /// listen().
        Listen = 3, "listen";
        /// sendto().
        Sendto = 4, "sendto";
        /// sendmsg().
        Sendmsg = 5, "sendmsg";
        /// sendmmsg().
        Sendmmsg = 6, "sendmmsg";
    }
}
