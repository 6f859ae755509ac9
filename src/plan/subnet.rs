//! Which addresses a session's own network has.

use std::net::Ipv4Addr;

use sha2::{Digest as _, Sha256};

use crate::{host::Host, record::SessionId};

/// A session's own network: eight addresses of a private range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet(Ipv4Addr);

impl Subnet {
    /// The `attempt`th choice for a session, avoiding what the machine routes elsewhere.
    pub(super) fn choose(id: &SessionId, attempt: u32, host: &Host) -> Self {
        let seed = Sha256::digest(id.as_str());
        let start = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
        (0..SUBNETS)
            .map(|step| start.wrapping_add(attempt.wrapping_mul(7919)).wrapping_add(step) % SUBNETS)
            .map(|index| Self(Ipv4Addr::from(u32::from(RANGE) + index * 8)))
            .find(|subnet| !host.routes.iter().any(|(net, mask)| subnet.overlaps(*net, *mask)))
            .unwrap_or(Self(RANGE))
    }

    fn overlaps(self, net: Ipv4Addr, mask: Ipv4Addr) -> bool {
        let both = u32::from(mask) & 0xffff_fff8;
        u32::from(self.0) & both == u32::from(net) & both
    }

    pub(super) fn cidr(self) -> String {
        format!("{}/29", self.0)
    }

    pub(super) fn host(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0) + n)
    }

    pub(super) fn sidecar(self) -> Ipv4Addr {
        self.host(2)
    }

    pub(super) fn agent(self) -> Ipv4Addr {
        self.host(3)
    }

    pub(super) fn model(self) -> Ipv4Addr {
        self.host(4)
    }
}

/// 10.201.0.0/16, in eights: docker's own pools end after about thirty networks.
const RANGE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 0);
const SUBNETS: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_avoids_what_the_machine_routes() {
        let id = SessionId::parse("abcdefghijklmnop").unwrap();
        let mut host = Host::for_tests();
        let mut seen = std::collections::BTreeSet::new();
        for attempt in 0..16 {
            let subnet = Subnet::choose(&id, attempt, &host);
            assert!(seen.insert(subnet.0), "{subnet:?} twice");
            host.routes.push((subnet.0, Ipv4Addr::new(255, 255, 255, 248)));
        }
        host.routes = vec![(Ipv4Addr::new(10, 201, 0, 0), Ipv4Addr::new(255, 255, 128, 0))];
        for attempt in 0..16 {
            assert!(Subnet::choose(&id, attempt, &host).0 >= Ipv4Addr::new(10, 201, 128, 0));
        }
    }
}
