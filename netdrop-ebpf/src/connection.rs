//! What connection tracking knows of a connection (`struct nf_conn`).

use netdrop_common::{
    event::{ConnTuple, Connection},
    fields::ABSENT,
};

use crate::offsets::{
    CONN_STATUS, CONN_TUPLES, CONN_ZONE, Raw, TUPLE_DST, TUPLE_DST_PORT, TUPLE_FAMILY, TUPLE_HASH_SIZE,
    TUPLE_HASH_TUPLE, TUPLE_PROTO, TUPLE_SRC, TUPLE_SRC_PORT,
};

/// Writes the connection at this address; zeros when there is none, or its layout is not known.
#[inline(never)]
pub(crate) fn write(to: &mut Connection, address: u64) {
    const NONE: ConnTuple =
        ConnTuple { saddr: [0; 16], daddr: [0; 16], sport: 0, dport: 0, family: 0, proto: 0, pad: 0 };
    to.original = NONE;
    to.reply = NONE;
    to.status = 0;
    to.zone = 0;
    to.have = 0;
    if address == 0 || CONN_TUPLES.load() == ABSENT || TUPLE_HASH_TUPLE.load() == ABSENT {
        return;
    }
    let connection = Raw(address);
    let original = connection.offset(u64::from(CONN_TUPLES.load()) + u64::from(TUPLE_HASH_TUPLE.load()));
    tuple(&mut to.original, original);
    tuple(&mut to.reply, original.offset(u64::from(TUPLE_HASH_SIZE.load())));
    to.status = connection.load::<u64>(&CONN_STATUS).unwrap_or(0) as u32;
    if CONN_ZONE.load() != ABSENT {
        to.zone = connection.load(&CONN_ZONE).unwrap_or(0);
    }
    to.have = 1;
}

#[inline(always)]
fn tuple(to: &mut ConnTuple, from: Raw) {
    // SAFETY: each goes to a member of the record, of its own width.
    unsafe { from.copy_member(&TUPLE_SRC, &raw mut to.saddr) };
    // SAFETY: as above.
    unsafe { from.copy_member(&TUPLE_DST, &raw mut to.daddr) };
    // SAFETY: as above.
    unsafe { from.copy_member(&TUPLE_SRC_PORT, &raw mut to.sport) };
    // SAFETY: as above.
    unsafe { from.copy_member(&TUPLE_DST_PORT, &raw mut to.dport) };
    // SAFETY: as above.
    unsafe { from.copy_member(&TUPLE_FAMILY, &raw mut to.family) };
    // SAFETY: as above.
    unsafe { from.copy_member(&TUPLE_PROTO, &raw mut to.proto) };
}
