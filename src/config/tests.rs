//! Tests of the layers of settings: their values, their order, and messages about mistakes.

use std::fs;

use super::*;

fn host() -> Host {
    Host::for_tests()
}

fn user(text: &str) -> anyhow::Result<Config> {
    resolve(&Options::default(), &host(), None, layer(Path::new("/c.toml"), text)?)
}

fn refusal(text: &str) -> String {
    format!("{:#}", user(text).unwrap_err())
}

#[test]
fn the_defaults_are_a_file_that_parses_and_says_everything() {
    let config = user("").unwrap();
    assert_eq!(config.network, Network::Open);
    assert_eq!(config.limits, Limits { memory: Some("4g".into()), cpus: Some(2.0), pids: Some(1024) });
    assert_eq!(config.images.agent_version, "0.87.1");
    assert_eq!(config.persist, []);
    assert_eq!(config.subagents, Some(Subagents { at_once: 4, queued: 8, seconds: 1800 }));
}

#[test]
fn subagents_are_switched_off_or_bounded() {
    let subagents = |text: &str| user(text).unwrap().subagents;
    assert_eq!(subagents("subagents = false"), None);
    assert_eq!(subagents("subagents = true"), subagents(""));
    let bounded = subagents("[subagents]\nat_once = 2\ntime_limit = \"90s\"");
    assert_eq!(bounded, Some(Subagents { at_once: 2, queued: 8, seconds: 90 }));
    for (text, said) in [
        ("subagents = 3", "/c.toml:1: `subagents`: invalid type: integer `3`, expected `true`, `false` or a"),
        ("[subagents]\nat_once = 0", "/c.toml:2: `at_once`: 0 is not a number from 1 to 16"),
        ("[subagents]\nqueued = 65", "/c.toml:2: `queued`: 65 is not a number from 0 to 64"),
        ("[subagents]\ntime_limit = \"1d\"", "/c.toml:2: `time_limit`: `1d` is no time up to \"24h\""),
        ("[subagents]\nmany = 1", "/c.toml:2: unknown field `many`, expected one of `at_once`"),
    ] {
        let text = refusal(text);
        assert!(text.starts_with(said), "{text}");
    }
}

#[test]
fn an_unknown_key_is_an_error_with_file_line_and_what_is_allowed() {
    let text = refusal("lang = \"go\"\nlangg = 1\n");
    assert!(text.starts_with("/c.toml:2: unknown field `langg`, expected one of `lang`"), "{text}");
}

