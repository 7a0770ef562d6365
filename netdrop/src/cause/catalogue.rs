//! The catalogue: all causes, and the index of their rules.

use std::collections::HashMap;

use netdrop_common::{facts::Gather, refusal::Refused};

use super::fact::evidence_group;
use super::model::Cause;
use super::parse::{self, CatalogueError};
use super::rule::{Pattern, ReasonPattern, Rule, Specificity, bare_symbol, canonical_reason, unstated};

/// The files of `netdrop/causes/`, from the socket down to the wire; the order in which causes are listed.
const FILES: &[(&str, &str)] = &[
    ("socket.toml", include_str!("../../causes/socket.toml")),
    ("tcp.toml", include_str!("../../causes/tcp.toml")),
    ("packet.toml", include_str!("../../causes/packet.toml")),
    ("route.toml", include_str!("../../causes/route.toml")),
    ("neighbour.toml", include_str!("../../causes/neighbour.toml")),
    ("conntrack.toml", include_str!("../../causes/conntrack.toml")),
    ("filter.toml", include_str!("../../causes/filter.toml")),
    ("qdisc.toml", include_str!("../../causes/qdisc.toml")),
    ("link.toml", include_str!("../../causes/link.toml")),
    ("tunnel.toml", include_str!("../../causes/tunnel.toml")),
    ("kernel.toml", include_str!("../../causes/kernel.toml")),
    ("noise.toml", include_str!("../../causes/noise.toml")),
];

/// Id of the cause of drops that no rule knows.
pub(crate) const UNKNOWN: &str = "unknown";

/// All causes and the index of their rules.
#[derive(Debug)]
pub struct Catalogue {
    causes: Vec<Cause>,
    by_id: HashMap<String, usize>,
    unknown: usize,
    /// Every atom, the most specific first.
    atoms: Vec<Atom>,
    /// Atoms that ask for one exact reason, by that reason.
    by_reason: HashMap<String, Vec<usize>>,
    /// Atoms that ask for a prefix of the reason.
    by_reason_prefix: Vec<usize>,
    /// Atoms for kernels without reasons alone.
    absent: Vec<usize>,
}

/// A rule for one of its reasons and one of its locations.
#[derive(Debug)]
pub(crate) struct Atom {
    pub(crate) reason: ReasonPattern,
    pub(crate) location: Option<Pattern>,
    pub(crate) cause: usize,
    pub(crate) rule: usize,
    pub(crate) specificity: Specificity,
}

impl Catalogue {
    /// The catalogue that is part of this binary.
    ///
    /// # Errors
    ///
    /// When one of its files is malformed, which the tests rule out.
    pub fn builtin() -> Result<Self, CatalogueError> {
        Self::from_files(FILES)
    }

    /// A catalogue from pairs of file name and text.
    pub(crate) fn from_files(files: &[(&str, &str)]) -> Result<Self, CatalogueError> {
        let mut causes: Vec<Cause> = Vec::new();
        let mut by_id = HashMap::new();
        let invalid = |file: &str, cause: &str, problem: &str| CatalogueError::Value {
            file: file.to_owned(),
            cause: cause.to_owned(),
            key: "id".to_owned(),
            problem: problem.to_owned(),
        };
        for (file, text) in files {
            for cause in parse::causes(file, text)? {
                if by_id.insert(cause.id.clone(), causes.len()).is_some() {
                    return Err(invalid(file, &cause.id, "is used by an earlier cause too"));
                }
                causes.push(cause);
            }
        }
        let unknown = *by_id
            .get(UNKNOWN)
            .ok_or_else(|| invalid("*.toml", UNKNOWN, "is missing: drops that no rule knows need it"))?;
        Ok(Self::index(causes, by_id, unknown))
    }

