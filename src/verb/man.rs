//! `pi man`: the manual page.

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use crate::{
    cli::{Cli, examples},
    report,
};

/// Prints the manual page, in the language of `man`.
pub(crate) fn run() -> anyhow::Result<u8> {
    report::data(page()?).map(|()| 0)
}

fn page() -> anyhow::Result<String> {
    let mut grammar = Cli::grammar();
    grammar.build();
    let man = Man::new(grammar.clone()).date("").source(format!("pi {}", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    let mut write = || -> std::io::Result<()> {
        man.render_title(&mut roff)?;
        man.render_name_section(&mut roff)?;
        man.render_synopsis_section(&mut roff)?;
        man.render_description_section(&mut roff)?;
        man.render_options_section(&mut roff)?;
        roff.extend_from_slice(b".SH VERBS\n");
        for verb in grammar.get_subcommands() {
            roff.extend_from_slice(of_verb(verb)?.as_bytes());
        }
        man.render_extra_section(&mut roff)
    };
    write().context("could not write the manual page")?;
    String::from_utf8(roff).context("could not write the manual page")
}

/// One verb, as a part of the page and not as a page of its own.
fn of_verb(verb: &Command) -> std::io::Result<String> {
    let man = Man::new(verb.clone());
    let mut roff = Vec::new();
    man.render_description_section(&mut roff)?;
    man.render_options_section(&mut roff)?;
    let text = String::from_utf8_lossy(&roff);
    let inner: Vec<&str> = text.lines().filter(|line| !line.starts_with(".SH ")).collect();
    let name = verb.get_name();
    let examples = examples::lines(name).replace('\\', "\\e").replace('-', "\\-");
    Ok(format!(".SS \"pi {name}\"\n{}\n.PP\n.nf\n{examples}.fi\n", inner.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_assets_is_the_one_that_is_printed() {
        let kept = include_str!("../../assets/pi.1");
        assert!(kept == page().unwrap(), "renew it with `pi man >assets/pi.1`");
    }

    #[test]
    fn every_verb_for_people_has_its_part_of_the_page() {
        let page = page().unwrap();
        for verb in Cli::grammar().get_subcommands() {
            assert!(page.contains(&format!(".SS \"pi {}\"", verb.get_name())), "{}", verb.get_name());
        }
        assert!(page.contains("allowed\\-domains"), "{page}");
    }
}
