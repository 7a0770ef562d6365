//! Which drops a run is about, in plain terms: names are already resolved for the running kernel.

use ipnet::IpNet;
use netdrop_common::filter::{PortRange, TextRange};

use crate::{attribute::netns::NetnsId, packet::Protocol};

/// Which end of a packet a condition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Either.
    Either,
    /// Source.
    Source,
    /// Destination.
    Destination,
}

impl End {
    /// All, in the order of `netdrop_common::filter::host`.
    pub const ALL: [Self; 3] = [Self::Either, Self::Source, Self::Destination];
}

/// Network-layer family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// Listed reasons, or all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonFilter {
    /// Only these.
    Include(Vec<u32>),
    /// All but these.
    Exclude(Vec<u32>),
}

/// Conditions a drop must all meet. The default meets every drop.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Port ranges by [`End`].
    pub ports: [Vec<PortRange>; 3],
    /// Addresses by [`End`].
    pub hosts: [Option<IpNet>; 3],
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Family.
    pub family: Option<Family>,
    /// Interface name.
    pub interface: Option<String>,
    /// Network namespace.
    pub netns: Option<NetnsId>,
    /// Drop reasons.
    pub reasons: Option<ReasonFilter>,
    /// Kernel text ranges of the dropping function; empty is any.
    pub locations: Vec<TextRange>,
    /// Cause ids, judged in userspace on the counter key; empty is any.
    pub causes: Vec<String>,
}

impl Filter {
    /// Whether a refused call can meet it: one has no reason, function or interface. `refused` says whether a cause is
    /// of refused calls.
    pub fn takes_refusals(&self, refused: impl Fn(&str) -> bool) -> bool {
        let reasons = matches!(self.reasons, Some(ReasonFilter::Include(_)));
        let causes = self.causes.is_empty() || self.causes.iter().any(|cause| refused(cause));
        causes && !reasons && self.locations.is_empty() && self.interface.is_none()
    }
}
