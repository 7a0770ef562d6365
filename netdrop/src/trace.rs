//! A live run: records in, events out, until someone or something ends it.

mod ask;
mod losses;
mod refusals;

use std::{io, rc::Rc, time::Duration};

use netdrop_common::{event::KEY_OVERFLOWED, harm::HarmEvent};
use tokio::time::{Instant, sleep_until};

use self::{ask::Asked, losses::Losses};
use crate::{
    attribute::{Attributor, HostPaths, netns::NetnsId},
    bpf::{LoadError, LogLevel, Rung, Settings, Tracer},
    cause::{Catalogue, Class},
    clock::Clock,
    decode::{Record, decode, decode_harm, decode_refusal},
    event::{Event, Known},
    evidence::{Below, Found},
    firewall::{Firewall, Seen},
    harm::{self, Consequence, Recent},
    inside::Inside,
    judge::{Judge, Judged, gather_table},
    kernel::Kernel,
    outlet::{Target, Written},
    output::Sink,
    outputs::Outputs,
    packet::Packet,
    refusal::RefusalJudge,
    say::say,
    signals::Signals,
    summary::Summary,
    totals::{Tally, Totals, wanted},
};

/// Records taken from the ring before output, signals and the clock get their turn.
const BATCH: usize = 1024;

/// How often a run looks for lost events while records come.
const LOSS_INTERVAL: Duration = Duration::from_millis(100);

/// How often counters of namespaces that have ended are looked for.
pub(crate) const TEND_INTERVAL: Duration = Duration::from_secs(10);

/// How often the debug channel is emptied.
const LOG_INTERVAL: Duration = Duration::from_millis(50);

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which drops.
    pub filter: crate::filter::Filter,
    /// Whether events are shown, or drops only counted.
    pub events: bool,
    /// Whether events carry the kernel stack.
    pub stack: bool,
    /// Show benign drops too.
    pub all: bool,
    /// End after this many shown events.
    pub count: Option<u64>,
    /// End after this long.
    pub duration: Option<Duration>,
    /// Size of the ring.
    pub buffer_bytes: u32,
    /// Keys of the counter map; nothing for the usual number.
    pub max_keys: Option<u32>,
    /// The rungs to use, for probe points that have one of them; empty for the best that loads.
    pub rungs: Vec<Rung>,
    /// Whether hooks may be used that run for each packet.
    pub consume: bool,
    /// Whether to look for what drops cost TCP.
    pub harm: bool,
    /// Debug messages of the kernel side.
    pub log: LogLevel,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An output.
    #[error("cannot write to {target}: {source}")]
    Output {
        /// `standard output`, or the file's path.
        target: String,
        /// What the system said.
        source: io::Error,
    },
    /// Signals.
    #[error("cannot handle signals: {0}")]
    Signals(#[source] io::Error),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By time, count or signal: the summary is due.
    Asked,
    /// Nobody reads the output, or a second signal came: nothing more is to be written.
    Closed,
    /// An output failed: the summary is due at the others.
    Failed,
}

/// Turns records into events and keeps the tally.
struct Pipeline<'k> {
    judge: Judge<'k>,
    refusals: RefusalJudge<'k>,
    attributor: Attributor,
    inside: Inside,
    below: Below,
    firewall: Firewall,
    causes: Vec<String>,
    all: bool,
    count: Option<u64>,
    stack: bool,
    /// For what drops cost, where that is asked for.
    recent: Option<Recent>,
    tally: Tally,
}