    fn index(causes: Vec<Cause>, by_id: HashMap<String, usize>, unknown: usize) -> Self {
        let mut atoms: Vec<Atom> = Vec::new();
        for (cause, entry) in causes.iter().enumerate() {
            for (index, rule) in entry.rules.iter().enumerate() {
                atoms.extend(rule.atoms().map(|(reason, location)| Atom {
                    specificity: Specificity::of(reason, location, rule),
                    reason: reason.clone(),
                    location: location.cloned(),
                    cause,
                    rule: index,
                }));
            }
        }
        atoms.sort_by_key(|atom| std::cmp::Reverse(atom.specificity));
        let mut by_reason: HashMap<String, Vec<usize>> = HashMap::new();
        let (mut by_reason_prefix, mut absent) = (Vec::new(), Vec::new());
        for (index, atom) in atoms.iter().enumerate() {
            match &atom.reason {
                ReasonPattern::Named(Pattern::Exact(name)) => {
                    by_reason.entry(name.clone()).or_default().push(index);
                }
                ReasonPattern::Named(Pattern::Prefix(_)) => by_reason_prefix.push(index),
                ReasonPattern::Absent => absent.push(index),
            }
        }
        Self { causes, by_id, unknown, atoms, by_reason, by_reason_prefix, absent }
    }

