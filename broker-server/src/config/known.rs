//! Keys that are RabbitMQ's but not ours, why they mean nothing here, and the nearest name to a mistyped key.

use std::sync::LazyLock;

/// Every key of RabbitMQ 3.10 to 4, as patterns.
static RABBITMQ_KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("rabbitmq_keys.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
});

/// How much of a mistyped key is compared, in characters: the comparison takes time in proportion.
const MAX_COMPARED: usize = 255;

/// Why keys with this beginning mean nothing here. The longest beginning that fits speaks.
const REASONS: &[(&str, &str)] = &[
    ("", "this broker has nothing to set here"),
    ("amqp1_0", "this broker speaks AMQP 0-9-1 only"),
    ("auth_backends", "the internal user database is the only one in this version"),
    ("auth_cache", "the internal user database is the only one in this version"),
    ("auth_http", "the internal user database is the only one in this version"),
    ("auth_ldap", "the internal user database is the only one in this version"),
    ("auth_oauth2", "the internal user database is the only one in this version"),
    ("background_gc_enabled", "there is no Erlang garbage collector here"),
    ("background_gc_target_interval", "there is no Erlang garbage collector here"),
    ("anonymous_login_pass", "this broker speaks AMQP 0-9-1 only"),
    ("anonymous_login_user", "this broker speaks AMQP 0-9-1 only"),
    ("classic_queue", "there is one storage format"),
    ("cluster_formation.aws", "nodes are found with classic_config or dns"),
    ("cluster_formation.consul", "nodes are found with classic_config or dns"),
    ("cluster_formation.etcd", "nodes are found with classic_config or dns"),
    ("cluster_formation.internal_lock_retries", "no lock is taken to found a cluster"),
    ("cluster_formation.k8s", "nodes are found with classic_config or dns"),
    ("cluster_formation.lock_retry_limit", "no lock is taken to found a cluster"),
    ("cluster_formation.lock_retry_timeout", "no lock is taken to found a cluster"),
    ("cluster_formation.node_cleanup", "no node is forgotten by itself"),
    ("cluster_formation.proxy", "nodes are found with classic_config or dns"),
    ("cluster_formation.randomized_startup_delay_range", "nodes may start at the same time"),
    ("cluster_formation.registration", "nodes are found with classic_config or dns, and registered nowhere"),
    ("cluster_keepalive_interval", "this version runs a single node"),
    ("collect_statistics", "statistics are always collected"),
    ("collect_statistics_interval", "statistics are always collected"),
    ("credential_validator", "passwords are not validated in this version"),
    ("default_limits", "a vhost has no limits until some are set for it"),
    ("default_policies", "policies do not exist in this version"),
    ("default_queue_type", "classic queues are the only kind"),
    ("default_users", "only default_user is created in this version"),
    ("default_worker_pool_size", "there is no Erlang worker pool here"),
    ("definitions", "definitions can be imported from a local path only"),
    ("delegate_count", "there are no Erlang delegates here"),
    ("erlang", "there is no Erlang virtual machine here"),
    ("federation", "federation does not exist in this version"),
    ("hipe_compile", "there is no Erlang virtual machine here"),
    ("link_max_per_session", "this broker speaks AMQP 0-9-1 only"),
    ("log", "there is one log to the console and one to a file, with fixed forms"),
    ("log.file.rotation", "rotate with logrotate and SIGHUP, which reopens the file"),
    ("management", "the HTTP API does not exist in this version"),
    ("management_agent", "the HTTP API does not exist in this version"),
    ("max_channels_per_connection", "its name here is channel_max"),
    ("max_connections", "its name here is connection_max"),
    ("memory_monitor_interval", "memory is looked at every second, faster near the watermark"),
    ("message_interceptors", "message interceptors do not exist in this version"),
    ("message_store_shutdown_timeout", "the store closes without a time limit"),
    ("mirroring_sync_batch_size", "this version runs a single node"),
    ("mirroring_sync_max_throughput", "this version runs a single node"),
    ("mnesia_table_loading_retry_limit", "there is no Mnesia here"),
    ("mnesia_table_loading_retry_timeout", "there is no Mnesia here"),
    ("mqtt", "this broker speaks AMQP 0-9-1 only"),
    ("net_ticktime", "this version runs a single node"),
    ("num_acceptors", "connections are accepted by the shards"),
    (
        "password_hashing_module",
        "new passwords are hashed in one way; imported SHA-256 and SHA-512 hashes are verified as they are",
    ),
    ("prometheus", "the metrics listener does not exist in this version"),
    ("proxy_protocol", "the proxy protocol does not exist in this version"),
    ("queue_index_embed_msgs_below", "there is one storage format"),
    ("queue_leader_locator", "this version runs a single node"),
    ("quorum_queue", "classic queues are the only kind"),
    ("raft", "there are no quorum queues here"),
    ("reverse_dns_lookups", "host names of clients are not looked up"),
    ("session_max_per_connection", "this broker speaks AMQP 0-9-1 only"),
    ("shovel", "shovels do not exist in this version"),
    ("socket_writer", "there is no Erlang garbage collector here"),
    ("ssl_allow_poodle_attack", "the versions this is about are never spoken"),
    ("ssl_options", "this option has no meaning outside Erlang, or for the cipher suites spoken here"),
    ("ssl_options.cacerts", "certificates are read from files: cacertfile"),
    ("ssl_options.cert", "certificates are read from files: certfile"),
    ("ssl_options.key", "keys are read from files: keyfile"),
    ("stomp", "this broker speaks AMQP 0-9-1 only"),
    ("stream", "classic queues are the only kind"),
    ("sysmon_handler", "there is no Erlang virtual machine here"),
    ("tcp_listen_options", "this socket option has no meaning outside Erlang"),
    ("trust_store", "TLS does not exist in this version"),
    ("vhost_restart_strategy", "vhosts do not fail one by one"),
    ("vm_memory_calculation_strategy", "memory is always the resident size of the process"),
    ("vm_memory_high_watermark_paging_ratio", "messages are paged out from the start, not at a ratio"),
    ("web_mqtt", "this broker speaks AMQP 0-9-1 only"),
    ("web_stomp", "this broker speaks AMQP 0-9-1 only"),
];