#[test]
fn a_bad_value_is_an_error_with_file_line_and_what_is_allowed() {
    let text = refusal("\n\nlang = \"rust\"");
    assert!(text.starts_with("/c.toml:3: `lang`: unknown variant `rust`, expected one of"), "{text}");
    let text = refusal("memory = \"lots\"");
    assert!(text.starts_with("/c.toml:1: `memory`: `lots` is not a size"), "{text}");
    for (value, said) in [
        (
            "packages = [\n  \"jq\",\n  \"a; rm -rf /\",\n]",
            "/c.toml:4: `a; rm -rf /` is not the name of a Debian package",
        ),
        ("mounts = [\"~/in\",\n\"data\"]", "/c.toml:3: `data` is a relative path, which would"),
        ("mounts = [\"/in:out\"]", "/c.toml:2: the mount `/in:out` is not `SRC[:DST][:ro]`"),
        (
            "env = [\"A=1\", \"1A\"]",
            "/c.toml:2: the variable `1A` cannot be given to the agent: it is not the name",
        ),
        (
            "env = [\"LD_PRELOAD=x\"]",
            "/c.toml:2: the variable `LD_PRELOAD` cannot be given to the agent: it is set",
        ),
        ("dns = [\"one.one\"]", "/c.toml:2: `one.one` is not the IP address of a DNS server"),
        ("lan = [\"git.corp\"]", "/c.toml:2: `lan` in the configuration: `git.corp`: it needs a port"),
        ("pids = 3", "/c.toml:2: a limit of 3 processes is too small"),
        ("allowed_domains = \"list\"", "/c.toml:2: `list` is a relative path"),
        ("[images]\nca_certificates = \"ca.pem\"", "/c.toml:3: `ca.pem` is a relative path"),
        ("[images]\nbase = \"\"", "/c.toml:3: `` is not the name of an image"),
        ("[images]\ngo = \"go lang\"", "/c.toml:3: `go lang` is not the name of an image"),
        ("[images]\nproxy = \"$x\"", "/c.toml:3: `$x` is not the name of an image"),
        ("[images]\nregistry = \"team/x\"", "/c.toml:3: `team/x` is not a place in a registry"),
        ("[images]\nagent_version = \"\"", "/c.toml:3: `` is not a version of an npm package"),
        ("[images]\nagent_version = \"1;x\"", "/c.toml:3: `1;x` is not a version of an npm package"),
        ("[images]\nagent_package = \"--x\"", "/c.toml:3: `--x` is not the name of an npm package"),
        ("[images]\nagent_package = \"a/b\"", "/c.toml:3: `a/b` is not the name of an npm package"),
        ("[images]\nphp_apt = \"sid;x\"", "/c.toml:3: `sid;x` is neither suites"),
        ("[images]\nphp_apt = \"sid\\nx\"", "/c.toml:3: `sid\\nx` is neither suites"),
        ("[images]\nphp_apt = \"deb http://x '\"", "/c.toml:3: `deb http://x \\'` is neither suites"),
        ("agent_dir = \"guarded\"", "/c.toml:2: there is no `agent_dir` any more"),
        ("persist = [\"memory\",\n\"auth.json\"]", "/c.toml:3: `auth.json` cannot be written by sessions"),
        ("runtime = \"a b\"", "/c.toml:2: `a b` is not the name of a runtime"),
        ("pids = -1", "/c.toml:2: `pids`: invalid value: integer `-1`, expected a whole number, 0 or more"),
        ("lan = \"x\"", "/c.toml:2: `lan`: invalid type: string \"x\", expected a list"),
        ("memory = 4", "/c.toml:2: `memory`: invalid type: integer `4`, expected a string"),
        ("lang = 5", "/c.toml:2: `lang`: invalid type: integer `5`, expected a string"),
        ("env = [\n\"A\",\n3]", "/c.toml:4: `env`: invalid type: integer `3`, expected a string"),
    ] {
        let text = refusal(&format!("# A comment.\n{value}"));
        assert!(text.starts_with(said), "{text}");
    }
}

#[test]
fn a_key_that_does_not_exist_names_its_neighbour_or_its_place() {
    let hinted = |text: &str| {
        let error = user(text).unwrap_err();
        error.downcast_ref::<crate::report::Hinted>().and_then(|hinted| hinted.hint().map(str::to_owned))
    };
    assert_eq!(hinted("langg = 1").as_deref(), Some("did you mean `lang`?"));
    assert_eq!(hinted("base = 1").as_deref(), Some("`base` belongs in the section `[images]`"));
    assert_eq!(
        hinted("[images]\nqueued = 1").as_deref(),
        Some("`queued` belongs in the section `[subagents]`")
    );
    assert_eq!(
        hinted("[subagents]\npids = 1").as_deref(),
        Some("`pids` belongs above the section `[subagents]`")
    );
    assert_eq!(hinted("unheard_of = 1"), None);
    assert_eq!(hinted("pids = -1").as_deref(), Some(place::A_SETTING));
}

#[test]
fn what_a_mirror_may_be_called_is_taken() {
    for text in [
        "[images]\nbase = \"registry.corp:5000/a/b:24@sha256:0f\"",
        "[images]\nagent_version = \"^1.2 || latest\"",
        "[images]\nagent_package = \"@corp/pi\"",
        "[images]\nphp_apt = \"\"",
        "[images]\nphp_apt = \"deb [trusted=yes] https://u:p@mirror.corp/php trixie main\"",
        "runtime = \"io.containerd.runsc.v1\"",
        "runtime = \"\"",
    ] {
        user(text).unwrap();
    }
}