    /// The cause with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Cause> {
        self.by_id.get(id).map(|index| &self.causes[*index])
    }

    /// Every cause, by layer.
    pub fn causes(&self) -> impl Iterator<Item = &Cause> {
        self.causes.iter()
    }

    /// Every id, by layer.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(|cause| cause.id.as_str())
    }

    /// The end of the line: the cause of drops that no rule knows.
    #[must_use]
    pub fn unknown(&self) -> &Cause {
        &self.causes[self.unknown]
    }

    /// The cause of a call that was refused for this.
    #[must_use]
    pub fn refused(&self, what: Refused) -> &Cause {
        let is = |cause: &&Cause| cause.refused.iter().any(|name| name == what.name());
        self.causes.iter().find(is).unwrap_or_else(|| self.unknown())
    }

    /// Whether refused calls can have this cause.
    #[must_use]
    pub fn is_of_refusals(&self, id: &str) -> bool {
        id == UNKNOWN || self.get(id).is_some_and(|cause| !cause.refused.is_empty())
    }

    /// Facts that a rule may ask for when the drop has this reason (`None`: a kernel without reasons). Where the kernel
    /// gives none, the place of the drop decides whether connection tracking is looked at.
    #[must_use]
    pub fn gather(&self, reason: Option<&str>) -> Gather {
        let reason = reason.map(canonical_reason);
        let all = self
            .candidates(reason.as_deref())
            .fold(Gather::default(), |all, atom| all.union(self.rule(atom).gather()));
        if is_unstated(reason.as_deref()) { Gather(all.0 & !Gather::CONNTRACK.0) } else { all }
    }

    /// Evidence that causes of drops with this reason can use. Where the kernel gives no reason any cause is
    /// possible, so the costly look at the stack is left to the place of the drop.
    #[must_use]
    pub fn evidence(&self, reason: Option<&str>) -> Gather {
        let reason = reason.map(canonical_reason);
        let keys = self.candidates(reason.as_deref()).flat_map(|atom| &self.cause(atom).evidence);
        let groups = keys.filter_map(|key| evidence_group(key));
        let all = groups.fold(Gather::NONE, Gather::union);
        if is_unstated(reason.as_deref()) {
            return Gather(all.0 & !Gather::NETFILTER.0);
        }
        all
    }

    /// Ids close to a misspelt one, the closest first.
    #[must_use]
    pub fn suggest(&self, wrong: &str) -> Vec<&str> {
        nearest(wrong, self.ids())
    }

    /// Ids, reasons and kernel functions close to a misspelt name, the closest first.
    #[must_use]
    pub fn suggest_any(&self, wrong: &str) -> Vec<&str> {
        let reasons = self.by_reason.keys().map(String::as_str);
        let locations = self.atoms.iter().filter_map(|atom| match &atom.location {
            Some(Pattern::Exact(name)) => Some(name.as_str()),
            _ => None,
        });
        nearest(wrong, self.ids().chain(reasons).chain(locations))
    }

    /// Rules that can match a drop with this stated reason, each with its cause, by cause.
    #[must_use]
    pub fn rules_for_reason(&self, reason: &str) -> Vec<(&Cause, &Rule)> {
        let reason = canonical_reason(reason);
        self.rules_where(|atom| atom.reason.matches(Some(&reason)))
    }

    /// Rules that name this kernel function, each with its cause, by cause.
    #[must_use]
    pub fn rules_for_symbol(&self, symbol: &str) -> Vec<(&Cause, &Rule)> {
        let symbol = bare_symbol(symbol);
        self.rules_where(|atom| atom.location.as_ref().is_some_and(|location| location.matches(symbol)))
    }

    /// Whether some rule has exactly this reason.
    #[must_use]
    pub fn names_reason(&self, reason: &str) -> bool {
        self.by_reason.contains_key(&*canonical_reason(reason))
    }

    /// Whether some rule has exactly this kernel function.
    #[must_use]
    pub fn names_symbol(&self, symbol: &str) -> bool {
        let exact = Pattern::Exact(bare_symbol(symbol).to_owned());
        self.atoms.iter().any(|atom| atom.location.as_ref() == Some(&exact))
    }

    /// The reason of a subsystem that has this name there: `openvswitch:METER` for `OVS_DROP_METER` or `METER`.
    #[must_use]
    pub fn subsystem_reason(&self, name: &str) -> Option<&str> {
        let of_subsystem = self.by_reason.keys().filter(|key| {
            let subsystem = key.split_once(':').map(|(subsystem, _)| subsystem);
            subsystem.is_some_and(|subsystem| canonical_reason(&format!("{subsystem}:{name}")) == **key)
        });
        of_subsystem.map(String::as_str).min()
    }

    fn rules_where(&self, wanted: impl Fn(&Atom) -> bool) -> Vec<(&Cause, &Rule)> {
        let mut found: Vec<(usize, usize)> =
            self.atoms.iter().filter(|atom| wanted(atom)).map(|atom| (atom.cause, atom.rule)).collect();
        found.sort_unstable();
        found.dedup();
        found
            .into_iter()
            .map(|(cause, rule)| (&self.causes[cause], &self.causes[cause].rules[rule]))
            .collect()
    }

    /// Atoms whose reason matches, the most specific first. The reason is in its canonical spelling.
    pub(crate) fn candidates(&self, reason: Option<&str>) -> impl Iterator<Item = &Atom> {
        // In this order the parts stay sorted: reasons rank first in specificity.
        let exact = match reason {
            None => Some(&self.absent),
            Some(name) => self.by_reason.get(name),
        };
        exact
            .into_iter()
            .chain([&self.by_reason_prefix])
            .flatten()
            .map(|index| &self.atoms[*index])
            .filter(move |atom| atom.reason.matches(reason))
    }

    #[cfg(test)]
    pub(crate) fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    pub(crate) fn cause(&self, atom: &Atom) -> &Cause {
        &self.causes[atom.cause]
    }

    pub(crate) fn rule(&self, atom: &Atom) -> &Rule {
        &self.causes[atom.cause].rules[atom.rule]
    }
}

/// Whether this stands for a drop of which the kernel gives no reason.
fn is_unstated(reason: Option<&str>) -> bool {
    unstated().iter().any(|pattern| pattern.matches(reason))
}

/// Names close to a misspelt one, the closest first, at most four.
pub(crate) fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let wrong = wrong.to_lowercase();
    let wrong = wrong.strip_prefix("skb_drop_reason_").unwrap_or(&wrong);
    let mut near: Vec<(f64, &str)> = names
        .map(|name| {
            let name_lower = name.to_lowercase();
            // Part of a name counts as close: "rcvbuf" means SOCKET_RCVBUFF.
            let part = if wrong.len() >= 4 && name_lower.contains(wrong) { 0.9 } else { 0.0 };
            (strsim::jaro_winkler(wrong, &name_lower).max(part), name)
        })
        .filter(|(likeness, _)| *likeness > 0.84)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|(_, name)| *name);
    near.into_iter().take(4).map(|(_, name)| name).collect()
}
