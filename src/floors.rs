//! Checks the modules' imports against the floors in the crate's documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

#[test]
fn a_module_imports_only_from_floors_below_its_own() {
    let floors = floors(include_str!("main.rs"));
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (module, text) in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        if module == "floors" {
            continue;
        }
        let Some(own) = floors.get(&module) else {
            wrong.push(format!("`{module}` is on no floor"));
            continue;
        };
        for other in imports(&text).into_iter().filter(|other| *other != module) {
            match floors.get(&other) {
                Some(floor) if floor > own => {}
                Some(_) => wrong.push(format!("{module} → {other}: it is not below")),
                None => wrong.push(format!("{module} → {other}: it is on no floor")),
            }
        }
        seen.insert(module);
    }
    wrong.extend(
        floors.keys().filter(|name| !seen.contains(*name)).map(|name| format!("there is no `{name}`")),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_import_is_seen_in_every_form() {
    let text =
        "use crate::{\n    a::{b, c::d},\n    e,\n    f::g,\n};\nuse crate::h::i;\nlet x = crate::j::k();\n";
    assert_eq!(imports(text), ["a", "e", "f", "h", "j"].map(str::to_owned).into());
}

/// The floor of each module, from the top.
fn floors(main: &str) -> BTreeMap<String, usize> {
    let table = main.lines().filter_map(|line| line.strip_prefix("//! | `"));
    table
        .enumerate()
        .flat_map(|(floor, line)| {
            let names = line.split(" |").next().unwrap_or_default();
            let names: Vec<_> = names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
            names.into_iter().map(move |name| (name, floor))
        })
        .collect()
}

/// Every source file, with its top module.
fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let first = path.strip_prefix(dir).unwrap().components().next().unwrap();
            let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            found.push((module, fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// The top modules that follow `crate::` in a text.
fn imports(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
            // An item of the root is no module.
            found.extend(
                (rest[name.len()..].starts_with("::") || rest[name.len()..].starts_with(';')).then_some(name),
            );
            continue;
        };
        let mut depth = 0;
        let mut name = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.extend(name.split("::").next().map(str::to_owned).filter(|n| !n.is_empty()));
                }
                c if depth == 0 && !c.is_whitespace() => {
                    name.push(c);
                    continue;
                }
                _ => continue,
            }
            if c == ',' {
                name.clear();
            }
        }
        found.extend(name.split("::").next().map(str::to_owned).filter(|n| !n.is_empty()));
    }
    found
}
