//! `pi check`: whether the allowlist admits an address, and by which entry.

use crate::{
    domain::Target,
    egress::Sources,
    launcher::Launcher,
    report::{self, Hinted},
};

/// Prints whether each target is allowed. The exit status is 1 if one is not.
pub(crate) fn run(launcher: &Launcher, targets: &[String]) -> anyhow::Result<u8> {
    let targets: Vec<Target> = targets
        .iter()
        .map(|text| {
            Target::parse(text).map_err(|why| {
                Hinted::usage_hinted(
                    format!("`pi check`: `{}`: {why}", report::printable(text)),
                    "write `https://host/…`, `host` or `host:port`; to say `check …` to the agent, quote it or write `pi -- …`",
                )
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let config = launcher.config()?;
    let mut sources = Sources::of(&config);
    let list = sources.read(config.allowed_domains_is_default)?;
    let mut refused = false;
    for target in &targets {
        if let Some(entry) = list.permits(target) {
            report::data(format_args!("allowed  {target}  by `{entry}` ({})\n", entry.origin()))?;
        } else {
            refused = true;
            report::data(format_args!("refused  {target}  no entry admits it\n"))?;
        }
    }
    Ok(u8::from(refused))
}
