//! What a finished trace printed, and what a scenario expects of it.

use std::fs;
use std::process::ExitStatus;
use std::thread;

use serde_json::Value;

use crate::contract::{check_event, check_harm, check_refusal, check_summary};
use crate::netns::Netns;
use crate::reason;
use crate::trace::Ended;

/// Events a failed test prints.
const SHOWN_ON_FAILURE: usize = 20;

/// A finished trace whose lines all follow the contract.
pub struct Outcome {
    /// Command line.
    pub command: String,
    /// Exit status.
    pub status: ExitStatus,
    /// `drop` events, in the order printed; of a flood, the first ones.
    pub events: Vec<Value>,
    /// `harm` lines: what drops cost.
    pub harms: Vec<Value>,
    /// `refusal` events.
    pub refusals: Vec<Value>,
    /// `lost` of each `loss` line.
    pub losses: Vec<u64>,
    /// The last line.
    pub summary: Value,
    /// Lines of stderr.
    pub stderr: Vec<String>,
}

/// Drops that a scenario provoked and expects to find named.
pub struct Dropped<'a> {
    /// Cause id.
    pub cause: &'static str,
    /// Class of the cause.
    pub class: &'static str,
    /// Where the packets were dropped.
    pub netns: &'a Netns,
    /// How many, by the kernel's own counter.
    pub count: u64,
    /// Fields that `packet` of every such event must have.
    pub packet: Value,
}

impl Outcome {
    /// Checks that every line follows the contract and that all sums hold.
    #[track_caller]
    pub(crate) fn new(ended: Ended) -> Self {
        let Ended { command, status, stdout, events, stderr } = ended;
        let mut outcome = Self {
            command,
            status,
            events: Vec::new(),
            harms: Vec::new(),
            refusals: Vec::new(),
            losses: Vec::new(),
            summary: Value::Null,
            stderr,
        };
        for (number, line) in stdout.iter().enumerate() {
            outcome.take_line(line).unwrap_or_else(|why| panic!("line {}: {why}: {line}", number + 1));
        }
        assert!(outcome.status.success(), "exit status {}", outcome.status);
        check_summary(&outcome.summary).unwrap_or_else(|why| panic!("summary: {why}"));
        assert_eq!(events, outcome.number("shown"), "events printed and `shown`");
        assert_eq!(outcome.losses.iter().sum::<u64>(), outcome.number("lost"), "loss lines and `lost`");
        outcome
    }

    /// Sorts one line of stdout in.
    fn take_line(&mut self, line: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if value["v"] != 1 {
            return Err("v is not 1".to_owned());
        }
        if !self.summary.is_null() {
            return Err("it comes after the summary".to_owned());
        }
        match value["kind"].as_str() {
            Some("drop") => {
                check_event(&value)?;
                self.events.push(value);
            }
            Some("harm") => {
                check_harm(&value)?;
                self.harms.push(value);
            }
            Some("refusal") => {
                check_refusal(&value)?;
                self.refusals.push(value);
            }
            Some("loss") => self.losses.push(value["lost"].as_u64().ok_or("loss without a count")?),
            Some("summary") => self.summary = value,
            other => return Err(format!("unknown kind {other:?}")),
        }
        Ok(())
    }

