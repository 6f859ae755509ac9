//! Lines for an allowlist, from what was refused or learned.

use super::{Way, is_unasked, suggestion};
use crate::domain::is_open_to_all;

/// Lines for an allowlist with these destinations: exact names, no wildcard. A host where anybody can publish is
/// commented out, and what the agent asks for by itself is left out. The second list is for `pi --allow`.
pub(crate) fn proposal<'a>(destinations: impl IntoIterator<Item = &'a str>) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut at_start) = (Vec::new(), Vec::new());
    for destination in destinations.into_iter().filter(|destination| !is_unasked(destination)) {
        match suggestion(destination) {
            Some(Way::Live(entry)) if is_open_to_all(host(&entry)) => {
                lines.push(format!("# {entry}  # anybody can put something there, and read it"));
            }
            Some(Way::Live(entry)) => lines.push(entry),
            Some(Way::AtStart(entry)) => at_start.push(entry),
            None => {}
        }
    }
    (lines, at_start)
}

fn host(entry: &str) -> &str {
    entry.split(':').next().unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_places_of_anybody_are_commented_out() {
        let refused = [
            "api.example.com:443", "cdn.example.com:8443", "me.github.io:443", "gist.github.com:443",
            "pi.dev:443", "10.0.0.1:8080", "169.254.169.254:80", "<others>",
        ];
        let (lines, at_start) = proposal(refused);
        assert_eq!(
            lines,
            [
                "api.example.com",
                "cdn.example.com:8443",
                "# me.github.io  # anybody can put something there, and read it",
                "# gist.github.com  # anybody can put something there, and read it",
            ]
        );
        assert_eq!(at_start, ["10.0.0.1:8080"]);
    }
}
