//! The machine's addresses and routes, from the kernel's tables.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Local addresses from the kernel's own table. There is no table on macOS, where the engine runs in another machine.
pub(super) fn addresses() -> Vec<IpAddr> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(IpAddr::V4(address));
        }
    }
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let six = table
        .lines()
        .filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok())
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local());
    found.extend(six.map(IpAddr::V6));
    found
}

/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// The addresses of a machine; none where nobody answers in time.
pub(super) fn lookup(machine: &str) -> Vec<IpAddr> {
    if let Ok(address) = machine.parse() {
        return vec![address];
    }
    let (send, receive) = mpsc::channel();
    let name = machine.to_owned();
    thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten();
        let _ = send.send(found.map(|address| address.ip()).collect());
    });
    receive.recv_timeout(LOOKUP).unwrap_or_default()
}

/// A session's bridge uses the stricter of two settings: the one for all devices and the one for new devices.
pub(super) fn filters_sources() -> bool {
    ["all", "default"].iter().any(|device| {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"))
            .is_ok_and(|text| text.trim() != "0")
    })
}

pub(super) fn routes() -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let address = |field: &str| u32::from_str_radix(field, 16).ok().map(|n| Ipv4Addr::from(n.swap_bytes()));
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            Some((address(fields.get(1)?)?, address(fields.get(7)?)?))
        })
        .filter(|(_, mask)| !mask.is_unspecified())
        .collect()
}
