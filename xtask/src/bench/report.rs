//! What a part found: aligned text for people, JSON for machines.

use std::fmt;

use serde_json::{Value, json};

/// What one part of the bench found.
pub(super) struct Part {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What its figures are.
    pub(super) about: String,
    pub(super) table: Table,
    pub(super) bars: Vec<Bar>,
    /// The table for machines.
    pub(super) json: Value,
    pub(super) notes: Vec<String>,
}

/// A figure that has to be kept.
pub(super) struct Bar {
    pub(super) met: bool,
    pub(super) text: String,
}

impl Part {
    /// As one JSON object.
    pub(super) fn to_json(&self) -> Value {
        let bars: Vec<_> = self.bars.iter().map(|bar| json!({ "met": bar.met, "text": bar.text })).collect();
        json!({ "part": self.name, "result": self.json, "bars": bars, "notes": self.notes })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.about)?;
        write!(f, "{}", self.table)?;
        for bar in &self.bars {
            writeln!(f, "{}  {}", if bar.met { "PASS" } else { "FAIL" }, bar.text)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

/// Rows under headings: the first column is a name, the others are figures.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "  {cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_under_their_headings() {
        let mut table = Table::new(&["TOOL", "ADDED"]);
        table.row(vec!["a long name".to_owned(), "+7".to_owned()]);
        assert_eq!(table.to_string(), "  TOOL         ADDED\n  a long name     +7\n");
    }

    #[test]
    fn a_bar_says_whether_it_is_met() {
        let part = Part {
            name: "cost",
            about: "ns".to_owned(),
            table: Table::new(&["TOOL"]),
            bars: vec![Bar { met: false, text: "0.4, at most 0.3".to_owned() }],
            json: Value::Null,
            notes: vec!["interrupted".to_owned()],
        };
        assert_eq!(part.to_string(), "cost: ns\n  TOOL\nFAIL  0.4, at most 0.3\nnote: interrupted\n");
        assert_eq!(part.to_json()["bars"][0]["met"], false);
    }
}
