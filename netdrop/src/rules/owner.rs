//! Who makes chains of a name: agents put their rules back, so their configuration is what to change.

/// Beginnings of chain names, the longest that fits counts.
///
/// Sources: <https://docs.docker.com/engine/network/packet-filtering-firewalls/>; kubernetes
/// `pkg/proxy/iptables/proxier.go`; kube-router `network_policy_controller.go`; calico `felix/rules/rule_defs.go`; for the
/// others the chains that they leave on a host.
const CHAINS: &[(&str, &str)] = &[
    ("DOCKER-ISOLATION-STAGE-", "Docker isolation between networks"),
    ("DOCKER-USER", "rules of the user for Docker"),
    ("DOCKER-FORWARD", "Docker"),
    ("DOCKER", "Docker: port of a container that is not published"),
    ("KUBE-FIREWALL", "kubelet: packets marked for dropping, or martian to localhost"),
    ("KUBE-NWPLCY-", "NetworkPolicy (kube-router)"),
    ("KUBE-POD-FW-", "NetworkPolicy (kube-router)"),
    ("KUBE-ROUTER-", "NetworkPolicy (kube-router)"),
    ("KUBE-EXTERNAL-SERVICES", "kube-proxy: service without endpoints"),
    ("KUBE-SERVICES", "kube-proxy: service without endpoints"),
    ("KUBE-PROXY-FIREWALL", "kube-proxy: loadBalancerSourceRanges"),
    ("KUBE-FORWARD", "kube-proxy: packets without a valid connection"),
    ("KUBE-", "Kubernetes"),
    ("cali-", "Calico NetworkPolicy"),
    ("CILIUM_", "Cilium"),
    ("OLD_CILIUM_", "Cilium"),
    ("FLANNEL-", "flannel"),
    ("CNI-", "CNI plugins"),
    ("NETAVARK_ISOLATION", "Podman isolation between networks (netavark)"),
    ("NETAVARK", "Podman (netavark)"),
    ("ufw-", "ufw"),
    ("ufw6-", "ufw"),
    ("WEAVE-NPC", "Weave NetworkPolicy"),
    ("WEAVE-", "Weave"),
    ("LIBVIRT_", "libvirt"),
    ("f2b-", "fail2ban"),
    ("ISTIO_", "Istio"),
];

/// Chains of tables that belong to one agent as a whole.
const TABLES: &[(&str, &str)] = &[
    ("firewalld", "firewalld"),
    ("kube-proxy", "kube-proxy: service without endpoints, or sources that are not allowed"),
    ("netavark", "Podman (netavark)"),
    ("docker-bridges", "Docker"),
    ("libvirt_network", "libvirt"),
    ("f2b-table", "fail2ban"),
    ("calico", "Calico NetworkPolicy"),
];

/// Who is known to make a chain of this name, or the table it is in, and what for.
#[must_use]
pub fn owner(table: &str, chain: &str) -> Option<&'static str> {
    let by_chain = CHAINS.iter().filter(|(begin, _)| chain.starts_with(begin));
    let longest = by_chain.max_by_key(|(begin, _)| begin.len());
    longest.or_else(|| TABLES.iter().find(|(name, _)| *name == table)).map(|(_, owner)| *owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_by_the_names_of_their_chains() {
        let owned = |chain| owner("filter", chain);
        assert_eq!(owned("DOCKER-ISOLATION-STAGE-2"), Some("Docker isolation between networks"));
        assert_eq!(owned("DOCKER-USER"), Some("rules of the user for Docker"));
        assert_eq!(owned("KUBE-NWPLCY-ABCDEF"), Some("NetworkPolicy (kube-router)"));
        assert_eq!(owned("KUBE-SERVICES"), Some("kube-proxy: service without endpoints"));
        assert_eq!(owned("cali-tw-cali1234"), Some("Calico NetworkPolicy"));
        assert_eq!(owned("f2b-sshd"), Some("fail2ban"));
        assert_eq!(owned("ufw-user-input"), Some("ufw"));
        assert_eq!(owned("INPUT"), None);
        assert_eq!(owned("MY-DOCKER"), None);
        assert_eq!(owner("firewalld", "filter_IN_public"), Some("firewalld"));
        assert_eq!(owner("netavark", "INPUT"), Some("Podman (netavark)"));
    }
}