/// Why RabbitMQ's key of these segments means nothing here, or `None` if it is no key of RabbitMQ.
#[must_use]
pub fn ignored(segments: &[String]) -> Option<&'static str> {
    RABBITMQ_KEYS.iter().any(|pattern| matches(pattern, segments)).then(|| reason(&segments.join(".")))
}

/// Whether a key of these segments fits `pattern`: `$name` is one segment, a final `**` one or more.
#[must_use]
pub fn matches(pattern: &str, segments: &[String]) -> bool {
    let mut given = segments.iter();
    for expected in pattern.split('.') {
        match given.next() {
            Some(_) if expected == "**" => return true,
            Some(_) if expected.starts_with('$') => {}
            Some(segment) if segment == expected => {}
            _ => return false,
        }
    }
    given.next().is_none()
}

/// The key among ours and RabbitMQ's that looks most like `segments`, names filled in where a pattern has them.
#[must_use]
pub fn nearest<'a>(segments: &[String], ours: impl Iterator<Item = &'a str>) -> String {
    let wanted: String = segments.join(".").chars().take(MAX_COMPARED).collect();
    let candidates = ours.chain(RABBITMQ_KEYS.iter().copied()).filter(|pattern| !pattern.ends_with("**"));
    let filled = candidates.map(|pattern| filled_in(pattern, segments));
    filled.min_by_key(|name| strsim::damerau_levenshtein(name, &wanted)).unwrap_or_default()
}

fn reason(key: &str) -> &'static str {
    let fitting = REASONS.iter().filter(|(beginning, _)| begins(key, beginning));
    fitting.max_by_key(|(beginning, _)| beginning.len()).map_or("", |(_, reason)| reason)
}

/// Whether `beginning` is a whole number of segments of `key`, or ends in the `_` of a family of keys.
fn begins(key: &str, beginning: &str) -> bool {
    let rest = key.strip_prefix(beginning);
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.starts_with('.') || beginning.is_empty() || beginning.ends_with('_')
    })
}

fn filled_in(pattern: &str, segments: &[String]) -> String {
    let parts = pattern.split('.').enumerate().map(|(index, part)| match segments.get(index) {
        Some(given) if part.starts_with('$') => given.as_str(),
        _ => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::document::segments;

    #[test]
    fn patterns_match_names_and_tails() {
        assert!(matches("listeners.tcp.$name", &segments("listeners.tcp.local")));
        assert!(!matches("listeners.tcp.$name", &segments("listeners.tcp")));
        assert!(!matches("listeners.tcp.$name", &segments("listeners.tcp.a.b")));
        assert!(matches("mqtt.**", &segments("mqtt.listeners.tcp.default")));
        assert!(!matches("mqtt.**", &segments("mqtt")));
    }

    #[test]
    fn a_key_of_rabbitmq_has_a_reason() {
        assert_eq!(ignored(&segments("mqtt.prefetch")), Some("this broker speaks AMQP 0-9-1 only"));
        assert_eq!(ignored(&segments("log.file.rotation.size")).map(|r| r.contains("logrotate")), Some(true));
        assert_eq!(ignored(&segments("ssl_options.dhfile")).map(|r| r.contains("cipher suites")), Some(true));
        assert_eq!(ignored(&segments("hearbeat")), None);
    }

    #[test]
    fn every_listed_key_is_its_own_match() {
        for pattern in RABBITMQ_KEYS.iter() {
            assert!(matches(pattern, &segments(pattern)), "{pattern}");
        }
        assert!(RABBITMQ_KEYS.len() > 200);
    }

    /// Each beginning with a reason is that of a key, so that none is a slip of the pen.
    #[test]
    fn every_reason_is_that_of_a_key() {
        for (beginning, _) in REASONS {
            assert!(RABBITMQ_KEYS.iter().any(|key| begins(key, beginning)), "{beginning}");
        }
    }

    #[test]
    fn the_nearest_key_is_found() {
        let ours = || ["broker.shards"].into_iter();
        assert_eq!(nearest(&segments("hearbeat"), ours()), "heartbeat");
        assert_eq!(nearest(&segments("listener.tcp.local"), ours()), "listeners.tcp.local");
        assert_eq!(nearest(&segments("broker.shard"), ours()), "broker.shards");
        assert_eq!(nearest(&segments("vm_memory_high_watermark.relativ"), ours()), "vm_memory_high_watermark.relative");
    }
}