impl Pipeline<'_> {
    /// Whether `--count` is reached.
    fn full(&self) -> bool {
        self.count.is_some_and(|count| self.shown() >= count)
    }

    /// From now on drops are counted only.
    fn stop_showing(&mut self) {
        self.count = Some(self.shown());
    }

    /// Events shown so far.
    fn shown(&self) -> u64 {
        self.tally.shown + self.tally.refusals.shown
    }

    /// What a drop cost; shown when the drop itself would be.
    fn harm(&mut self, record: &HarmEvent, clock: Clock, outputs: &mut Outputs<'_>) {
        let judged = self.judge.judge(&record.key);
        let hidden = judged.class == Class::Benign && !self.all;
        if hidden || self.full() || !wanted(&self.causes, &judged.cause) {
            return;
        }
        let Some(recent) = &self.recent else { return };
        let attribution = harm::netns(record).map(|netns| self.attributor.lookup(netns)).unwrap_or_default();
        if let Some(consequence) = Consequence::new(record, judged, attribution, clock, recent) {
            outputs.harm(&consequence);
        }
    }

    fn record(&mut self, record: &[u8], clock: Clock, outputs: &mut Outputs<'_>) {
        if let Some(record) = decode_harm(record) {
            return self.harm(&record, clock, outputs);
        }
        if let Some(record) = decode_refusal(record) {
            return self.refusal(&record, clock, outputs);
        }
        let record = match decode(record) {
            Ok(record) => record,
            Err(error) => {
                if self.tally.unreadable == 0 {
                    say(format_args!("{error}: counted as lost"));
                }
                self.tally.unreadable += 1;
                return;
            }
        };
        let event = &record.event;
        let judged = self.judge.judge(&event.key);
        let keyless = event.have & KEY_OVERFLOWED != 0;
        if !wanted(&self.causes, &judged.cause) || keyless && !self.causes.is_empty() {
            return;
        }
        if judged.class == Class::Benign && !self.all {
            self.tally.hidden += 1;
        } else if self.full() {
            self.tally.counted_only += 1;
        } else {
            self.tally.shown += 1;
            let event = self.event(&record, clock, judged);
            if let Some(recent) = &mut self.recent {
                recent.keep(&record.event, event.time);
            }
            outputs.event(&event);
        }
    }

    /// Events lost so far, of the causes that were asked for: the others would not have been shown.
    fn lost(&mut self, tracer: &Tracer) -> Result<u64, LoadError> {
        if self.causes.is_empty() {
            return tracer.lost();
        }
        let counters = tracer.counters()?;
        let of_interest =
            counters.drops.iter().filter(|(key, _)| wanted(&self.causes, &self.judge.judge(key).cause));
        Ok(of_interest.map(|(_, drop)| drop.lost).sum())
    }

    fn event(&mut self, record: &Record, clock: Clock, judged: Rc<Judged>) -> Event {
        let Record { event: record, stack, connections, ruling } = record;
        let netns = NetnsId::of(&record.key);
        let attribution = netns.map(|id| self.attributor.lookup(id)).unwrap_or_default();
        let packet = Packet::from_event(record);
        let Asked { listener, table, process } = self.ask(record, &judged, &packet);
        let below = self.below(record, &judged);
        let callers = || stack.iter().map(|frame| self.judge.caller(*frame)).collect();
        let kernel_side = Seen { record, ruling: ruling.as_ref() };
        let netfilter = self.firewall.evidence(kernel_side, callers, &judged, &packet, &self.attributor);
        Event::new(
            record,
            Known {
                time: clock.wall(record.time_ns),
                attribution,
                input: self.judge.function(record.dst_input),
                found: Found { netfilter, connections: *connections, listener, table, below, process },
                packet,
                stack: self.stack.then(|| self.judge.stack(stack, record.key.location)),
                judged,
            },
        )
    }
}

