//! Languages and images.

use std::time::Duration;

use crate::world::{
    World,
    files::{Who, myself, write},
    images::BUILD,
    model::docker,
};

#[test]
fn go_builds_and_tests_and_keeps_its_caches() {
    let world = World::with_model();
    for (path, text) in [
        (
            "go.mod",
            "module example.com/app\n\ngo 1.24\n\nrequire example.com/greeting v0.0.0\n\nreplace example.com/greeting => ./greeting\n",
        ),
        (
            "main.go",
            "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.com/greeting\"\n)\n\nfunc main() { fmt.Println(greeting.Word()) }\n",
        ),
        ("main_test.go", "package main\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) {}\n"),
        ("greeting/go.mod", "module example.com/greeting\n\ngo 1.24\n"),
        ("greeting/greeting.go", "package greeting\n\nfunc Word() string { return \"hello\" }\n"),
    ] {
        write(world.repo().join(path), text);
    }
    world.prepare(myself(), &["--lang", "go"]);
    let first = "go build -o app . && ./app && go test ./... && touch \"$(go env GOMODCACHE)/kept\" \
                 && mkdir -p ~/go/bin && go version";
    // The first time, the standard library is compiled as well.
    let done = world.shell(&[], first).limit(Duration::from_secs(300)).run();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.err, "pi: using the go image, because there is a `go.mod`\n");
    assert!(
        done.out.starts_with("hello\nok  \texample.com/app") && done.out.contains("go version go1.26"),
        "{done:?}"
    );
    // In the next session the same test needs no second run, and the module cache is the same one.
    let second = "go test ./... && ls \"$(go env GOMODCACHE)\"";
    let said = world.shell(&["--lang", "go"], second).good();
    assert!(said.contains("(cached)") && said.ends_with("kept\n"), "{said}");
}

#[test]
fn php_and_composer_work_in_both_versions() {
    let world = World::with_model();
    write(
        world.repo().join("library/composer.json"),
        r#"{"name": "example/greeting", "version": "1.0.0", "autoload": {"files": ["greeting.php"]}}"#,
    );
    write(
        world.repo().join("library/greeting.php"),
        "<?php function greeting(): string { return 'hello'; }\n",
    );
    let composer = |constraint: &str| {
        let text = serde_json::json!({
            "name": "example/app",
            "repositories": [{"type": "path", "url": "library"}, {"packagist": false}],
            "require": {"php": constraint, "example/greeting": "^1.0"},
        });
        write(world.repo().join("composer.json"), text.to_string());
    };
    let script = r#"set -e
        rm -rf vendor composer.lock
        composer install --quiet
        php -r 'require "vendor/autoload.php"; echo greeting(), " ", PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION, "\n";
            foreach (["curl", "dom", "intl", "mbstring", "xml", "zip", "sqlite3"] as $name) {
                if (!extension_loaded($name)) echo "no $name\n";
            }'
        php -v | head -n 1 | cut -d. -f 1-2"#;
    for (lang, constraint, version) in
        [("php8.4", "~8.4.0", "8.4"), ("php8.5", ">=8.5", "8.5"), ("php", "^8.3", "8.5")]
    {
        composer(constraint);
        world.prepare(myself(), &["--lang", lang]);
        let expected = format!("hello {version}\nPHP {version}\n");
        assert_eq!(world.shell(&["--lang", lang], script).good(), expected, "{lang}");
        // Left to itself, `pi` chooses the same.
        let chosen = world.shell(&[], "php -r 'echo PHP_VERSION;'").run();
        assert!(chosen.code == Some(0) && chosen.out.starts_with(version), "{constraint}: {chosen:?}");
        let note = format!("pi: using the php{version} image, because there is a `composer.json`\n");
        assert_eq!(chosen.err, note);
    }
}

