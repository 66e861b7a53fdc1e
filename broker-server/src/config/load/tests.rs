//! Configuration files, flags and environment together: which wins, and what each mistake says.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::time::Duration;

use broker_meta::peer::NAME_MAX_BYTES;
use proptest::prelude::*;
use rustls::CipherSuite;
use tempfile::TempDir;

use super::*;
use crate::config::admin::{ADMIN_KEYS, AdminConfig, AdminListener};
use crate::config::cluster::{
    ClusterConfig, ClusterListener, ClusterTls, PartitionHandling, PeerDiscovery, QueueMasterLocator, Recovery, Seed,
};
use crate::config::tls::{AMQP_KEYS, AlternativeName, LoginFrom, TlsVersion};
use crate::config::{DiskFreeLimit, Listener, LogFormat, LogLevel, MemoryWatermark, Secret, TlsConfig};

/// Loads a configuration file with this text and these variables.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("rabbitmq.conf");
    fs::write(&path, text).unwrap();
    load(&Args { config: Some(path), ..Args::default() }, &environment_of(variables))
}

fn environment_of(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

fn config_of(text: &str) -> Config {
    load_text(text, &[]).unwrap().config
}

/// The errors without the directory of the file.
fn errors_of(text: &str) -> Vec<String> {
    let errors = load_text(text, &[]).unwrap_err();
    errors.0.iter().map(|complaint| complaint.to_string().rsplit_once('/').unwrap().1.to_string()).collect()
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = load(&Args::default(), &Environment::default()).unwrap();
    let mut expected = Config::default();
    expected.node.name = environment::default_node_name();
    assert_eq!(loaded.config, expected);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn values_are_read() {
    let config = config_of(
        "listeners.tcp.local = 127.0.0.1:5673\nheartbeat = 30\nframe_max = 64KB\nchannel_max = 0\n\
         handshake_timeout = infinity\nconsumer_timeout = 1h\nvm_memory_high_watermark.absolute = 2GB\n\
         vm_memory_high_watermark.relative = 0.7\ndisk_free_limit.relative = 1.5\nloopback_users = none\n\
         default_user_tags.monitoring = true\nauth_mechanisms.2 = PLAIN\nauth_mechanisms.1 = AMQPLAIN\n\
         broker.unauthenticated_max = 10\nbroker.login_failures_max = infinity\ninitial_frame_max = 8KB\n\
         log.console.level = debug\nlog.console.formatter = json\nlog.file = b.log\nlog.dir = /tmp/l\n",
    );
    assert_eq!((config.listeners[0].name.as_str(), config.listeners[0].port), ("local", 5673));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.limits.heartbeat_s, 30);
    assert_eq!(config.limits.frame_max_bytes, 65_536);
    assert_eq!(config.limits.handshake_timeout, None);
    assert_eq!(config.limits.initial_frame_max_bytes, 8_192);
    assert_eq!(config.limits.unauthenticated_max, 10);
    assert_eq!(config.authentication.login_failures_max, None);
    assert_eq!(config.limits.consumer_timeout, Duration::from_secs(3_600));
    assert_eq!(config.alarm.memory_watermark, MemoryWatermark::Absolute(2_000_000_000));
    assert_eq!(config.alarm.disk_free_limit, DiskFreeLimit::RelativeToMemory(1.5));
    assert!(config.authentication.loopback_users.is_empty());
    assert_eq!(config.bootstrap.tags, ["monitoring"]);
    assert_eq!(config.authentication.mechanisms, ["AMQPLAIN", "PLAIN"]);
    let console = config.log.console.unwrap();
    assert_eq!((console.level, console.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(config.log.file.unwrap().0, Path::new("/tmp/l/b.log"));
}

#[test]
fn loopback_users_are_as_in_rabbitmq() {
    assert_eq!(config_of("").authentication.loopback_users, ["guest"]);
    assert!(config_of("loopback_users.guest = false").authentication.loopback_users.is_empty());
    assert_eq!(config_of("loopback_users.ann = true").authentication.loopback_users, ["ann"]);
    assert_eq!(config_of("loopback_users.a\\.b = true").authentication.loopback_users, ["a.b"]);
}

#[test]
fn no_listener_wins_over_named_ones() {
    assert!(config_of("listeners.tcp.a = 1\nlisteners.tcp = none").listeners.is_empty());
}

#[test]
fn a_sasl_mechanism_we_lack_is_left_out_unless_it_is_the_only_one() {
    let loaded = load_text("auth_mechanisms.1 = ANONYMOUS\nauth_mechanisms.2 = EXTERNAL\n", &[]).unwrap();
    assert_eq!(loaded.config.authentication.mechanisms, ["EXTERNAL"]);
    assert!(loaded.warnings[0].to_string().contains(":1: auth_mechanisms.1 = 'ANONYMOUS' is not offered"));
    let errors = errors_of("auth_mechanisms.1 = ANONYMOUS\n");
    assert_eq!(errors, ["rabbitmq.conf:1: none of these SASL mechanisms exists in this version"]);
}

/// The example of RabbitMQ's documentation.
#[test]
fn tls_options_are_those_of_rabbitmq() {
    let text = "listeners.tcp = none\nlisteners.ssl.default = 5671\nssl_options.cacertfile = /ca.pem\n\
                ssl_options.certfile = /cert.pem\nssl_options.keyfile = /key.pem\nssl_options.password = secret\n\
                ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\nssl_options.depth = 2\n\
                ssl_options.versions.1 = tlsv1.2\nssl_options.versions.2 = tlsv1.3\n\
                ssl_options.honor_cipher_order = false\nssl_options.honor_ecc_order = true\n\
                ssl_options.client_renegotiation = false\nssl_options.secure_renegotiate = true\n\
                ssl_options.ciphers.2 = ECDHE-RSA-AES128-GCM-SHA256\nssl_options.ciphers.1 = TLS_AES_256_GCM_SHA384\n\
                ssl_options.ciphers.3 = DHE-RSA-AES256-GCM-SHA384\nssl_handshake_timeout = 3000\n\
                ssl_cert_login_from = subject_alternative_name\nssl_cert_login_san_type = email\n\
                ssl_cert_login_san_index = 1\n";
    let loaded = load_text(text, &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:#?}", loaded.warnings);
    assert!(loaded.warnings[0].to_string().contains("ssl_options.ciphers.3 = 'DHE-RSA-AES256-GCM-SHA384' is left out"));
    let Config { listeners, tls, .. } = loaded.config;
    assert_eq!(listeners, [Listener { name: "default".into(), ip: None, port: 5671, tls: true }]);
    let expected = TlsConfig {
        keys: AMQP_KEYS,
        certificate: Some("/cert.pem".into()),
        key: Some("/key.pem".into()),
        key_password: Some(Secret::new("secret")),
        authorities: Some("/ca.pem".into()),
        verify_peer: true,
        require_certificate: true,
        depth: 2,
        versions: vec![TlsVersion::V12, TlsVersion::V13],
        ciphers: vec![CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256],
        honor_cipher_order: false,
        reuse_sessions: true,
        handshake_timeout: Duration::from_secs(3),
        login_from: LoginFrom::AlternativeName(AlternativeName::Email, 1),
    };
    assert_eq!(tls, expected);
}

#[test]
fn tls_options_that_cannot_be_met_are_errors() {
    for (text, error) in [
        ("ssl_options.versions.1 = tlsv1.1", "ssl_options.versions.1 = 'tlsv1.1' is not spoken here, as it is broken"),
        ("ssl_options.ciphers.1 = AES128-SHA", "none of these cipher suites exists here"),
        ("ssl_options.ciphers.1 = HIGH:!aNULL", "is no cipher suite; there are TLS_AES_256_GCM_SHA384, "),
        ("ssl_options.crl_check = true", "ssl_options.crl_check = 'true' is not possible"),
        ("listeners.ssl.default = 5671", "TLS listeners need ssl_options.certfile, a PEM file"),
        ("ssl_options.certfile = c\nlisteners.ssl.default = 5671", "TLS listeners need ssl_options.keyfile"),
        (
            "listeners.ssl.a = 5671\nssl_options.certfile = c\nssl_options.keyfile = k\nssl_options.verify = verify_peer",
            "rabbitmq.conf:4: verify_peer needs ssl_options.cacertfile",
        ),
        (
            "listeners.ssl.a = 5671\nssl_options.certfile = c\nssl_options.keyfile = k\n\
             ssl_options.fail_if_no_peer_cert = true",
            "rabbitmq.conf:4: fail_if_no_peer_cert needs ssl_options.verify = verify_peer",
        ),
        (
            "listeners.ssl.a = 5672\nlisteners.tcp.b = 5672\nssl_options.certfile = c\nssl_options.keyfile = k",
            "listeners.tcp.b and listeners.ssl.a both take port 5672",
        ),
    ] {
        let errors = errors_of(text);
        assert!(errors.len() == 1 && errors[0].contains(error), "{text}: {errors:?}");
    }
}

const ADMIN: &str = "broker.admin.listener = 127.0.0.1:15680\n";
const AMQP_FILES: &str = "ssl_options.certfile = c\nssl_options.keyfile = k\nssl_options.cacertfile = a\n";

#[test]
fn the_admin_service_takes_over_what_is_said_of_tls_for_amqp() {
    let config = config_of(&format!("{ADMIN}{AMQP_FILES}ssl_options.versions.1 = tlsv1.3\n"));
    let AdminConfig { listener, tls } = config.admin;
    assert_eq!(listener, Some(AdminListener { ip: Some([127, 0, 0, 1].into()), port: 15_680 }));
    let expected = TlsConfig {
        keys: ADMIN_KEYS,
        certificate: Some("c".into()),
        key: Some("k".into()),
        authorities: Some("a".into()),
        versions: vec![TlsVersion::V13],
        ..TlsConfig::default()
    };
    assert_eq!(tls, expected);
    let own = "broker.admin.ssl_options.certfile = ac\nbroker.admin.ssl_options.keyfile = ak\n\
               broker.admin.ssl_options.verify = verify_peer\nbroker.admin.ssl_options.fail_if_no_peer_cert = true\n";
    let config = config_of(&format!("{ADMIN}{AMQP_FILES}{own}"));
    let expected = TlsConfig {
        certificate: Some("ac".into()),
        key: Some("ak".into()),
        verify_peer: true,
        require_certificate: true,
        versions: Vec::new(),
        ..expected
    };
    assert_eq!(config.admin.tls, expected);
    assert!(!config.tls.verify_peer, "that of AMQP stays");
    let first = load_text(&format!("{ADMIN}{AMQP_FILES}{own}"), &[]).unwrap();
    let again = load_text(&first.print().replace(REDACTED, "guest"), &[]).unwrap();
    assert_eq!(first.config, again.config);
}

#[test]
fn the_admin_service_is_off_or_has_tls_and_a_port_of_its_own() {
    assert_eq!(config_of("heartbeat = 5").admin, AdminConfig::default());
    let loaded = load_text("broker.admin.ssl_options.verify = verify_none\n", &[]).unwrap();
    assert!(loaded.warnings[0].to_string().contains("has no effect without broker.admin.listener"));
    for (text, error) in [
        (ADMIN.to_owned(), "rabbitmq.conf:1: TLS listeners need broker.admin.ssl_options.certfile, a PEM file"),
        (
            format!("{ADMIN}{AMQP_FILES}broker.admin.ssl_options.keyfile = x"),
            "rabbitmq.conf:5: broker.admin.ssl_options.certfile and broker.admin.ssl_options.keyfile go together",
        ),
        (
            format!("{ADMIN}{AMQP_FILES}listeners.tcp.x = 15680"),
            "rabbitmq.conf:1: listeners.tcp.x and broker.admin.listener both take port 15680",
        ),
    ] {
        assert_eq!(errors_of(&text), [error], "{text}");
    }
}

#[test]
fn two_listeners_on_one_port_are_an_error() {
    let errors = errors_of("listeners.tcp.a = 5672\nlisteners.tcp.b = 127.0.0.1:5672");
    assert_eq!(errors, ["rabbitmq.conf:2: listeners.tcp.a and listeners.tcp.b both take port 5672"]);
    assert_eq!(config_of("listeners.tcp.a = 127.0.0.1:5672\nlisteners.tcp.b = ::1:5672").listeners.len(), 2);
}

#[test]
fn the_console_can_be_turned_off_for_the_default_file() {
    let config = config_of("log.console = false");
    assert_eq!(config.log.console, None);
    assert_eq!(config.log.file.unwrap().0, Path::new("data/log/brokerd.log"));
}

#[test]
fn every_error_is_reported_at_once_with_line_and_bounds() {
    let errors = errors_of(
        "heartbeat = 70000\nhearbeat = 1\nno equals sign\nmax_message_size = 1TB\nlog.console.level = loud\nchannel_max = x\n",
    );
    assert_eq!(
        errors,
        [
            "rabbitmq.conf:1: heartbeat = '70000' is out of range; allowed: 0 to 65535 seconds",
            "rabbitmq.conf:2: unknown key 'hearbeat'; the nearest known key is 'heartbeat'",
            "rabbitmq.conf:3: expected 'key = value', found no '='",
            "rabbitmq.conf:4: max_message_size = '1TB' is out of range; allowed: 1 to 536870912 bytes",
            "rabbitmq.conf:5: log.console.level = 'loud' is unknown; allowed: debug, info, warning, error, none, notice, \
             critical, alert, emergency",
            "rabbitmq.conf:6: channel_max = 'x' is not a whole number; allowed: 0 to 65535 channels",
        ]
    );
}

#[test]
fn a_key_of_rabbitmq_without_meaning_here_warns_with_the_reason() {
    let loaded = load_text("heartbeat = 5\ncollect_statistics_interval = 5000\nmqtt.prefetch = 10\n", &[]).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings[0].ends_with(":2: collect_statistics_interval is ignored: statistics are always collected"));
    assert!(warnings[1].ends_with(":3: mqtt.prefetch is ignored: this broker speaks AMQP 0-9-1 only"));
}

#[test]
fn a_key_without_effect_in_this_version_is_checked_and_warns() {
    let loaded = load_text("broker.shards = 1\n", &[]).unwrap();
    assert!(loaded.warnings[0].to_string().ends_with(":1: broker.shards has no effect: this version runs one shard"));
}

#[test]
fn definitions_come_from_a_local_path_by_either_name() {
    for text in [
        "load_definitions = /d.json",
        "definitions.import_backend = local_filesystem\ndefinitions.local.path = /d.json",
    ] {
        let loaded = load_text(&format!("{text}\ndefinitions.skip_if_unchanged = true\n"), &[]).unwrap();
        assert_eq!(loaded.config.definitions.path.as_deref(), Some(Path::new("/d.json")));
        assert!(loaded.config.definitions.skip_if_unchanged && loaded.warnings.is_empty());
    }
    assert_eq!(
        errors_of("definitions.import_backend = https\n"),
        ["rabbitmq.conf:1: definitions.import_backend = 'https' is unknown; allowed: local_filesystem"]
    );
}

/// A file that names the secret, and these lines behind it.
fn with_secret(text: &str) -> String {
    format!("cluster.secret_file = /s\n{text}")
}

fn cluster_of(text: &str) -> ClusterConfig {
    config_of(&with_secret(text)).cluster
}

/// What is said about these lines.
fn oddities_of(text: &str) -> Vec<String> {
    let loaded = load_text(&with_secret(text), &[]).unwrap();
    let said = loaded.warnings.iter().map(|one| one.to_string().rsplit_once('/').unwrap().1.to_string());
    said.collect()
}

fn seed(name: &str, port: Option<u16>) -> Seed {
    Seed { name: name.into(), port }
}

/// The example of RabbitMQ's documentation, and what is ours.
#[test]
fn a_list_makes_a_cluster() {
    let config = cluster_of(
        "cluster.ssl_options.certfile = /c\ncluster.ssl_options.keyfile = /k\ncluster.ssl_options.cacertfile = /a\n\
         cluster_name = shop\ncluster.listener.ip = ::1\ncluster.listener.port = 25673\n\
         cluster.advertised_address = a.example\ncluster_formation.peer_discovery_backend = classic_config\n\
         cluster_formation.classic_config.nodes.1 = rabbit@hostname1.eng.example.local\n\
         cluster_formation.classic_config.nodes.10 = rabbit@[::1]:25674\n\
         cluster_formation.classic_config.nodes.2 = rabbit@hostname2:25674\n\
         cluster_formation.classic_config.nodes.last = hare@10.0.0.1\n\
         cluster_formation.target_cluster_size_hint = 4\ncluster_formation.discovery_retry_limit = unlimited\n\
         cluster_formation.discovery_retry_interval = 2s\ncluster_partition_handling = autoheal\n\
         queue_master_locator = min-masters\ncluster_formation.node_type = disc\n",
    );
    let expected = ClusterConfig {
        name: Some("shop".into()),
        secret_file: Some("/s".into()),
        tls: Some(ClusterTls { certificate: "/c".into(), key: "/k".into(), authorities: "/a".into() }),
        listener: ClusterListener { ip: Some("::1".parse().unwrap()), port: 25_673 },
        advertised: Some("a.example:25673".into()),
        peer_discovery_backend: PeerDiscovery::ClassicConfig,
        nodes: vec![
            seed("rabbit@hostname1.eng.example.local", None),
            seed("rabbit@hostname2", Some(25_674)),
            seed("rabbit@::1", Some(25_674)),
            seed("hare@10.0.0.1", None),
        ],
        dns_hostname: None,
        target_cluster_size_hint: Some(4),
        discovery_retry_limit: None,
        discovery_retry_interval: Duration::from_secs(2),
        partition_handling: PartitionHandling::Autoheal,
        queue_master_locator: QueueMasterLocator::MinMasters,
    };
    assert_eq!(config, expected);
}

#[test]
fn nodes_can_be_found_by_a_host_name() {
    for backend in ["dns", "rabbit_peer_discovery_dns"] {
        let text = format!(
            "cluster_formation.peer_discovery_backend = {backend}\ncluster_formation.dns.hostname = shop.example\n\
             cluster_formation.target_cluster_size_hint = 3"
        );
        let config = cluster_of(&text);
        assert_eq!(config.peer_discovery_backend, PeerDiscovery::Dns);
        assert_eq!(config.dns_hostname.as_deref(), Some("shop.example"));
        assert_eq!(oddities_of(&text), [""; 0]);
    }
}

/// It would be cut, or refused by the others, when it is told to them.
#[test]
fn a_nodes_name_is_one_that_other_nodes_take() {
    let long = format!("rabbit@{}", "h".repeat(NAME_MAX_BYTES - "rabbit@".len()));
    let named = |name: &str| load_text("", &[("RABBITMQ_NODENAME", name)]).map(|loaded| loaded.config.node.name);
    assert_eq!(named(&long).unwrap(), long);
    let errors = named(&format!("{long}h")).unwrap_err().to_string();
    assert!(errors.contains("is 256 bytes long; allowed: 1 to 255 bytes"), "{errors}");
    assert!(errors_of(&format!("broker.node_name = {long}h"))[0].contains("is 256 bytes long"));
    let errors = named("rabbit@a\u{1b}[2J").unwrap_err().to_string();
    assert!(errors.contains("has a control character"), "{errors}");
}

#[test]
fn names_of_choices_are_those_of_rabbitmq() {
    let backend =
        |name| cluster_of(&format!("cluster_formation.peer_discovery_backend = {name}")).peer_discovery_backend;
    for name in ["classic_config", "rabbit_peer_discovery_classic_config", "classic", "config"] {
        assert_eq!(backend(name), PeerDiscovery::ClassicConfig);
    }
    let locator = |name| cluster_of(&format!("queue_master_locator = {name}")).queue_master_locator;
    assert_eq!(locator("client-local"), QueueMasterLocator::ClientLocal);
    assert_eq!(locator("random"), QueueMasterLocator::Random);
    let partitions = |name| cluster_of(&format!("cluster_partition_handling = {name}")).partition_handling;
    assert_eq!(partitions("ignore"), PartitionHandling::Ignore);
    assert_eq!(partitions("pause_minority"), PartitionHandling::PauseMinority);
    for (name, recover) in [("ignore", Recovery::Ignore), ("autoheal", Recovery::Autoheal)] {
        let config = cluster_of(&format!(
            "cluster_partition_handling = pause_if_all_down\n\
             cluster_partition_handling.pause_if_all_down.recover = {name}\n\
             cluster_partition_handling.pause_if_all_down.nodes.2 = rabbit@b\n\
             cluster_partition_handling.pause_if_all_down.nodes.1 = rabbit@a"
        ));
        let nodes = vec!["rabbit@a".into(), "rabbit@b".into()];
        assert_eq!(config.partition_handling, PartitionHandling::PauseIfAllDown { nodes, recover });
    }
}

#[test]
fn the_port_of_erlangs_distribution_is_that_of_the_cluster() {
    let range = "distribution.listener.interface = 10.0.0.1\ndistribution.listener.port_range.min = 25680\n\
                 distribution.listener.port_range.max = 25690\n";
    let listener = cluster_of(range).listener;
    assert_eq!(listener, ClusterListener { ip: Some("10.0.0.1".parse().unwrap()), port: 25_680 });
    assert_eq!(
        oddities_of(range),
        ["rabbitmq.conf:4: distribution.listener.port_range.max has no effect: one port is used, 25680"]
    );
    let ours = format!("{range}cluster.listener.ip = 10.0.0.2\ncluster.listener.port = 25690");
    assert_eq!(cluster_of(&ours).listener, ClusterListener { ip: Some("10.0.0.2".parse().unwrap()), port: 25_690 });
    assert_eq!(oddities_of(&ours), [""; 0]);
    let loaded = load_text(range, &[("RABBITMQ_DIST_PORT", "25700")]).unwrap();
    assert_eq!(loaded.config.cluster.listener.port, 25_700);
}

#[test]
fn other_nodes_without_a_secret_are_an_error_that_says_how_to_make_one() {
    let how = "without cluster.secret_file: set it to a file with at least 32 random octets that nobody else can read, the \
               same on every node: `head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE`";
    // The part behind the last slash is compared.
    let how = how.rsplit_once('/').unwrap().1;
    for (text, line, what) in [
        ("cluster_formation.classic_config.nodes.1 = rabbit@b", 1, "other nodes are listed"),
        (
            "broker.node_name = rabbit@a\ncluster_formation.classic_config.nodes.1 = rabbit@a\n\
             cluster_formation.classic_config.nodes.2 = rabbit@b",
            3,
            "other nodes are listed",
        ),
        ("cluster_formation.dns.hostname = b", 1, "other nodes are looked for"),
        (
            "cluster_formation.peer_discovery_backend = dns\ncluster_formation.dns.hostname = b\n\
             cluster_formation.target_cluster_size_hint = 1",
            2,
            "other nodes are looked for",
        ),
        ("cluster_formation.target_cluster_size_hint = 2", 1, "a cluster of several nodes is asked for"),
    ] {
        let errors = load_text(text, &[]).unwrap_err().to_string();
        assert!(errors.contains(&format!("rabbitmq.conf:{line}: {what} without cluster.secret_file: ")), "{errors}");
        assert!(errors.ends_with(how), "{errors}");
        assert!(load_text(&with_secret(text), &[]).is_ok());
        assert!(load_text(text, &[("BROKER__CLUSTER__SECRET_FILE", "/s")]).is_ok());
    }
    let alone = "broker.node_name = rabbit@a\ncluster_formation.classic_config.nodes.1 = rabbit@a\n\
                 cluster_formation.target_cluster_size_hint = 1";
    assert_eq!(config_of(alone).cluster.nodes, [seed("rabbit@a", None)]);
}

#[test]
fn mistakes_about_the_cluster_are_errors() {
    for (text, error) in [
        ("cluster.secret_file = ''", "cluster.secret_file = '' is empty"),
        ("cluster.listener.ip = localhost", "cluster.listener.ip = 'localhost' is no IP address"),
        ("cluster.listener.port = 0", "cluster.listener.port = '0' is out of range; allowed: 1 to 65535"),
        ("distribution.listener.interface = x", "distribution.listener.interface = 'x' is no IP address"),
        ("distribution.listener.port_range.min = x", "is not a whole number; allowed: 1 to 65535"),
        ("distribution.listener.port_range.max = 65536", "is out of range; allowed: 1 to 65535"),
        (
            "distribution.listener.port_range.min = 3\ndistribution.listener.port_range.max = 2",
            "rabbitmq.conf:2: the last port of the range, 2, is below the first, 3",
        ),
        ("cluster.advertised_address = a b", "cluster.advertised_address = 'a b' has no host name; allowed: 1 to 253 "),
        ("cluster.advertised_address = a:0", "has something other than a port behind the host; allowed: 1 to 65535"),
        (
            "cluster_formation.classic_config.nodes.1 = b",
            "cluster_formation.classic_config.nodes.1 = 'b' is not of the form name@host or name@host:port",
        ),
        ("cluster_formation.classic_config.nodes.1 = rabbit@b@c", "has no host name"),
        ("cluster_formation.classic_config.nodes.1 = @b", "is not of the form name@host or name@host:port"),
        ("cluster_formation.classic_config.nodes.1 = rabbit@b:x", "has something other than a port behind the host"),
        ("cluster_formation.classic_config.node.1 = rabbit@b", "unknown key"),
        ("cluster_formation.dns.hostname = b:1", "cluster_formation.dns.hostname = 'b:1' has no host name"),
        (
            "cluster_formation.peer_discovery_backend = dsn",
            "is unknown; allowed: classic_config, dns, rabbit_peer_discovery_classic_config, rabbit_peer_discovery_dns, ",
        ),
        (
            "cluster_formation.peer_discovery_backend = dns",
            "dns needs cluster_formation.dns.hostname, a name with the addresses of all nodes",
        ),
        (
            "cluster.secret_file = s\ncluster_formation.peer_discovery_backend = dns\ncluster_formation.dns.hostname = b",
            "rabbitmq.conf:2: dns needs cluster_formation.target_cluster_size_hint, how many nodes there are at first",
        ),
        ("cluster_formation.target_cluster_size_hint = 0", "is out of range; allowed: 1 to 1000 nodes"),
        ("cluster_formation.discovery_retry_limit = 0", "is out of range; allowed: 1 to 1000000 times"),
        ("cluster_formation.discovery_retry_interval = 0", "is out of range; allowed: 1ms to 3600000ms"),
        ("cluster_formation.node_type = tape", "is unknown; allowed: disc, disk, ram"),
        (
            "cluster_partition_handling = pause-minority",
            "is unknown; allowed: ignore, pause_minority, autoheal, pause_if_all_down",
        ),
        (
            "cluster_partition_handling = pause_if_all_down",
            "pause_if_all_down needs cluster_partition_handling.pause_if_all_down.nodes.1, the name of a node",
        ),
        (
            "cluster_partition_handling = pause_if_all_down\n\
             cluster_partition_handling.pause_if_all_down.nodes.1 = rabbit@a",
            "pause_if_all_down needs cluster_partition_handling.pause_if_all_down.recover: ignore or autoheal",
        ),
        ("cluster_partition_handling.pause_if_all_down.recover = pause", "is unknown; allowed: ignore, autoheal"),
        ("cluster_partition_handling.pause_if_all_down.nodes.1 = a", "is not of the form name@host"),
        ("queue_master_locator = min_masters", "is unknown; allowed: client-local, min-masters, random"),
        (
            "cluster.secret_file = s\ncluster.listener.port = 5672",
            "rabbitmq.conf:2: listeners.tcp.default and cluster.listener.port both take port 5672",
        ),
        (
            "cluster.secret_file = s\ndistribution.listener.port_range.min = 5672",
            "rabbitmq.conf:2: listeners.tcp.default and cluster.listener.port both take port 5672",
        ),
        (
            "listeners.tcp.a = 25672\ncluster.secret_file = s",
            "rabbitmq.conf:1: listeners.tcp.a and cluster.listener.port both take port 25672",
        ),
    ] {
        let errors = errors_of(text);
        assert!(errors.len() == 1 && errors[0].contains(error), "{text}: {errors:?}");
    }
    // A single node that was there before there were clusters.
    assert_eq!(config_of("listeners.tcp.a = 25672").listeners[0].port, 25_672);
    assert!(load_text(&with_secret("listeners.tcp.a = ::1:25672\ncluster.listener.ip = 127.0.0.1"), &[]).is_ok());
}

/// What this broker cannot ask is no reason to found a cluster of one by mistake, nor to refuse a node that is to stay one.
#[test]
fn backends_of_plugins_are_for_nodes_that_stay_alone() {
    for name in ["k8s", "rabbit_peer_discovery_k8s", "kubernetes", "consul", "etcd", "aws", "rabbit_peer_discovery_aws"]
    {
        let text = format!("cluster_formation.peer_discovery_backend = {name}");
        let errors = errors_of(&text);
        let begins = "rabbitmq.conf:1: this backend does not exist here: use classic_config with ";
        assert!(errors.len() == 1 && errors[0].starts_with(begins), "{errors:?}");
        let several = with_secret(&format!("{text}\ncluster_formation.target_cluster_size_hint = 3"));
        assert!(errors_of(&several)[0].starts_with("rabbitmq.conf:2: this backend does not exist here"));
        let alone = format!(
            "{text}\ncluster_formation.target_cluster_size_hint = 1\n\
             cluster_formation.classic_config.nodes.1 = rabbit@b\ncluster_formation.dns.hostname = b"
        );
        let config = cluster_of(&alone);
        assert_eq!((config.nodes.len(), config.dns_hostname, config.target_cluster_size_hint), (0, None, Some(1)));
        let alone = oddities_of(&alone);
        let says = "rabbitmq.conf:2: this backend does not exist here; the node stays alone, as ";
        assert!(alone.len() == 1 && alone[0].starts_with(says), "{alone:?}");
    }
}

#[test]
fn what_is_odd_about_the_cluster_warns() {
    for (text, warning) in [
        ("cluster_formation.node_type = ram", "cluster_formation.node_type = 'ram' is as disc: every node keeps"),
        (
            "cluster_formation.dns.hostname = b",
            "cluster_formation.dns.hostname has no effect: it needs cluster_formation.peer_discovery_backend = dns",
        ),
        (
            "cluster_formation.classic_config.nodes.1 = rabbit@a\ncluster_formation.classic_config.nodes.2 = rabbit@a:1",
            "rabbit@a is listed more than once; the first counts",
        ),
        (
            "cluster_formation.peer_discovery_backend = dns\ncluster_formation.dns.hostname = b\n\
             cluster_formation.target_cluster_size_hint = 3\ncluster_formation.classic_config.nodes.1 = rabbit@a",
            "cluster_formation.classic_config.nodes has no effect: it needs cluster_formation.peer_discovery_backend = \
             classic_config",
        ),
        (
            "cluster_formation.k8s.host = b",
            "cluster_formation.k8s.host is ignored: nodes are found with classic_config or",
        ),
        ("cluster_formation.node_cleanup.interval = 9", "is ignored: no node is forgotten by itself"),
    ] {
        let warnings = oddities_of(text);
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{text}: {warnings:?}");
    }
    let twice = cluster_of(
        "cluster_formation.classic_config.nodes.1 = rabbit@a\ncluster_formation.classic_config.nodes.2 = rabbit@a:1",
    );
    assert_eq!(twice.nodes, [seed("rabbit@a", None)]);
}

#[test]
fn a_cookie_is_answered_with_what_takes_its_place() {
    let loaded = load_text("", &[("RABBITMQ_ERLANG_COOKIE", "hunter2")]).unwrap();
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("cluster.secret_file") && !warning.contains("hunter2"), "{warning}");
}

/// What the official image, the cluster operator and the Helm charts mount.
#[test]
fn files_that_containers_of_rabbitmq_mount_start_us() {
    let image = "## DEFAULT SETTINGS ARE NOT MEANT TO BE TAKEN STRAIGHT INTO PRODUCTION\nloopback_users.guest = false\n\
                 log.console = true\nmanagement_agent.disable_metrics_collector = true\n";
    let operator = "cluster_partition_handling = pause_minority\nqueue_master_locator = min-masters\n\
                    disk_free_limit.absolute = 2GB\n\
                    cluster_formation.peer_discovery_backend = rabbit_peer_discovery_k8s\n\
                    cluster_formation.k8s.host = kubernetes.default\ncluster_formation.k8s.address_type = hostname\n\
                    cluster_formation.target_cluster_size_hint = 1\ncluster_name = shop\n\
                    total_memory_available_override_value = 1717986919\n";
    let chart = "default_user = user\ndefault_vhost = /\ndefault_permissions.configure = .*\n\
                 log.file.level = warning\nlog.connection.level = info\nmanagement.tcp.port = 15672\n\
                 prometheus.return_per_object_metrics = false\nssl_options.verify = verify_peer\n\
                 vm_memory_high_watermark.relative = 0.4\n#disk_free_limit.relative = 1.0\nnet_ticktime = 60\n";
    for (text, ignored) in [(image, 1), (operator, 3), (chart, 4)] {
        let loaded = load_text(text, &[]).unwrap();
        assert_eq!(loaded.warnings.len(), ignored, "{:#?}", loaded.warnings);
    }
    assert_eq!(config_of(operator).alarm.disk_free_limit, DiskFreeLimit::Absolute(2_000_000_000));
}

#[test]
fn flags_win_over_environment_over_directory_over_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("rabbitmq.conf");
    fs::write(&path, "heartbeat = 1\nheartbeat = 2\nchannel_max = 2\nframe_max = 8192\nbroker.data_dir = file\n")
        .unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    fs::write(directory.path().join("conf.d/20-b.conf"), "channel_max = 20\n").unwrap();
    fs::write(directory.path().join("conf.d/10-a.conf"), "channel_max = 10\nframe_max = 16384\n").unwrap();
    fs::write(directory.path().join("conf.d/ignored.txt"), "nonsense\n").unwrap();
    let variables = environment_of(&[("BROKER__FRAME_MAX", "32768"), ("RABBITMQ_MNESIA_DIR", "env")]);
    let args = Args { config: Some(path), data_dir: Some("flag".into()), ..Args::default() };
    let config = load(&args, &variables).unwrap().config;
    assert_eq!(config.limits.heartbeat_s, 2);
    assert_eq!(config.limits.channel_max, 20);
    assert_eq!(config.limits.frame_max_bytes, 32_768);
    assert_eq!(config.node.data_dir, Path::new("flag"));
}

#[test]
fn files_include_files_up_to_a_depth() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.conf");
    fs::write(&path, "heartbeat = 1\ninclude b.conf\n").unwrap();
    fs::write(directory.path().join("b.conf"), "heartbeat = 7\n").unwrap();
    let args = Args { config: Some(path.clone()), ..Args::default() };
    assert_eq!(load(&args, &Environment::default()).unwrap().config.limits.heartbeat_s, 7);
    fs::write(&path, "include a.conf\n").unwrap();
    let errors = load(&args, &Environment::default()).unwrap_err().to_string();
    assert!(errors.contains("a.conf:1: include a.conf: files include files more than 8 deep"), "{errors}");
}

