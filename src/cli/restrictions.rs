//! The options that keep a session from something, as they were typed: whoever goes on with it wants them again.

use super::Options;

impl Options {
    /// Their words.
    pub(crate) fn restrictions(&self) -> Vec<String> {
        let flags = [
            ("--proxy", self.proxy && self.allowed_domains.is_none() && self.allow.is_empty()),
            ("--no-network", self.no_network),
            ("--no-keys", self.no_keys),
            ("--no-push", self.no_push),
        ];
        let flags = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned());
        let file = self.allowed_domains.iter().map(|path| format!("--allowed-domains={}", path.display()));
        let hosts = self.allow.iter().map(|host| format!("--allow={host}"));
        let copy = self.clone.iter().map(|name| match name.as_str() {
            "" => "--clone".to_owned(),
            name => format!("--clone={name}"),
        });
        flags.chain(file).chain(hosts).chain(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kept_a_session_from_something_is_repeated() {
        let options = Options {
            proxy: true,
            allow: vec!["a.test".to_owned()],
            no_push: true,
            clone: Some(String::new()),
            memory: Some("1g".to_owned()),
            ..Options::default()
        };
        assert_eq!(options.restrictions(), ["--no-push", "--allow=a.test", "--clone"]);
        let plain = Options { proxy: true, ..Options::default() };
        assert_eq!(plain.restrictions(), ["--proxy"]);
        assert_eq!(Options::default().restrictions(), [""; 0]);
    }
}
