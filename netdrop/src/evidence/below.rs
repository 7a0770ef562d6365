//! Which qdisc below the one in front of the device dropped, where no hook saw it: the one whose counter moved.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{attribute::netns::NetnsId, counters::qdisc::Qdisc};

/// How long an answer is good: a flood of drops asks once.
const FRESH: Duration = Duration::from_millis(100);

/// Devices that are remembered.
const REMEMBERED: usize = 1024;

/// Remembers what the qdiscs of a device had dropped.
#[derive(Default)]
pub struct Below {
    devices: HashMap<(NetnsId, u32), Device>,
}

struct Device {
    asked: Instant,
    /// What each qdisc had dropped then, by handle and parent.
    drops: HashMap<(u32, u32), u32>,
    found: Option<Qdisc>,
}

impl Below {
    /// The one qdisc below `handle`, on a device, that has dropped since the last time it was asked for, or at all when
    /// this is the first time; nothing when there is none, or several have. `ask` lists the qdiscs of the namespace.
    pub fn find(
        &mut self,
        netns: NetnsId,
        ifindex: u32,
        handle: u32,
        ask: impl FnOnce() -> Vec<Qdisc>,
    ) -> Option<Qdisc> {
        let known = self.devices.get(&(netns, ifindex));
        if let Some(device) = known
            && device.asked.elapsed() < FRESH
        {
            return device.found.clone();
        }
        let qdiscs: Vec<_> = ask().into_iter().filter(|qdisc| qdisc.ifindex == ifindex).collect();
        let none = HashMap::new();
        let found = dropped(&qdiscs, known.map_or(&none, |device| &device.drops), handle).cloned();
        let drops = qdiscs.iter().map(|qdisc| ((qdisc.handle, qdisc.parent), qdisc.drops)).collect();
        if self.devices.len() >= REMEMBERED {
            self.devices.clear();
        }
        self.devices.insert((netns, ifindex), Device { asked: Instant::now(), drops, found: found.clone() });
        found
    }
}

/// The one qdisc below `handle` that dropped more than `before`, and of whose children none did.
fn dropped<'q>(qdiscs: &'q [Qdisc], before: &HashMap<(u32, u32), u32>, handle: u32) -> Option<&'q Qdisc> {
    /// Deeper trees are none that anybody builds.
    const DEEPEST: usize = 8;
    let moved =
        |qdisc: &Qdisc| qdisc.drops != before.get(&(qdisc.handle, qdisc.parent)).copied().unwrap_or(0);
    let mut level = vec![handle];
    let mut found: Vec<&Qdisc> = Vec::new();
    for _ in 0..DEEPEST {
        let is_child = |qdisc: &&Qdisc| {
            moved(qdisc) && level.iter().any(|parent| *parent != 0 && qdisc.parent >> 16 == parent >> 16)
        };
        let children: Vec<_> = qdiscs.iter().filter(is_child).collect();
        if children.is_empty() {
            break;
        }
        // Classful kinds count what their children drop: those that have one here did not drop themselves.
        found.retain(|parent| !children.iter().any(|child| child.parent >> 16 == parent.handle >> 16));
        found.extend(&children);
        level = children.iter().map(|child| child.handle).collect();
    }
    match found[..] {
        [one] => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qdisc(handle: u32, parent: u32, drops: u32) -> Qdisc {
        Qdisc { ifindex: 2, handle: handle << 16, parent, drops, ..Qdisc::default() }
    }

    const ROOT: u32 = u32::MAX;

    #[test]
    fn the_child_whose_counter_moved() {
        let netns = NetnsId { inode: 1, cookie: 1 };
        let tree = |first, second| {
            vec![
                qdisc(1, ROOT, first + second),
                qdisc(0x10, 0x0001_0010, first),
                qdisc(0x20, 0x0001_0020, second),
            ]
        };
        let mut below = Below::default();
        let found = below.find(netns, 2, 0x0001_0000, || tree(5, 0)).unwrap();
        assert_eq!(found.handle, 0x0010_0000);
        // The answer is fresh.
        assert_eq!(below.find(netns, 2, 0x0001_0000, Vec::new), Some(found));
        assert_eq!(below.find(netns, 3, 0x0001_0000, || tree(5, 0)), None, "another device");

        let before = HashMap::from([((0x0001_0000, ROOT), 5), ((0x0010_0000, 0x0001_0010), 5)]);
        assert_eq!(dropped(&tree(5, 2), &before, 0x0001_0000).unwrap().handle, 0x0020_0000);
        assert_eq!(dropped(&tree(6, 2), &before, 0x0001_0000), None, "both");
        assert_eq!(dropped(&tree(5, 0), &before, 0x0001_0000), None, "neither");
    }

    #[test]
    fn the_innermost_counts() {
        let tree = [qdisc(1, ROOT, 3), qdisc(2, 0x0001_0001, 3), qdisc(0, 0x0002_0001, 3)];
        assert_eq!(dropped(&tree, &HashMap::new(), 0x0001_0000).unwrap().parent, 0x0002_0001);
        // Children of what the kernel made hang nowhere that could be told.
        assert_eq!(dropped(&tree, &HashMap::new(), 0), None);
    }
}