    /// A number of the summary.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap_or_else(|| panic!("the summary has no count `{name}`"))
    }

    /// The summary's count of a cause, 0 when it has no row.
    pub fn cause_count(&self, id: &str) -> u64 {
        row(&self.summary["causes"], "id", &Value::from(id))
    }

    /// The summary's count of a namespace, 0 when it has no row.
    pub fn netns_count(&self, netns: &Netns) -> u64 {
        row(&self.summary["netns"], "inode", &Value::from(netns.inode()))
    }

    /// Events of a cause in a namespace.
    pub fn events_of(&self, cause: &str, netns: &Netns) -> Vec<&Value> {
        self.events
            .iter()
            .filter(|event| event["cause"]["id"] == cause && event["netns"]["inode"] == netns.inode())
            .collect()
    }

    /// Events in a namespace whose packets have these fields.
    fn events_like(&self, packet: &Value, netns: &Netns) -> Vec<&Value> {
        let like = |event: &&Value| {
            packet.as_object().into_iter().flatten().all(|(field, value)| event["packet"][field] == *value)
        };
        self.events.iter().filter(like).filter(|event| event["netns"]["inode"] == netns.inode()).collect()
    }

    /// Requires that `seen` is what the kernel counted. Short by at most `missed` passes: the kernel
    /// skipped the program for these, and said so.
    #[track_caller]
    pub fn expect_count(&self, what: &str, seen: u64, counted: u64) {
        let missed = self.number("missed");
        assert!(
            seen <= counted && seen + missed >= counted,
            "{what}: netdrop says {seen} (and {missed} missed on the whole machine), the kernel counted {counted}"
        );
    }

    /// How many drops that the kernel counted netdrop neither saw nor reported as missed; panics when it
    /// saw more than there were. For [`crate::hidden::repeat_while_short`].
    #[track_caller]
    pub fn shortfall(&self, what: &str, seen: u64, counted: u64) -> u64 {
        assert!(seen <= counted, "{what}: netdrop says {seen}, the kernel counted {counted}");
        counted.saturating_sub(seen + self.number("missed"))
    }

    /// Requires that the drops are in the summary and all among the events, named, placed and decoded as
    /// expected; returns the first event. Where the kernel lacks reasons, those without one may go by another
    /// name, but not with certainty.
    #[track_caller]
    pub fn expect(&self, dropped: &Dropped<'_>) -> &Value {
        let Dropped { cause, class, netns, count, packet } = dropped;
        assert!(*count > 0, "nothing was provoked");
        let events = if reason::lacks_some() {
            self.events_like(packet, netns)
        } else {
            self.expect_count(cause, self.cause_count(cause), *count);
            self.events_of(cause, netns)
        };
        self.expect_count(&format!("{cause} events in {}", netns.name()), events.len() as u64, *count);
        for event in &events {
            if event["cause"]["id"] == *cause {
                assert_eq!(event["cause"]["class"], *class, "class in {event}");
            } else {
                let guessed = event["cause"]["confidence"] == "inferred";
                assert!(guessed && reason::may_be_unnamed(event), "not {cause} in {event}");
            }
            assert_eq!(event["netns"]["name"], netns.name(), "netns name in {event}");
            assert!(event["location"]["symbol"].is_string(), "location in {event}");
            for (field, value) in packet.as_object().into_iter().flatten() {
                assert_eq!(&event["packet"][field], value, "packet.{field} in {event}");
            }
        }
        events[0]
    }

    /// The same for a cause that does not rest on a reason: it has its name on every kernel.
    #[track_caller]
    pub fn expect_named(&self, dropped: &Dropped<'_>) -> &Value {
        self.expect_count(dropped.cause, self.cause_count(dropped.cause), dropped.count);
        self.expect(dropped)
    }

    /// Events of packets of a protocol: with IPv6, hosts say things of their own.
    pub fn events_with(&self, proto: &str) -> u64 {
        self.events.iter().filter(|event| event["packet"]["proto"] == proto).count() as u64
    }

    /// Requires that nothing of what was seen looks like a problem.
    #[track_caller]
    pub fn expect_benign(&self) {
        for row in self.summary["causes"].as_array().into_iter().flatten() {
            assert_eq!(row["class"], "benign", "{row}");
        }
    }
}

/// The count of the row whose `field` is `value`.
fn row(rows: &Value, field: &str, value: &Value) -> u64 {
    rows.as_array()
        .into_iter()
        .flatten()
        .filter(|row| row[field] == *value)
        .filter_map(|row| row["count"].as_u64())
        .sum()
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let kernel = fs::read_to_string("/proc/version").unwrap_or_default();
        eprintln!("--- {}\n--- {}\n--- {}", self.command, self.status, kernel.trim());
        eprintln!("--- summary\n{}", self.summary);
        eprintln!("--- first {SHOWN_ON_FAILURE} of {} events", self.events.len());
        for event in self.refusals.iter().chain(&self.events).take(SHOWN_ON_FAILURE) {
            eprintln!("{event}");
        }
        eprintln!("--- losses {:?}\n--- stderr\n{}", self.losses, self.stderr.join("\n"));
    }
}