#[test]
fn variables_are_put_into_values() {
    let loaded = load_text("cluster_name = a-$(X)-$( Y )$(\n", &[("X", "1"), ("Y", "2 # 3")]).unwrap();
    assert_eq!(loaded.config.cluster.name.as_deref(), Some("a-1-2 # 3$("));
    let errors = load_text("\ncluster_name = $(NOPE)\n", &[]).unwrap_err().to_string();
    assert!(errors.contains("rabbitmq.conf:2: $(NOPE): no such environment variable is set"), "{errors}");
}

#[test]
fn missing_and_binary_files_are_errors() {
    let args = Args { config: Some("/nowhere/x.conf".into()), ..Args::default() };
    let errors = load(&args, &Environment::default()).unwrap_err().to_string();
    assert!(errors.contains("flag --config: cannot read /nowhere/x.conf"), "{errors}");
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.conf");
    fs::write(&path, b"heartbeat = 1\n\xff\xfe").unwrap();
    let errors =
        load(&Args { config: Some(path), ..Args::default() }, &Environment::default()).unwrap_err().to_string();
    assert!(errors.contains("x.conf:2: byte 14 of the file is not UTF-8 text"), "{errors}");
}

#[test]
fn an_advanced_config_is_refused_with_what_it_holds() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("rabbitmq.conf");
    fs::write(&path, "").unwrap();
    fs::write(directory.path().join("advanced.config"), "[{rabbit, [{heartbeat, 1}]}].").unwrap();
    let errors =
        load(&Args { config: Some(path), ..Args::default() }, &Environment::default()).unwrap_err().to_string();
    assert!(errors.contains("advanced.config:1: Erlang terms are not understood"), "{errors}");
    assert!(errors.contains("rabbit.heartbeat"), "{errors}");
}

