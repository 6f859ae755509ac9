//! `pi doctor --ask`: whether each provider takes the user's key. Without that option nobody is asked.

use super::{super::attempts::Place, Line};
use crate::{
    broker::route::Question,
    launcher::{Launcher, Prepared},
    purpose::{Program, Purpose},
    report::{self, one_line},
};

/// Asks the broker of a short session, with a number, an address and a header for each question.
const SCRIPT: &str = r#"
while [ $# -gt 0 ]; do
    said=$(curl --noproxy '*' -sS -m 30 -w ' %{http_code}' -H 'content-type: application/json' -H "$3" -d '{}' "$2" 2>&1)
    about=-
    # Google answers 400 for a key that it does not know.
    case $said in *[Aa][Pp][Ii][_\ ][Kk][Ee][Yy]*) about=key ;; esac
    printf '%s %s %s %s\n' "$1" "${said##* }" "$about" "$(printf %s "${said% *}" | tr -c ' -~' ' ' | head -c 160)"
    shift 3
done >answers
"#;

/// In the scratch repository.
const ANSWERS: &str = "answers";

/// Asks, and says what came of it.
pub(super) fn look(launcher: &Launcher) -> Vec<Line> {
    report::note("asking each provider whether it takes your key, with a request that costs nothing");
    ask(launcher).unwrap_or_else(|error| {
        vec![Line::failed("keys", &error, "`pi shell -- true` shows what is wrong with sessions here")]
    })
}

fn ask(launcher: &Launcher) -> anyhow::Result<Vec<Line>> {
    launcher.renew_before()?;
    let place = Place::new(&launcher.host, "ask-", "{}")?;
    let asking = place.launcher(launcher, launcher.options.clone(), launcher.host.clone());
    let program = |words| Program { purpose: Purpose::Proof, words };
    let prepared = report::quietly(|| asking.prepare(program(vec![])))?;
    let broker = prepared.facts.keys.broker.as_ref();
    let routes = broker.iter().flat_map(|broker| {
        broker
            .routes
            .iter()
            .filter_map(|route| Some((route.provider.clone(), route.question(&broker.address)?)))
    });
    let questions: Vec<(String, Question)> = routes.collect();
    if questions.is_empty() {
        return Ok(vec![Line::note(
            "keys",
            "there is no key with the broker to ask about",
            "`pi login`, or set one",
        )]);
    }
    let mut words = ["sh", "-c", SCRIPT, "ask"].map(str::to_owned).to_vec();
    for (number, (_, Question { url, header, .. })) in questions.iter().enumerate() {
        words.extend([number.to_string(), url.clone(), header.clone()]);
    }
    let prepared = Prepared { program: program(words), ..prepared };
    report::quietly(|| asking.run(&prepared))?;
    let answers = place.answer(ANSWERS)?;
    let line = |(number, (provider, question)): (usize, &(String, Question))| {
        verdict(provider, &question.host, answer(&answers, number))
    };
    Ok(questions.iter().enumerate().map(line).collect())
}

/// The status, whether the answer is about the key, and how it begins.
fn answer(answers: &str, number: usize) -> Option<(&str, bool, &str)> {
    let mut lines = answers.lines().filter_map(|line| line.split_once(' '));
    let (_, rest) = lines.find(|(own, _)| *own == number.to_string())?;
    let (status, rest) = rest.split_once(' ')?;
    let (about, text) = rest.split_once(' ')?;
    Some((status, about == "key", text))
}

fn verdict(provider: &str, host: &str, answer: Option<(&str, bool, &str)>) -> Line {
    let provider = one_line(provider);
    match answer {
        Some((status @ ("401" | "403"), ..) | (status @ "400", true, _)) => Line::wrong(
            "keys",
            format!("your key for `{provider}` was refused by {host} ({status})"),
            format!("look whether it is still good; `pi login {provider}` makes a new login"),
        ),
        // An account without money, or a request that is none, comes after the key.
        Some((status, ..)) if status.starts_with('2') || ["400", "402", "422", "429"].contains(&status) => {
            Line::fine("keys", format!("{host} takes your key for `{provider}`"))
        }
        Some((_, _, text)) => Line::note(
            "keys",
            format!("it is not known whether {host} takes your key for `{provider}`: {}", one_line(text)),
            "look whether this machine reaches it, and ask again",
        ),
        None => Line::note(
            "keys",
            format!("{host} was not asked about your key for `{provider}`"),
            "`pi shell -- true` shows what is wrong with sessions here",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::State::{Fine, Note, Wrong},
        *,
    };

    #[test]
    fn an_answer_tells_whether_the_key_is_good() {
        let answers = "0 401 - {\"error\":1}\n1 400 key API key not valid\n2 400 - no model\n3 000 - curl: (6) no\n4 503 - x\n5 421 - x\n6 404 - x\n7 429 - x\n";
        let state = |number| verdict("p", "h", answer(answers, number)).state;
        let expected = [Wrong, Wrong, Fine, Note, Note, Note, Note, Fine, Note];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(state), expected);
    }
}
