//! A program that a packet filter hands packets to (NFQUEUE): it keeps them until a scenario lets them go.
//!
//! Only the few messages of nfnetlink_queue that this takes (include/uapi/linux/netfilter/nfnetlink_queue.h).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::netns::Netns;
use crate::wait::DEADLINE;

/// The queue of rules that name none.
const QUEUE: u16 = 0;

/// Message types: the subsystem NFNL_SUBSYS_QUEUE, and what is said there.
const PACKET: u16 = 3 << 8;
const VERDICT: u16 = 3 << 8 | 1;
const CONFIG: u16 = 3 << 8 | 2;
/// An answer: 0 or an error number.
const NLMSG_ERROR: u16 = 2;

/// Attributes of CONFIG, and their values.
const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CMD_BIND: u8 = 1;
const COPY_META: u8 = 1;

/// Attributes of PACKET and VERDICT.
const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;

/// The verdict to go on: into a queue that nobody reads, or past it (NF_QUEUE with NF_VERDICT_FLAG_QUEUE_BYPASS).
///
/// Older kernels (up to 6.1 at least) look a packet's connection up once more when its verdict is NF_ACCEPT, and give
/// it the entry of another packet that has gone before (nf_conntrack_update()): nothing could ever clash.
const GO_ON: u32 = 3 | 0x8000 | NOBODY << 16;
const NOBODY: u32 = 1;

/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const NLMSGHDR: usize = 16;
const NFGENMSG: usize = 4;

/// How long to wait for a message before looking at the clock.
const LOOK: Duration = Duration::from_millis(200);

/// The program that reads queue 0 of a namespace. What it still has is dropped with it.
pub struct Queue {
    socket: OwnedFd,
    held: Vec<u32>,
}

impl Netns {
    /// Starts to read queue 0.
    #[track_caller]
    pub fn queue(&self) -> Queue {
        let socket = self.enter(|| {
            let kind = SocketType::RAW;
            let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(NETFILTER))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(LOOK))?;
            // To the kernel.
            connect(&socket, &SocketAddrNetlink::new(0, 0))?;
            Ok::<_, Errno>(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("netlink socket in {}: {error}", self.name()));
        let mut queue = Queue { socket, held: Vec::new() };
        queue.ask(CONFIG, CFG_CMD, &[CMD_BIND, 0, 0, 0]);
        queue.ask(CONFIG, CFG_PARAMS, &[0, 0, 0, 0, COPY_META]);
        queue
    }
}

impl Queue {
    /// Waits until the queue has handed over `count` packets in all.
    #[track_caller]
    pub fn hold(&mut self, count: usize) {
        let end = Instant::now() + DEADLINE;
        while self.held.len() < count {
            assert!(Instant::now() < end, "{} of {count} packets within {DEADLINE:?}", self.held.len());
            self.receive();
        }
        assert_eq!(self.held.len(), count, "packets in the queue");
    }

    /// Lets all packets go, in the order in which they came; each is where it goes when this returns.
    #[track_caller]
    pub fn let_go(&mut self) {
        for id in std::mem::take(&mut self.held) {
            let verdict = [GO_ON.to_be_bytes(), id.to_be_bytes()].concat();
            self.ask(VERDICT, VERDICT_HDR, &verdict);
        }
    }

    /// Sends a message with one attribute, and waits for the kernel's consent.
    #[track_caller]
    fn ask(&mut self, kind: u16, attribute: u16, value: &[u8]) {
        let message = message(kind, attribute, value);
        match send(&self.socket, &message, SendFlags::empty()) {
            Ok(sent) => assert_eq!(sent, message.len(), "short send to a queue"),
            Err(error) => panic!("send to a queue: {error}"),
        }
        let end = Instant::now() + DEADLINE;
        while !self.receive() {
            assert!(Instant::now() < end, "no answer of the queue within {DEADLINE:?}");
        }
    }

    /// Takes what has come, if anything; whether the kernel's consent was there.
    #[track_caller]
    fn receive(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        let len = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((len, _)) => len,
            Err(Errno::AGAIN) => return false,
            Err(error) => panic!("receive from a queue: {error}"),
        };
        let mut consent = false;
        let mut rest = &buffer[..len];
        while rest.len() >= NLMSGHDR {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let body = rest.get(NLMSGHDR..length).unwrap_or_else(|| panic!("a torn message: {rest:?}"));
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_ERROR => {
                    let error = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                    assert_eq!(error, 0, "the queue refused: {}", Errno::from_raw_os_error(-error));
                    consent = true;
                }
                PACKET => self.held.push(packet_id(body).unwrap_or_else(|| panic!("no id in {body:?}"))),
                other => panic!("message {other:#x} from a queue"),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        consent
    }
}

/// A message to queue 0 with one attribute, whose receipt is to be confirmed.
fn message(kind: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    const NLM_F_REQUEST: u16 = 1;
    const NLM_F_ACK: u16 = 4;
    let attribute_len = 4 + value.len();
    let len = NLMSGHDR + NFGENMSG + attribute_len.next_multiple_of(4);
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Serial number and sender: the kernel knows.
    message.extend([0; 8]);
    // Any family, version 0.
    message.extend([0; 2]);
    message.extend(QUEUE.to_be_bytes());
    message.extend((attribute_len as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(len, 0);
    message
}

/// The number by which the kernel knows a packet, from the body of a PACKET message.
fn packet_id(body: &[u8]) -> Option<u32> {
    let mut rest = body.get(NFGENMSG..)?;
    loop {
        let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        if kind == PACKET_HDR {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        // An attribute is at least its own header, or this would not end.
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_long_it_is() {
        let message = message(CONFIG, CFG_PARAMS, &[0, 0, 0, 0, COPY_META]);
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32u32.to_ne_bytes());
        assert_eq!(message[20..22], 9u16.to_ne_bytes());
    }

    #[test]
    fn the_id_may_follow_other_attributes() {
        let mut body = vec![2, 0, 0, 0];
        body.extend([6u16.to_ne_bytes(), 9u16.to_ne_bytes()].concat());
        body.extend([1, 2, 0, 0]);
        body.extend([11u16.to_ne_bytes(), PACKET_HDR.to_ne_bytes()].concat());
        body.extend([0, 0, 0, 7, 8, 0, 2, 0]);
        assert_eq!(packet_id(&body), Some(7));
        assert_eq!(packet_id(&body[..12]), None);
    }
}
