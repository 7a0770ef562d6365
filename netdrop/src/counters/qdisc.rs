//! Queueing disciplines and what they dropped, as `tc -s qdisc show` has them (`man 7 rtnetlink`, RTM_GETQDISC).

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlaBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::ask;

/// RTM_NEWQDISC and RTM_GETQDISC (include/uapi/linux/rtnetlink.h).
const NEW: u16 = 36;
const GET: u16 = 38;

/// `struct tcmsg`: family and padding, ifindex, handle, parent, info.
const TCMSG: usize = 20;

/// Attributes (include/uapi/linux/rtnetlink.h, include/uapi/linux/gen_stats.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;

/// A qdisc and its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qdisc {
    /// Its device.
    pub ifindex: u32,
    /// Major number in the high 16 bits; 0 for one that the kernel made.
    pub handle: u32,
    /// `TC_H_ROOT`, or the class that it hangs from.
    pub parent: u32,
    /// `tbf`, `fq_codel` ….
    pub kind: String,
    /// Packets (bfifo: bytes) that pfifo and bfifo may hold; nothing for other kinds.
    pub limit: Option<u32>,
    /// Packets that it holds.
    pub qlen: u32,
    /// Packets that it dropped; a classful kind counts those of its children again.
    pub drops: u32,
}

/// All qdiscs of this thread's network namespace, also those that the kernel made for classes without one and that
/// tc does not show.
///
/// # Errors
///
/// When the kernel refuses, or answers what cannot be read.
pub fn qdiscs() -> io::Result<Vec<Qdisc>> {
    let answers = ask(NETLINK_ROUTE, Message::request(), NLM_F_DUMP)?;
    Ok(answers
        .iter()
        .filter(|answer| answer.kind == NEW)
        .filter_map(|answer| parse(&answer.payload))
        .collect())
}

fn parse(payload: &[u8]) -> Option<Qdisc> {
    let (header, attributes) = payload.split_at_checked(TCMSG)?;
    let mut qdisc = Qdisc {
        ifindex: word(header, 1)?,
        handle: word(header, 2)?,
        parent: word(header, 3)?,
        ..Qdisc::default()
    };
    let mut options = None;
    for attribute in attributes_of(attributes) {
        match attribute.kind() {
            TCA_KIND => {
                let name = attribute.value().split(|byte| *byte == 0).next().unwrap_or_default();
                qdisc.kind = String::from_utf8_lossy(name).into_owned();
            }
            TCA_OPTIONS => options = word(attribute.value(), 0),
            TCA_STATS2 => {
                for group in attributes_of(attribute.value()) {
                    if group.kind() == TCA_STATS_QUEUE {
                        // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits.
                        qdisc.qlen = word(group.value(), 0)?;
                        qdisc.drops = word(group.value(), 2)?;
                    }
                }
            }
            _ => {}
        }
    }
    // struct tc_fifo_qopt.
    qdisc.limit = options.filter(|_| matches!(&*qdisc.kind, "pfifo" | "bfifo"));
    Some(qdisc)
}

/// Attributes up to the first that is malformed.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// The word at this index.
fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.get(index).map(|word| u32::from_ne_bytes(*word))
}

/// A message of rtnetlink, not taken apart: what kinds have for options changes from kernel to kernel.
struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl Message {
    fn request() -> Self {
        /// A flag: its presence is what counts.
        const TCA_DUMP_INVISIBLE: u16 = 10;
        let mut payload = vec![0; TCMSG];
        payload.extend_from_slice(&4u16.to_ne_bytes());
        payload.extend_from_slice(&TCA_DUMP_INVISIBLE.to_ne_bytes());
        Self { kind: GET, payload }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.payload.len()].copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `tc qdisc add dev lo parent 1:10 handle 10: pfifo limit 3`, after 2 drops, on 6.18.
    fn recorded() -> Vec<u8> {
        let mut message = vec![0; 4];
        for word in [1u32, 0x0010_0000, 0x0001_0010, 0] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        let mut attribute = |kind: u16, value: &[u8]| {
            let len = u16::try_from(value.len() + 4).unwrap();
            message.extend_from_slice(&len.to_ne_bytes());
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().next_multiple_of(4), 0);
        };
        attribute(TCA_KIND, b"pfifo\0");
        attribute(TCA_OPTIONS, &3u32.to_ne_bytes());
        let mut queue = vec![24, 0, TCA_STATS_QUEUE as u8, 0];
        for word in [3u32, 180, 2, 0, 0] {
            queue.extend_from_slice(&word.to_ne_bytes());
        }
        attribute(TCA_STATS2, &queue);
        message
    }

    #[test]
    fn a_qdisc_is_read() {
        let expected = Qdisc {
            ifindex: 1,
            handle: 0x0010_0000,
            parent: 0x0001_0010,
            kind: "pfifo".to_owned(),
            limit: Some(3),
            qlen: 3,
            drops: 2,
        };
        assert_eq!(parse(&recorded()), Some(expected));
    }

    #[test]
    fn this_namespace_has_a_loopback_device() {
        match qdiscs() {
            Ok(found) => assert!(found.iter().all(|qdisc| qdisc.ifindex > 0 && !qdisc.kind.is_empty())),
            Err(error) => println!("SKIP: no rtnetlink here: {error}"),
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..120usize) {
            let _ = parse(&bytes);
            let whole = recorded();
            let _ = parse(&whole[..cut.min(whole.len())]);
        }
    }
}