#[test]
fn a_changed_argument_rebuilds_by_itself_and_an_unchanged_one_builds_nothing() {
    // An owner whom no other run of the tests has, so that its images are this run's alone. The packages come before the
    // user in an image, so that only the first run of all downloads them.
    let number = 20_000 + std::process::id() % 30_000;
    let owner = if myself().uid == 0 { Who { uid: number, gid: number } } else { myself() };
    let world = World::of(owner, "repo");
    world.prepare(myself(), &[]);
    let plain = world.image(&[]);
    let without = world.shell(&[], "command -v hello").run();
    // Or it would prove nothing.
    without.is(127, "", "");
    world.configure("packages = [\"hello\"]");
    let image = world.image(&[]);
    assert_ne!(image, plain);
    // Under another name the layers stay.
    let kept = format!("pi-e2e:packages-{number}");
    let forget = || {
        docker(&["tag", &image, &kept]);
        docker(&["image", "rm", &image]);
    };
    let built = world.pi(&["build"]).limit(BUILD).run();
    assert_eq!((built.code, built.out.as_str()), (Some(0), ""), "{built:?}");
    assert!(built.err.contains(&format!("pi: building the image `{image}`")), "{built:?}");
    world.shell(&[], "hello --greeting=built").run().is(0, "built\n", "");
    // Another image under its tag is nobody's: a session has the one that was built, by its id.
    let own = docker(&["image", "inspect", "--format={{.Id}}", &image]);
    docker(&["tag", &plain, &image]);
    let other = docker(&[
        "run", "--rm", "--network=none", "--entrypoint=sh", &image, "-c", "command -v hello; echo none",
    ]);
    assert_eq!(other, "none", "the control");
    world.shell(&[], "hello --greeting=by-id").run().is(0, "by-id\n", "");
    docker(&["tag", &own, &image]);
    // A session builds what it needs by itself as well.
    forget();
    world.forget_images();
    let call = || world.shell(&[], "hello --greeting=again").limit(BUILD).run();
    let built = call();
    assert_eq!((built.code, built.out.as_str()), (Some(0), "again\n"), "{built:?}");
    assert!(built.err.contains(&format!("pi: building the image `{image}`")), "{built:?}");
    call().is(0, "again\n", "");
    // One with the package stays for the next run.
    if docker(&["image", "ls", "--quiet", "pi-e2e:packages"]).is_empty() {
        docker(&["tag", &image, "pi-e2e:packages"]);
    }
    if owner != myself() {
        docker(&["image", "rm", "--force", &plain]);
    }
    docker(&["image", "rm", &image, &kept]);
}

#[test]
fn the_agent_starts_from_the_code_that_its_image_holds() {
    let world = World::with_model();
    world.prepare(myself(), &[]);
    let said = world.shell(&[], "NODE_DEBUG_NATIVE=COMPILE_CACHE pi --version 2>&1").good();
    let count = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert!(count("was accepted") > 5, "{said}");
    // What was not taken from there would be written there in vain.
    assert_eq!((count("was rejected"), count("writing cache")), (0, 0), "{said}");
}

#[test]
fn our_layers_are_no_larger_than_they_need_to_be() {
    let world = World::with_model();
    world.prepare(myself(), &[]);
    let plan = world.plan(&[]);
    let image = plan["agent"]["image"].as_str().unwrap();
    let layers = docker(&["history", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image]);
    // From the top down to where the base begins, which is the first of our words.
    let ours = layers.lines().take_while(|line| !line.contains("USER root"));
    let sizes = ours.map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    let size = sizes.sum::<u64>() / 1_000_000;
    assert!(size <= 180, "{size} MB:\n{layers}");
}

#[test]
fn a_list_of_what_is_in_the_images_has_every_package() {
    let world = World::with_model();
    let options = ["--lang", "go"];
    world.prepare(myself(), &options);
    let outcome = world.pi(&[&options[..], &["--quiet", "build", "--sbom"]].concat()).limit(BUILD).run();
    outcome.has_code(0);
    let bom: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    let part = |image: &str, name: &str| {
        let mut all = bom["components"].as_array().unwrap().iter();
        let found =
            all.find(|part| part["name"] == name && part["bom-ref"].as_str().unwrap().starts_with(image));
        found.unwrap_or_else(|| panic!("no `{name}` in {image}"))["version"].as_str().unwrap().to_owned()
    };
    let script = "dpkg-query -W -f='${Package} ${Version}\\n'; printf 'go %s\\n' $(go env GOVERSION | tr -d go); \
                  printf 'node %s\\n' $(node --version | tr -d v); \
                  printf '@earendil-works/pi-coding-agent %s\\n' $(pi --version 2>&1 | tail -n 1)";
    let said = world.shell(&[&options[..], &["--quiet"]].concat(), script).good();
    let installed: Vec<_> = said.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert!(installed.len() > 80, "{said}");
    for (name, version) in installed {
        assert_eq!(part("pi-agent:go-", name), version, "{name}");
    }
    assert!(part("pi-proxy:", "haproxy").starts_with(|digit: char| digit.is_ascii_digit()));
}
