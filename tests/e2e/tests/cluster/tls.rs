//! TLS between nodes.

use std::fs;
use std::path::Path;

use harness::{Cluster, Plan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;

use crate::{client, eventually, is_one_cluster};

/// An authority in a directory, and certificates of it.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let directory = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the nodes' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The lines that give a node a certificate of this authority; it trusts those of `trusted`.
    fn conf(&self, name: &str, trusted: &Authority) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (pem, key_pem) = (self.path().join(format!("{name}.pem")), self.path().join(format!("{name}.key")));
        fs::write(&pem, certificate.pem()).unwrap();
        fs::write(&key_pem, key.serialize_pem()).unwrap();
        format!(
            "cluster.ssl_options.certfile = {}\ncluster.ssl_options.keyfile = {}\ncluster.ssl_options.cacertfile = {}\n",
            pem.display(),
            key_pem.display(),
            trusted.path().join("ca.pem").display()
        )
    }
}

#[test]
fn nodes_with_certificates_form_a_cluster_and_bring_messages_to_each_other() {
    let authority = Authority::new();
    let mut plan = Plan::nodes(3);
    for node in 1..=3 {
        plan = plan.conf_of(node, &authority.conf(&format!("n{node}"), &authority));
    }
    let mut cluster = Cluster::start(plan).unwrap();
    is_one_cluster(&cluster);
    assert_eq!(client(&cluster, 1).ask("queue.declare queue=q durable=true"), "declare-ok 0 0");
    let mut publisher = client(&cluster, 2);
    publisher.ask("confirm.select");
    // Larger than what a session or a socket takes at once.
    for number in 1..=3 {
        assert_eq!(publisher.publish_confirmed("q", &"x".repeat(3_000_000), number), "confirmed");
    }
    assert_eq!(client(&cluster, 3).ask("queue.declare queue=q passive=true"), "declare-ok 3 0");
    cluster.kill_9(1).unwrap();
    cluster.start_node(1).unwrap();
    is_one_cluster(&cluster);
    eventually("the messages are there", || {
        client(&cluster, 3).ask("queue.declare queue=q passive=true") == "declare-ok 3 0"
    });
}

/// With the right secret, without the right certificate, or without one at all.
#[test]
fn a_node_without_a_certificate_of_the_authority_does_not_get_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let plan = Plan::nodes(4)
        .conf_of(1, &authority.conf("n1", &authority))
        .conf_of(2, &authority.conf("n2", &authority))
        .conf_of(3, &other.conf("n3", &authority));
    let mut cluster = Cluster::prepare(plan).unwrap();
    // Of four that are listed three must be heard from: the two that agree do not found a cluster, nor does anybody else.
    for node in cluster.numbers() {
        cluster.launch(node).unwrap();
    }
    for node in [1, 2] {
        eventually("the log speaks of TLS", || cluster.log(node).unwrap().contains("no TLS session comes about"));
    }
    for node in cluster.numbers() {
        assert!(!cluster.serves(node).unwrap(), "{node}");
    }
}
