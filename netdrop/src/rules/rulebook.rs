//! Readings of namespaces' rules, kept for a while: drops come faster than tools can list rules.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::fd::OwnedFd,
    rc::Rc,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::candidates::{Counters, Dropper, Observed, Place, Search};
use super::culprit::Culprit;
use super::read::{ReadError, Reading, read};
use crate::{attribute::netns::NetnsId, packet::Packet, say::say};

/// How long a reading is good that left one answer.
const GOOD: Duration = Duration::from_secs(1);

/// Least time between two readings of a namespace, and how many times longer than the last one took: reading may not take
/// more than a twentieth of a CPU.
const PAUSE: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;

/// How long a namespace that could not be read is left alone.
const FAILED: Duration = Duration::from_secs(10);

/// Longest wait of a drop for its reading, while the ring fills: mostly it takes a few milliseconds. What takes longer is
/// there for later drops.
const PATIENCE: Duration = Duration::from_millis(300);

/// Of all time, the part that drops may wait: one in this many.
const WAITING: u32 = 5;

/// Of all time, the part that goes into searching rulesets, which may have tens of thousands of rules that drop, and how
/// much of it may come at once. What comes when it is used up names no rule.
const SEARCHING: u32 = 10;
const SEARCH: Duration = Duration::from_millis(200);

/// Namespaces that are remembered.
const REMEMBERED: usize = 256;

/// Readings under way at once.
const UNDER_WAY: usize = 4;

/// Answers that are remembered of a reading: a flood is mostly one flow.
const ANSWERS: usize = 1024;

/// What is known of a netfilter drop.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where.
    pub place: Place<'a>,
    /// What freed it.
    pub dropper: Dropper,
    /// The packet.
    pub packet: &'a Packet,
    /// Whether the kernel was seen to tell the sender.
    pub rejected: bool,
    /// When, by `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// The base chain, where a hook saw it.
    pub observed: Option<Observed<'a>>,
}

/// Answers which rules may have dropped a packet.
pub struct Rulebook {
    /// Whether this kernel has nftables: else it is not asked, which would load it.
    nftables: bool,
    pages: HashMap<NetnsId, Page>,
    patience: Allowance,
    effort: Allowance,
    said: HashSet<String>,
}

/// What is known of one namespace.
#[derive(Default)]
struct Page {
    latest: Option<Dated>,
    coming: Option<Receiver<Result<Dated, ReadError>>>,
    /// When it may be read again: for a better answer, and for a newer one.
    soon: Option<Instant>,
    due: Option<Instant>,
    answers: HashMap<u64, Option<Rc<Culprit>>>,
}

/// A reading with its time, by `CLOCK_MONOTONIC` in nanoseconds.
struct Dated {
    reading: Reading,
    began: u64,
    ended: u64,
    /// End of the reading that it was compared with.
    before: Option<u64>,
}

impl Rulebook {
    /// Reads nothing yet. `nftables`: whether the kernel is known to have it.
    #[must_use]
    pub fn new(nftables: bool) -> Self {
        Self {
            nftables,
            pages: HashMap::new(),
            patience: Allowance::new(PATIENCE, WAITING),
            effort: Allowance::new(SEARCH, SEARCHING),
            said: HashSet::new(),
        }
    }

    /// The rules that may have dropped a packet, in the namespace that `open` opens; nothing when none is known.
    pub fn ask(
        &mut self,
        id: NetnsId,
        question: &Question<'_>,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> Option<Rc<Culprit>> {
        self.nftables |= matches!(question.dropper, Dropper::Nftables { .. });
        if self.pages.len() >= REMEMBERED && !self.pages.contains_key(&id) {
            self.pages.clear();
        }
        let under_way = self.pages.values().filter(|page| page.coming.is_some()).count();
        let page = self.pages.entry(id).or_default();
        page.receive(Duration::ZERO, &mut self.said);
        let now = Instant::now();
        let known = page.answer(question, &mut self.effort);
        if page.latest.as_ref().is_some_and(|latest| question.time_ns < latest.began) {
            // Nothing newer says more of it.
            return known;
        }
        let sure = known.as_ref().is_some_and(|culprit| culprit.rules == 1);
        let allowed = if sure { page.due } else { page.soon };
        if allowed.is_some_and(|allowed| now < allowed) {
            return known;
        }
        if page.coming.is_none() {
            if under_way >= UNDER_WAY {
                return known;
            }
            page.begin(open, self.nftables);
        }
        self.patience.spend(now, |left| page.receive(left, &mut self.said));
        page.answer(question, &mut self.effort)
    }
}

