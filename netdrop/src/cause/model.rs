//! The types of a catalogue entry.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rule::Rule;

/// How much a drop matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A packet that someone wanted is gone.
    Harmful,
    /// A wanted packet may be gone.
    Suspect,
    /// Normal housekeeping.
    Benign,
}

impl Class {
    /// The spelling used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Harmful => "harmful",
            Self::Suspect => "suspect",
            Self::Benign => "benign",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a cause is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The kernel's own reason, or a place where only this cause can drop, says so.
    Observed,
    /// The likeliest of several causes that look the same from here.
    Inferred,
}

impl Confidence {
    /// The spelling used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Inferred => "inferred",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a step takes effect, and so where its command must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Inside the network namespace of the drop; other namespaces are untouched.
    Netns,
    /// On the host: one value for all namespaces.
    Global,
    /// One network device.
    Device,
    /// The program that owns the socket, or its configuration.
    Application,
    /// Another machine, or the network between.
    Remote,
}

impl Scope {
    /// The spelling used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Global => "global",
            Self::Device => "device",
            Self::Application => "application",
            Self::Remote => "remote",
        }
    }
}

/// One thing to do: a command, a sentence, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it takes effect.
    pub scope: Scope,
    /// What to do, or what to look for in the command's output. May be empty.
    pub text: String,
    /// Commands to run, one a line; names in capitals are to be replaced. May be empty.
    pub run: String,
}

/// One cause of dropped packets.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// Stable identifier, as in JSON and `--cause`.
    pub id: String,
    /// A few words for a line of output.
    pub title: String,
    /// Part of the network stack.
    pub layer: String,
    /// How much it matters, unless a rule says otherwise.
    pub class: Class,
    /// What happened, in plain words.
    pub meaning: String,
    /// How netdrop recognises it, per range of kernels, and what it can be mistaken for.
    pub recognised: String,
    /// Keys of the `evidence` object that events of this cause carry where the kernel lets them.
    pub evidence: Vec<String>,
    /// Kernel counters that move, each with what it counts.
    pub counters: Vec<String>,
    /// How to confirm it by hand.
    pub confirm: Vec<Step>,
    /// How to fix it.
    pub fix: Vec<Step>,
    /// What the fix costs.
    pub cost: String,
    /// Where to read on.
    pub references: Vec<String>,
    /// What leads to this cause.
    pub rules: Vec<Rule>,
    /// Refused calls that are this cause, as [`netdrop_common::refusal::Refused`] spells them.
    pub refused: Vec<String>,
    /// Tests that provoke it on a real kernel, `file::function` below `tests/tests/`.
    #[serde(skip)]
    pub scenarios: Vec<String>,
    /// Why no test provokes it. Empty where one does.
    #[serde(skip)]
    pub no_scenario: String,
}