#[test]
fn settings_that_are_not_text_are_refused_with_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, b"lang = \"go\"\n# \xff\n").unwrap();
    let text = format!("{:#}", read(&path).unwrap_err());
    assert_eq!(text, format!("{}:2: it is not valid UTF-8", path.display()));
}

#[test]
fn zero_is_no_limit() {
    let config = user("memory = \"0\"\ncpus = 0\npids = 0").unwrap();
    assert_eq!(config.limits, Limits { memory: None, cpus: None, pids: None });
}

#[test]
fn the_command_line_wins_over_the_repository_and_the_repository_over_the_user() {
    let file = layer(Path::new("/c"), "lang = \"go\"").unwrap();
    let typed = Options { lang: Some(Lang::Base), ..Options::default() };
    assert_eq!(resolve(&typed, &host(), Some(Lang::Php), file.clone()).unwrap().lang, Lang::Base);
    assert_eq!(resolve(&Options::default(), &host(), Some(Lang::Php), file.clone()).unwrap().lang, Lang::Php);
    assert_eq!(resolve(&Options::default(), &host(), None, file).unwrap().lang, Lang::Go);
}

#[test]
fn an_allowlist_implies_the_proxy() {
    let typed = Options { allow: vec!["example.com".into()], ..Options::default() };
    assert_eq!(resolve(&typed, &host(), None, Layer::default()).unwrap().network, Network::Proxy);
}

#[test]
fn a_repository_may_choose_its_language_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sandbox.toml");
    let project_lang = |path: &Path| project_lang(path, Path::new("/own.toml"));
    fs::write(&path, "lang = \"go\"").unwrap();
    assert_eq!(project_lang(&path).unwrap(), Some(Lang::Go));
    fs::write(&path, "lang = \"go\"\nmounts = [\"/\"]").unwrap();
    let text = format!("{:#}", project_lang(&path).unwrap_err());
    assert!(text.ends_with(":2: a repository may set `lang` and nothing else, not `mounts`"), "{text}");
    fs::write(&path, "# ours\nlang = \"cobol\"").unwrap();
    let text = format!("{:#}", project_lang(&path).unwrap_err());
    assert!(
        text.contains("sandbox.toml:2: `lang`: unknown variant `cobol`, expected one of `base`, `go`"),
        "{text}"
    );
}

#[test]
fn mounts_are_read_from_the_right() {
    let parse = |text: &str| MountSpec::parse(text, &host()).unwrap();
    assert_eq!(
        parse("/a:/b:ro"),
        MountSpec { source: "/a".into(), target: Some("/b".into()), access: Access::ReadOnly }
    );
    assert_eq!(parse("~/x").source, host().home.join("x"));
    let (rw, ro) = (Access::ReadWrite, Access::ReadOnly);
    for (text, source, target, access) in [
        (r"/a\:b", "/a:b", None, rw),
        (r"/a\:b:/c\:ro", "/a:b", Some("/c:ro"), rw),
        (r"/a\:ro:ro", "/a:ro", None, ro),
        (r"/a\\:/b", r"/a\", Some("/b"), rw),
        (r"/a\b:rw", r"/a\b", None, rw),
    ] {
        let expected = MountSpec { source: source.into(), target: target.map(PathBuf::from), access };
        assert_eq!(parse(text), expected, "{text}");
    }
    for (text, said) in [
        ("/a:b", "the mount `/a:b` is not `SRC[:DST][:ro]` with an absolute DST"),
        ("", "the mount `` is not"),
        (":ro", "the mount `:ro` is not"),
        ("/a::ro", "the mount `/a::ro` is not"),
        ("/a:/b:/c", "the mount `/a:/b:/c` has more parts than `SRC[:DST][:ro]`; write a colon in a path as"),
    ] {
        let error = MountSpec::parse(text, &host()).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}