impl Page {
    /// Has the rules read.
    fn begin(&mut self, open: impl FnOnce() -> Option<OwnedFd>, nftables: bool) {
        // Until it is there.
        self.soon = Some(Instant::now() + PAUSE);
        self.due = self.soon;
        let Some(netns) = open() else { return };
        let (to, from) = sync_channel(1);
        let reads = move || {
            let began = monotonic();
            let reading = read(netns, nftables);
            // The run may have ended.
            let _ =
                to.send(reading.map(|reading| Dated { reading, began, ended: monotonic(), before: None }));
        };
        self.coming = thread::Builder::new().name("rules".to_owned()).spawn(reads).ok().map(|_| from);
    }

    /// Takes a reading that has come, or comes in the time that is `left`.
    fn receive(&mut self, left: Duration, said: &mut HashSet<String>) {
        let Some(coming) = &self.coming else { return };
        let came = if left.is_zero() {
            coming.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        } else {
            coming.recv_timeout(left).map_err(|error| error == RecvTimeoutError::Disconnected)
        };
        let mut complain = |error: &ReadError| {
            let said_now = error.to_string();
            if said.insert(said_now.clone()) {
                say(format_args!("{said_now}: drops by such rules name family and hook alone"));
            }
        };
        let now = Instant::now();
        match came {
            Ok(Ok(mut dated)) => {
                dated.reading.errors.iter().for_each(&mut complain);
                if let Some(latest) = &self.latest {
                    dated.reading.ruleset.compare(&latest.reading.ruleset);
                    dated.before = Some(latest.ended);
                }
                let took = Duration::from_nanos(dated.ended.saturating_sub(dated.began));
                let pause = PAUSE.max(took * SHARE);
                self.soon = Some(now + pause);
                self.due = Some(now + pause.max(GOOD));
                self.latest = Some(dated);
                self.answers.clear();
            }
            Ok(Err(error)) => {
                complain(&error);
                self.wait();
            }
            // The thread that read has panicked.
            Err(true) => self.wait(),
            Err(false) => return,
        }
        self.coming = None;
    }

    /// Leaves the namespace alone for a while.
    fn wait(&mut self) {
        let later = Instant::now() + FAILED;
        (self.soon, self.due) = (Some(later), Some(later));
    }

    /// What the latest reading says.
    fn answer(&mut self, question: &Question<'_>, effort: &mut Allowance) -> Option<Rc<Culprit>> {
        let latest = self.latest.as_ref()?;
        let counters = Counters {
            after: question.time_ns < latest.began,
            compared: latest.before.is_some_and(|before| before < question.time_ns),
        };
        let key = question.key(counters);
        if let Some(known) = self.answers.get(&key) {
            return known.clone();
        }
        let Question { place, dropper, packet, rejected, observed, .. } = *question;
        let search = Search { place, packet, dropper, rejected, observed, counters };
        let mut found = None;
        effort.spend(Instant::now(), |left| {
            if !left.is_zero() {
                found = Some(Culprit::new(&search.find(&latest.reading.ruleset)).map(Rc::new));
            }
        });
        let answer = found?;
        if self.answers.len() >= ANSWERS {
            self.answers.clear();
        }
        self.answers.insert(key, answer.clone());
        answer
    }
}

impl Question<'_> {
    /// What the answer depends on. Two questions of one key would need more luck than there is.
    fn key(&self, counters: Counters) -> u64 {
        let Packet { family, proto, src, dst, sport, dport, .. } = self.packet;
        let mut hasher = DefaultHasher::new();
        (self.place, self.dropper, self.rejected, self.observed, counters).hash(&mut hasher);
        (family.map(|family| family.to_string()), proto.map(|proto| proto.to_string())).hash(&mut hasher);
        (src, dst, sport, dport).hash(&mut hasher);
        hasher.finish()
    }
}

/// Time that may be spent, but only a part of all time.
struct Allowance {
    most: Duration,
    share: u32,
    left: Duration,
    counted: Instant,
}

impl Allowance {
    /// `most` at once, and one in `share` of all time.
    fn new(most: Duration, share: u32) -> Self {
        Self { most, share, left: most, counted: Instant::now() }
    }

    /// Does what takes time, which is told how much of it is left.
    fn spend(&mut self, now: Instant, work: impl FnOnce(Duration)) {
        let gained = now.saturating_duration_since(self.counted) / self.share;
        self.left = self.most.min(self.left + gained);
        work(self.left);
        self.left = self.left.saturating_sub(now.elapsed());
        self.counted = Instant::now();
    }
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests;
