//! Every cause is provoked by a scenario that exists and names it, or says why none does.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::builtin;

/// A scenario file as functions and constants.
struct ScenarioFile {
    items: Vec<Item>,
}

struct Item {
    name: String,
    /// Attributes and text, to the line before the next item.
    text: String,
}

impl ScenarioFile {
    /// `tests/tests/NAME.rs`.
    fn read(name: &str) -> Option<Self> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/tests/{name}.rs"));
        fs::read_to_string(path).ok().map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut items: Vec<Item> = Vec::new();
        // Attributes stand before the item they belong to.
        let mut attributes = String::new();
        for line in text.lines() {
            if line.starts_with("#[") {
                attributes.push_str(line);
                attributes.push('\n');
            } else if let Some(name) = item_name(line) {
                let text = format!("{}{line}\n", std::mem::take(&mut attributes));
                items.push(Item { name: name.to_owned(), text });
            } else if let Some(item) = items.last_mut() {
                item.text.push_str(line);
                item.text.push('\n');
            }
        }
        Self { items }
    }

    fn item(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name == name)
    }

    /// Whether the function, or what it uses of its file, has the cause as a string.
    fn mentions(&self, function: &str, cause: &str) -> bool {
        let cause = format!("\"{cause}\"");
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![function];
        while let Some(name) = open.pop() {
            let Some(item) = self.item(name) else { continue };
            if !reached.insert(&item.name) {
                continue;
            }
            if item.text.contains(&cause) {
                return true;
            }
            let words: BTreeSet<&str> = item.text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            open.extend(words.into_iter().filter(|word| self.item(word).is_some()));
        }
        false
    }
}

/// The name of a function or constant that begins at the line's first column.
fn item_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let rest = ["fn ", "const fn ", "const ", "static "].iter().find_map(|start| line.strip_prefix(start))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

/// What is wrong with an entry of `scenarios`, if anything.
fn problem(cause: &str, scenario: &str) -> Option<String> {
    let Some((file, function)) = scenario.split_once("::") else {
        return Some("is not `file::function`".to_owned());
    };
    let Some(read) = ScenarioFile::read(file) else {
        return Some(format!("there is no tests/tests/{file}.rs"));
    };
    let Some(item) = read.item(function) else {
        return Some(format!("there is no function {function} in tests/tests/{file}.rs"));
    };
    if !item.text.starts_with("#[test]") && !item.text.contains("\n#[test]") {
        return Some("is no test".to_owned());
    }
    (!read.mentions(function, cause)).then(|| format!("nothing it does mentions \"{cause}\""))
}

#[test]
fn every_cause_has_a_scenario_or_says_why_not() {
    let mut problems = Vec::new();
    for cause in builtin().causes() {
        let id = &cause.id;
        match (cause.scenarios.is_empty(), cause.no_scenario.is_empty()) {
            (true, true) => problems.push(format!("{id}: has neither `scenarios` nor `no_scenario`")),
            (false, false) => problems.push(format!("{id}: has `scenarios` and `no_scenario`: one is wrong")),
            _ => {}
        }
        for scenario in &cause.scenarios {
            problems.extend(problem(id, scenario).map(|why| format!("{id}: scenario `{scenario}`: {why}")));
        }
    }
    assert!(
        problems.is_empty(),
        "{} entries of netdrop/causes/*.toml:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}

#[test]
fn a_scenario_that_is_none_is_found() {
    for (scenario, why) in [
        ("port_closed", "is not"),
        ("no_such_file::closed_udp_port", "no tests/tests/no_such_file.rs"),
        ("port_closed::no_such_function", "no function"),
        ("port_closed::refused_connections", "is no test"),
    ] {
        let problem = problem("port-closed", scenario).unwrap_or_default();
        assert!(problem.contains(why), "{scenario}: {problem}");
    }
    assert_eq!(problem("port-closed", "port_closed::closed_tcp_port"), None);
    assert!(problem("no-route", "port_closed::closed_tcp_port").unwrap().contains("mentions"));
}

#[test]
fn a_cause_counts_as_mentioned_where_the_scenario_leads() {
    let file = ScenarioFile::parse(
        "const CASES: &[&str] = &[\n    \"in-table\",\n];\n\n#[test]\nfn table() {\n    CASES.len();\n}\n\n\
         /// Not \"in-table\".\n#[test]\n#[cfg(x)]\nfn helped() {\n    helper(1);\n}\n\nfn helper(_: u8) {\n    \
         \"in-helper\";\n    helper(2);\n}\n",
    );
    assert!(file.mentions("table", "in-table") && file.mentions("helped", "in-helper"));
    assert!(!file.mentions("helped", "in-table") && !file.mentions("table", "in-helper"));
    assert!(!file.mentions("nothing", "in-table"));
}
