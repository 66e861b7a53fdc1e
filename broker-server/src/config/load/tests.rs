//! Configuration files, flags and environment together: which wins, and what each mistake says.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use rustls::CipherSuite;
use tempfile::TempDir;

use super::*;
use crate::config::tls::{AlternativeName, LoginFrom, TlsVersion};
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
    for (text, ignored) in [(image, 1), (operator, 6), (chart, 4)] {
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