#[test]
fn secrets_are_never_shown() {
    let loaded = load_text("default_pass = hunter2\n", &[]).unwrap();
    let everything = format!("{:?} {}", loaded, loaded.print());
    assert!(!everything.contains("hunter2"));
    assert!(loaded.print().contains("default_pass = <redacted>"));
    let errors = load_text("default_pass = ''\n", &[]).unwrap_err().to_string();
    assert!(errors.ends_with("rabbitmq.conf:1: default_pass = <redacted> is empty"), "{errors}");
}

#[test]
fn what_is_printed_says_where_it_came_from() {
    let printed = load_text("heartbeat = 5\n", &[("BROKER__CHANNEL_MAX", "9")]).unwrap().print();
    assert!(printed.contains("/rabbitmq.conf:1\n"), "{printed}");
    assert!(printed.contains("channel_max = 9 # environment variable BROKER__CHANNEL_MAX\n"), "{printed}");
    assert!(printed.contains("max_message_size = 134217728 # default\n"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in a file, loading ends, and every error names the file and a line that is there.
    #[test]
    fn any_file_loads_or_gives_errors_with_lines(text in "([a-z_.]{0,12} ?=? ?[^\n]{0,12}\n){0,6}") {
        if let Err(errors) = load_text(&text, &[]) {
            prop_assert!(!errors.0.is_empty());
            for complaint in errors.0 {
                let Origin::File { line, .. } = complaint.origin else { panic!("{complaint}") };
                prop_assert!((1..=text.split('\n').count()).contains(&line));
            }
        }
    }

    /// Any text as the value of any key is read or refused on its line.
    #[test]
    fn any_value_of_any_key_is_read_or_refused(index in 0..KEYS.len(), value in "[^\r\n#$]{1,16}") {
        prop_assume!(!value.trim().is_empty());
        let text = format!("\n{} = {value}\n", KEYS[index].name.replace('$', ""));
        if let Err(errors) = load_text(&text, &[]) {
            let message = errors.to_string();
            prop_assert!(message.contains("rabbitmq.conf:2: "), "{}", message);
        }
    }

    /// Nodes, addresses and modes too.
    #[test]
    fn a_printed_cluster_loads_again(
        names in proptest::collection::vec("[a-z]{1,3}@([a-z.]{1,4}|\\[::[1-9]\\])(:[1-9][0-9]{0,3})?", 0..4),
        host in "([a-z]{1,4}|::1|\\[::1\\]:9)", dns: bool, mode in 0..4_usize, port in 1..=u16::MAX, hint in 1..9_u32,
    ) {
        let modes = ["ignore", "pause_minority", "autoheal", "pause_if_all_down"];
        let mut text = with_secret(&format!(
            "listeners.tcp = none\ncluster.advertised_address = {host}\ncluster.listener.port = {port}\n\
             cluster_partition_handling = {}\ncluster_partition_handling.pause_if_all_down.recover = autoheal\n\
             cluster_partition_handling.pause_if_all_down.nodes.1 = rabbit@a\ncluster_formation.dns.hostname = shop\n\
             cluster_formation.peer_discovery_backend = {}\ncluster_formation.target_cluster_size_hint = {hint}\n",
            modes[mode], if dns { "dns" } else { "classic_config" },
        ));
        for (index, name) in names.iter().enumerate() {
            text.push_str(&format!("cluster_formation.classic_config.nodes.{index} = {name}\n"));
        }
        let first = load_text(&text, &[]).unwrap();
        let again = load_text(&first.print().replace(REDACTED, "guest"), &[]).unwrap();
        prop_assert_eq!(first.config, again.config);
    }

    /// A printed configuration is a file that makes the same configuration again.
    #[test]
    fn what_is_printed_loads_again(
        heartbeat: u16, channels: u16, share in 0.0..=1.0_f64, bytes in 0..(1_u64 << 60), absolute: bool,
        vhost in "[a-z#/ ]{1,8}", port in 1..=u16::MAX, timeout in 100..600_000_u32, on: bool, tag in "[a-z.]{1,5}",
    ) {
        let mut text = format!(
            "heartbeat = {heartbeat}\nchannel_max = {channels}\nvm_memory_high_watermark.relative = {share}\n\
             default_vhost = '{vhost}'\nlisteners.tcp.x = ::1:{port}\nhandshake_timeout = {timeout}\n\
             tcp_listen_options.linger.on = {on}\ndefault_user_tags.{} = true\nlog.console = {on}\n",
            crate::config::document::escaped_segment(&tag),
        );
        if absolute {
            text.push_str(&format!("vm_memory_high_watermark.absolute = {bytes}\ndisk_free_limit.absolute = {bytes}\n"));
        }
        let first = load_text(&text, &[]).unwrap();
        let again = load_text(&first.print().replace(REDACTED, "guest"), &[]).unwrap();
        prop_assert_eq!(first.config, again.config);
    }
}
