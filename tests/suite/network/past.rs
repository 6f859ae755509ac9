//! What goes past the proxy.

use std::collections::BTreeMap;

use rustix::process::Signal;

use super::{
    ALLOWLIST,
    attempts::{Case, Session, addresses, cases, prepare, wanting},
    matrix::Matrix,
    restricted,
};
use crate::world::{internet::RESOLVER, model::docker, wait::until_true};

pub(super) const AGENT_CASES: &str = include_str!("../../network/agent.cases");

#[test]
fn an_agent_reaches_nothing_but_its_proxy() {
    let (world, list) = restricted("", ALLOWLIST);
    let (neighbour, neighbour_list) = restricted("", ALLOWLIST);
    let all = cases(AGENT_CASES);

    prepare(&neighbour);
    let listener = neighbour.pi(&[&neighbour_list, "shell", "--", "node", "internet.mjs", "agent"]);
    let listener = listener.start();
    until_true("the other agent", || listener.out().contains("ready "));
    let other = neighbour.session().file_name().unwrap().to_str().unwrap().to_owned();
    let other_network = format!("pi-{other}");
    let other_sidecar = addresses(&format!("pi-{other}-proxy"));
    let others = |session: &mut Session<'_>| {
        for (name, address) in [
            ("other_agent", addresses(&other_network)[&other_network]),
            ("other_sidecar", other_sidecar[&other_network]),
            ("other_outer", other_sidecar["bridge"]),
        ] {
            session.names.insert(name.to_owned(), address.to_string());
        }
    };

    let mut session = Session::start(&world, &[&list]);
    others(&mut session);
    let results = session.attempt(&all);
    let heard = listener.out();
    assert!(!heard.contains("hit "), "{heard}");
    let slow = &results["a look-up"];
    assert!(slow.milliseconds <= 2500, "a look-up took {} ms to fail", slow.milliseconds);
    session.end().is(0, "", "");
    world.assert_nothing_left();

    // An ordinary internal network, on which old and new engines have an address, and IPv6 on the link.
    let (link_world, link_list) = restricted("", ALLOWLIST);
    let mut link = Session::changed(&link_world, &[&link_list], |script| {
        script.without_gate();
        script.replace("--opt=com.docker.network.bridge.inhibit_ipv4=true ", "");
        script.replace("--opt=com.docker.network.bridge.gateway_mode_ipv4=isolated ", "");
        script.replace("--opt=com.docker.network.bridge.gateway_mode_ipv6=isolated ", "");
        script.replace("--subnet 10.", "--ipv6 --subnet fd77:77::/64 --subnet 10.");
    });
    others(&mut link);
    let mut controls = BTreeMap::new();
    controls.insert("plain".to_owned(), link.attempt(&wanting(&all, "plain")));
    // An IPv6 address serves only after the kernel has asked the link whether somebody else has it.
    let mut six = link.attempt(&wanting(&all, "six"));
    for _ in 0..5 {
        if six.values().all(|seen| seen.outcome != "timeout") {
            break;
        }
        six = link.attempt(&wanting(&all, "six"));
    }
    controls.insert("six".to_owned(), six);
    link.end();

    // Docker's default bridge, with the capabilities that docker gives, and without our seccomp profile.
    let (outside, outside_list) = restricted("", ALLOWLIST);
    let mut loose = Session::changed(&outside, &[&outside_list], |script| {
        script.without_gate();
        let network = format!("--network pi-{}", script.id);
        script.container("agent", &network, "--network bridge");
        let create =
            script.text.lines().find(|line| line.contains("--label pi.role=agent")).unwrap().to_owned();
        let words: Vec<&str> = create.split(' ').collect();
        let ip = words[words.iter().position(|word| *word == "--ip").unwrap() + 1];
        script.container("agent", &format!("--ip {ip} "), "");
        script.container("agent", "--dns=0.0.0.0", &format!("--dns={RESOLVER}"));
        script.container("agent", "--sysctl 'net.ipv4.ping_group_range=1 0' ", "");
        script.container("agent", "--cap-drop=ALL ", "--cap-add=NET_ADMIN --cap-add=NET_RAW ");
        script.container("agent", "--user 1000:1000", "--user 0:0");
        let seccomp = words.iter().find(|word| word.starts_with("--security-opt=seccomp=")).unwrap();
        script.container("agent", seccomp, "--security-opt=seccomp=unconfined");
    });
    others(&mut loose);
    for name in ["bridge", "caps", "seccomp"] {
        controls.insert(name.to_owned(), loose.attempt(&wanting(&all, name)));
    }
    docker(&["network", "connect", &other_network, &format!("pi-{}", loose.id)]);
    let joined: Vec<Case> = wanting(&all, "joined")
        .into_iter()
        .map(|case| Case { how: case.how.replace(" device", ""), ..case })
        .collect();
    let mut joined = loose.attempt(&joined);
    for result in joined.values_mut() {
        let token = result.token.clone();
        result
            .arrivals
            .extend(listener.out().lines().filter(|line| line.contains(&token)).map(str::to_owned));
    }
    controls.insert("joined".to_owned(), joined);
    loose.end();

    listener.signal(Signal::TERM);
    assert_eq!(listener.wait().code, Some(143));
    Matrix::of(&all, &results, &controls).settle("past the proxy");
}