/// Runs until the plan or a signal ends it; each event goes to all outputs. `ready` is called once everything is
/// attached.
///
/// # Errors
///
/// When the kernel side cannot be loaded or the output cannot be written.
pub async fn run(
    plan: &Plan,
    kernel: &Kernel,
    catalogue: &Catalogue,
    outputs: Vec<(&mut dyn Sink, Target)>,
    ready: impl FnOnce(&Tracer),
) -> Result<(), TraceError> {
    let settings = Settings {
        filter: plan.filter.clone(),
        gather: gather_table(catalogue, kernel),
        events: plan.events,
        stack: plan.stack,
        buffer_bytes: plan.buffer_bytes,
        max_keys: plan.max_keys,
        rungs: plan.rungs.clone(),
        consume: plan.consume,
        refusals: plan.filter.takes_refusals(|cause| catalogue.is_of_refusals(cause)),
        harm: plan.harm,
    };
    let mut pipeline = Pipeline {
        judge: Judge::new(catalogue, kernel),
        refusals: RefusalJudge::new(catalogue),
        attributor: Attributor::new(HostPaths::default()),
        inside: Inside::default(),
        below: Below::default(),
        firewall: Firewall::new(kernel),
        causes: plan.filter.causes.clone(),
        all: plan.all,
        count: plan.count,
        stack: plan.stack,
        recent: plan.harm.then(Recent::default),
        tally: Tally::default(),
    };
    let mut signals = Signals::new().map_err(TraceError::Signals)?;
    let mut tracer = Tracer::start(&settings, plan.log, kernel)?;
    // Only now: what a file holds is not lost to a run that cannot start.
    let mut outputs = Outputs::open(outputs)?;
    let started = Instant::now();
    ready(&tracer);
    if plan.events {
        outputs.begin();
    }

    let mut losses = Losses::default();
    let end = events(plan, &mut tracer, &mut pipeline, &mut outputs, &mut signals, &mut losses).await?;

    // The order in which nothing moves behind our back: detach, drain the ring, read the counters.
    tracer.detach()?;
    let elapsed = started.elapsed();
    if end == End::Failed {
        pipeline.stop_showing();
    }
    while end != End::Closed && drain(&mut tracer, BATCH, &mut pipeline, &mut outputs) > 0 {
        match outputs.flush(&mut signals).await {
            Written::All => {}
            Written::Abandoned | Written::Closed => return Ok(()),
            Written::Failed => pipeline.stop_showing(),
        }
    }
    tracer.flush_log();
    if end == End::Closed {
        return Ok(());
    }
    losses.report(&tracer, &mut pipeline, &mut outputs)?;
    let resolved_clashes = tracer.resolved_clashes(true);
    let counters = tracer.counters()?;
    let tally = plan.events.then_some(pipeline.tally);
    let totals = Totals::new(
        &counters,
        &mut pipeline.judge,
        &mut pipeline.refusals,
        &plan.filter.causes,
        tally,
        elapsed,
    );
    let unaccounted = totals.unaccounted();
    if unaccounted != 0 {
        say(format_args!("{unaccounted} drops seen but not accounted for: please report this as a defect"));
    }
    let summary = Summary::new(
        totals,
        |id| pipeline.attributor.lookup(id),
        plan.all,
        kernel.release.clone(),
        hooks(&tracer),
        resolved_clashes,
    );
    let summary = Summary { harm: tracer.harm()?, ..summary };
    outputs.summary(&summary);
    outputs.flush(&mut signals).await;
    outputs.result()
}

/// The probe point that counts and its rung, `skb:kfree_skb by tp_btf`.
pub(crate) fn hooks(tracer: &Tracer) -> String {
    let counting = tracer.reports().first();
    counting.map_or_else(String::new, |probe| {
        format!("{} by {}", probe.name, probe.rung.map_or("nothing", Rung::as_str))
    })
}

/// Shows events until something ends the run.
async fn events(
    plan: &Plan,
    tracer: &mut Tracer,
    pipeline: &mut Pipeline<'_>,
    outputs: &mut Outputs<'_>,
    signals: &mut Signals,
    losses: &mut Losses,
) -> Result<End, TraceError> {
    let deadline = plan.duration.map(|duration| Instant::now() + duration);
    let mut log_tick = tracer.logs().then(Instant::now);
    let mut tend = Instant::now() + TEND_INTERVAL;
    let mut more = false;
    loop {
        match outputs.flush(signals).await {
            Written::All => {}
            Written::Abandoned | Written::Closed => return Ok(End::Closed),
            Written::Failed => return Ok(End::Failed),
        }
        if pipeline.full() || signals.caught() > 0 {
            return Ok(End::Asked);
        }
        tokio::select! {
            biased;
            () = signals.next() => return Ok(End::Asked),
            () = at(deadline) => return Ok(End::Asked),
            () = outputs.closed() => return Ok(End::Closed),
            () = at(losses.due) => losses.report(tracer, pipeline, outputs)?,
            () = at(log_tick) => {
                tracer.flush_log();
                log_tick = Some(Instant::now() + LOG_INTERVAL);
            }
            () = sleep_until(tend) => {
                tracer.tend();
                tend = Instant::now() + TEND_INTERVAL;
            }
            ready = tracer.wait(), if !more => ready?,
            () = std::future::ready(()), if more => {}
        }
        let records = drain(tracer, BATCH, pipeline, outputs);
        more = records == BATCH;
        if records > 0 {
            losses.schedule();
        }
    }
}

/// Takes records out of the ring; returns how many there were.
fn drain(tracer: &mut Tracer, limit: usize, pipeline: &mut Pipeline<'_>, outputs: &mut Outputs<'_>) -> usize {
    let clock = Clock::now();
    tracer.drain(limit, |record| pipeline.record(record, clock, outputs))
}

/// Waits for a moment; for ever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
