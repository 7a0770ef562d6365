//! Questions by netlink (`man 7 netlink`) to the network namespace that the calling thread is in.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Sends a request to `protocol` (`NETLINK_ROUTE`, `NETLINK_SOCK_DIAG` …) and takes the answer: one message, or with
/// `NLM_F_DUMP` all there are.
///
/// # Errors
///
/// When the kernel refuses, or answers what cannot be read.
pub(crate) fn ask<M>(protocol: isize, request: M, flags: u16) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    /// A dump comes in pieces of at most 32 KiB (NLMSG_GOODSIZE, net/netlink/af_netlink.c).
    const PIECE: usize = 32 << 10;
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut found = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        let received = socket.recv(&mut &mut piece[..], 0)?;
        let mut rest = &piece[..received];
        while !rest.is_empty() {
            let message = <NetlinkMessage<M>>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are aligned to 4 bytes (NLMSG_ALIGN).
            let len = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => found.push(answer),
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        // Nothing ends the answer to a question for one thing.
        if flags & NLM_F_DUMP == 0 {
            return Ok(found);
        }
    }
}
