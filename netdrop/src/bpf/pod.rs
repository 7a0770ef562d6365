//! Map keys and values as aya wants them: types whose every bit pattern is valid.

use netdrop_common::{
    filter::{Cidr, PortRange, TextRange},
    key::{DropCount, DropKey},
    refusal::{RefusalCount, RefusalKey},
    witness::{Remembered, Step, WitnessKey},
};

macro_rules! pod {
    ($($name:ident($inner:ty);)*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub(super) struct $name(pub(super) $inner);

            // SAFETY: the inner type is `repr(C)`, made of integers alone and without padding.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod! {
    Key(DropKey);
    Count(DropCount);
    Ports(PortRange);
    Text(TextRange);
    Network(Cidr);
    Asked(RefusalKey);
    Refusals(RefusalCount);
    Answer(Step);
    Seen(WitnessKey);
    Last(Remembered);
}
