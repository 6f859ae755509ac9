//! What became of each attempt, held against what must become of it.

use std::collections::BTreeMap;

use super::attempts::{Case, Seen, is};
use crate::world::internet::internet;

/// All cases with their verdicts.
pub(crate) struct Matrix {
    rows: Vec<[String; 3]>,
    failed: Vec<String>,
}

impl Matrix {
    /// Holds what became of each case against what must become of it, here and in its control.
    pub(crate) fn of(
        cases: &[Case],
        results: &BTreeMap<String, Seen>,
        controls: &BTreeMap<String, BTreeMap<String, Seen>>,
    ) -> Self {
        let mut matrix = Self { rows: Vec::new(), failed: Vec::new() };
        for case in cases {
            let Seen { outcome, arrivals, .. } = &results[&case.name];
            let residue = case.expected == "residue" && !internet().checks_sources;
            let must_arrive = outcome.starts_with("200 ");
            let arrived = !arrivals.is_empty();
            // And nowhere else than where the answer came from.
            let place = outcome.strip_prefix("200 ").unwrap_or_default();
            let only_there = !must_arrive || arrivals.iter().all(|line| line.ends_with(place));
            let good = is(outcome, &case.expected) && (residue || arrived == must_arrive) && only_there;
            let known = if residue && arrived { " (known residue: one way, rp_filter is 0)" } else { "" };
            let verdict = format!("{}{outcome}{known}", if good { "" } else { "FAILED: " });
            let mut control = case.control.clone();
            let mut proven = true;
            if case.wants_control() {
                let (name, wanted) = case.control();
                let seen = &controls[name][&case.name];
                proven = match wanted {
                    Some(wanted) => is(&seen.outcome, wanted),
                    None => !seen.arrivals.is_empty(),
                };
                let mark = if proven { "" } else { "FAILED: " };
                control = format!("{mark}{name}: {} {}", seen.outcome, seen.arrivals.join(", "));
            }
            if !good || !proven {
                let arrivals = arrivals.join(", ");
                matrix.failed.push(format!(
                    "{} | {verdict} [{arrivals}], not {} | {control}",
                    case.name, case.expected
                ));
            }
            matrix.rows.push([case.name.clone(), verdict, control]);
        }
        matrix
    }

    /// Shows the table and asserts that it is good.
    #[expect(clippy::print_stdout, reason = "the table is shown with `--nocapture`")]
    pub(crate) fn settle(&self, title: &str) {
        println!("\n{title}: {} cases, {} failed", self.rows.len(), self.failed.len());
        for [name, verdict, control] in &self.rows {
            println!("  {name} | {verdict} | {}", control.trim_end());
        }
        assert!(self.failed.is_empty(), "{}: {:#?}", title, self.failed);
    }
}
