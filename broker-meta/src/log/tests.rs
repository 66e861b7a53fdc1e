//! Crashes and faults on a simulated disk, from seeds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::arguments::QueueType;
use broker_core::exchange::ExchangeKind;
use broker_core::field_table::FieldTable;
use broker_core::name::{NodeId, QueueId};
use broker_core::policy::{Policy, PolicyDraft, PolicyValue};
use broker_core::store::disk::{Crash, Disk, Fault, SimDisk};
use broker_core::topology::{Binding, Destination, ExchangeDeclaration, QueueDeclaration};
use proto::meta::{Command, Snapshot};

use super::{LocalCatalog, LogError, Recovery};
use crate::catalog::{Catalog, CatalogEvent, ParameterKey};
use crate::command::{self, VhostUpdate};

const NODE: NodeId = NodeId(1);

fn dir() -> PathBuf {
    PathBuf::from("/data/catalog")
}

fn open(disk: &SimDisk) -> Result<(LocalCatalog, Recovery), LogError> {
    LocalCatalog::open(Arc::new(disk.clone()), &dir(), NODE)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// What a start would find of a catalog: all but the transient, and not the index.
fn durable_part(catalog: &Catalog) -> Snapshot {
    let mut catalog = catalog.clone();
    catalog.apply(catalog.index() + 1, &command::node_starts(NODE));
    let mut snapshot = catalog.to_snapshot();
    snapshot.index = 0;
    snapshot
}

fn random_command(random: &mut Random) -> Command {
    let queue = format!("q{}", random.below(12));
    let exchange = format!("x{}", random.below(4));
    let durable = !random.chance(3);
    match random.below(14) {
        10..14 => random_setting(random),
        0..4 => {
            let exclusive = random.chance(5);
            let declaration = QueueDeclaration {
                name: &queue,
                server_named: false,
                durable,
                exclusive,
                auto_delete: false,
                arguments: FieldTable::EMPTY,
                connection: 9,
            };
            command::declare_queue("/", &declaration, NODE)
        }
        4 => command::delete_queue("/", &queue, None),
        5 => {
            let declaration = ExchangeDeclaration {
                name: &exchange,
                kind: ExchangeKind::Topic,
                durable,
                auto_delete: random.chance(2),
                internal: false,
                arguments: FieldTable::EMPTY,
            };
            command::declare_exchange("/", &declaration)
        }
        6 => command::delete_exchange("/", &exchange, random.chance(2)),
        7 | 8 => command::bind("/", &binding(&exchange, &queue, random)),
        _ => command::unbind("/", &binding(&exchange, &queue, random)),
    }
}

/// A policy, a parameter, or what is said of the vhost.
fn random_setting(random: &mut Random) -> Command {
    let name = format!("s{}", random.below(3));
    let operator = random.chance(3);
    let key =
        ParameterKey { vhost: random.chance(2).then(|| "/".into()), component: "shovel".into(), name: name.clone() };
    let key = if key.vhost.is_none() { ParameterKey { component: String::new(), ..key } } else { key };
    match random.below(6) {
        0 | 1 => {
            let draft = PolicyDraft {
                vhost: "/".into(),
                name,
                operator,
                pattern: format!("[{}]$", random.below(10)),
                apply_to: "all".into(),
                priority: random.below(3) as i64,
                definition: vec![("max-length".into(), PolicyValue::Number(random.below(9) as i64))],
            };
            command::set_policy(&Policy::new(draft).unwrap())
        }
        2 => command::clear_policy("/", &name, operator),
        3 => command::set_parameter(&key, &random.below(9).to_string()),
        4 => command::clear_parameter(&key),
        _ => {
            let queue_type = [None, Some(QueueType::Classic), Some(QueueType::Quorum)][random.below(3) as usize];
            let update = VhostUpdate {
                tracing: Some(random.chance(2)),
                default_queue_type: Some(queue_type),
                ..VhostUpdate::default()
            };
            command::update_vhost("/", update)
        }
    }
}

fn binding(exchange: &str, queue: &str, random: &mut Random) -> Binding {
    let destination = if random.chance(5) {
        Destination::Exchange(format!("x{}", random.below(4)).as_str().into())
    } else {
        Destination::Queue(queue.into())
    };
    Binding {
        source: exchange.into(),
        destination,
        routing_key: Arc::from(if random.chance(2) { &b"a.#"[..] } else { b"b" }),
        arguments: Default::default(),
    }
}

/// One history: starts, proposals, and a machine that goes off at a random moment, a number of times.
fn run(seed: u64) {
    let mut random = Random(seed);
    let mut disk = SimDisk::new(seed);
    // What the next start must find: what was acknowledged last, or that with the proposal that was under way.
    let mut acceptable = vec![durable_part(&Catalog::default())];
    let mut ids = BTreeSet::new();
    for _ in 0..6 {
        disk.stop_at(disk.changes() + 1 + random.below(120));
        if let Ok((mut local, recovery)) = open(&disk) {
            let found = durable_part(local.catalog());
            assert!(acceptable.contains(&found), "seed {seed}: {found:#?} is none of {acceptable:#?}, {recovery:?}");
            acceptable = vec![found];
            work(&mut local, &mut random, &mut acceptable, &mut ids, seed);
        }
        let how = [Crash::LoseAll, Crash::KeepAll, Crash::Torn][random.below(3) as usize];
        disk = disk.crash(how);
    }
}

/// Proposes until the machine goes off.
fn work(
    local: &mut LocalCatalog,
    random: &mut Random,
    acceptable: &mut Vec<Snapshot>,
    ids: &mut BTreeSet<QueueId>,
    seed: u64,
) {
    loop {
        let mut commands: Vec<Command> = (0..1 + random.below(4)).map(|_| random_command(random)).collect();
        if local.catalog().is_empty() {
            commands.insert(0, command::create_vhost("/", "", &[]));
        }
        let mut meant = local.catalog().clone();
        for (at, command) in commands.iter().enumerate() {
            meant.apply(local.next_index + at as u64, command);
        }
        acceptable.push(durable_part(&meant));
        let Ok(outcomes) = local.propose(&commands) else { return };
        let done = acceptable.pop();
        acceptable.clear();
        acceptable.extend(done);
        assert_eq!(durable_part(local.catalog()), acceptable[0], "seed {seed}");
        for event in outcomes.iter().flatten() {
            if let CatalogEvent::QueueDeclared { record, existed: false } = event {
                assert!(ids.insert(record.id), "seed {seed}: {} was used twice", record.id);
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_crashes() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        run(seed);
    }
}

/// A catalog with durable queues q0, q1, …, each proposed by itself, and the states on the way.
fn written(disk: &SimDisk, count: u64) -> (LocalCatalog, Vec<Snapshot>) {
    let (mut local, _) = open(disk).unwrap();
    let mut states = vec![durable_part(local.catalog())];
    local.propose(&[command::create_vhost("/", "", &[])]).unwrap();
    states.push(durable_part(local.catalog()));
    for at in 0..count {
        local.propose(&[declare(&format!("q{at}"), true)]).unwrap();
        states.push(durable_part(local.catalog()));
    }
    (local, states)
}

fn declare(name: &str, durable: bool) -> Command {
    let declaration = QueueDeclaration {
        name,
        server_named: false,
        durable,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::EMPTY,
        connection: 0,
    };
    command::declare_queue("/", &declaration, NODE)
}

fn log_of(disk: &SimDisk) -> PathBuf {
    disk.files().into_iter().find(|file| file.to_string_lossy().contains("log-")).unwrap()
}

#[test]
fn a_flipped_bit_is_never_taken_for_something_else() {
    let (mut refused, mut cut) = (0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let (local, states) = written(&disk, 5);
        drop(local);
        let log = log_of(&disk);
        // Most of the file are zeros ahead of what is written.
        assert!(disk.flip(&log, Random(seed).below(600 * 8)));
        match open(&disk) {
            Ok((local, recovery)) => {
                let found = durable_part(local.catalog());
                let at = states.iter().position(|state| *state == found);
                assert!(at.is_some(), "seed {seed}: a state that never was");
                assert!(at == Some(states.len() - 1) || recovery.torn.is_some(), "seed {seed}: a loss not reported");
                cut += u32::from(at != Some(states.len() - 1));
            }
            Err(LogError::Damaged { file, .. } | LogError::Newer { file, .. }) => {
                assert_eq!(file, log);
                assert!(disk.content(&log).is_some());
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(refused > 25 && cut > 0, "refused {refused}, cut {cut}: the flips did not bite");
}

#[test]
fn damage_names_file_offset_and_what_is_kept() {
    let disk = SimDisk::new(1);
    let (local, _) = written(&disk, 3);
    let kept = local.next_index - 4;
    drop(local);
    let log = log_of(&disk);
    let second = {
        let octets = disk.content(&log).unwrap();
        let starts: Vec<usize> = (0..octets.len() - 4).filter(|&at| octets[at..].starts_with(b"BtCh")).collect();
        assert_eq!(starts.len(), 4);
        starts[1]
    };
    disk.flip(&log, (second as u64 + 30) * 8);
    let error = open(&disk).unwrap_err();
    let LogError::Damaged { file, offset, kept: last, .. } = &error else { panic!("{error}") };
    assert_eq!((file, *offset, *last), (&log, second as u64, kept));
    assert!(error.to_string().contains("is damaged at offset"), "{error}");
}

#[test]
fn a_damaged_or_missing_snapshot_refuses_the_start() {
    let disk = SimDisk::new(1);
    drop(written(&disk, 3));
    // A second start has a snapshot with queues in it.
    drop(open(&disk).unwrap());
    let snapshot = dir().join("snapshot");
    for bit in [3, 70, 100, 200, 400] {
        let disk = disk.crash(Crash::KeepAll);
        assert!(disk.flip(&snapshot, bit));
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(&error, LogError::Damaged { file, .. } | LogError::Newer { file, .. } if *file == snapshot),
            "bit {bit}: {error}"
        );
    }
    let disk = disk.crash(Crash::KeepAll);
    disk.remove(&snapshot).unwrap();
    assert!(matches!(open(&disk), Err(LogError::Damaged { offset: 0, .. })));
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut local, states) = written(&disk, 3);
        disk.fail(Fault::Sync, 1);
        assert!(matches!(local.propose(&[declare("late", true)]), Err(LogError::Fatal { doing: "sync", .. })));
        assert_eq!(Some(&durable_part(local.catalog())), states.last());
        assert!(matches!(local.propose(&[declare("later", true)]), Err(LogError::Failed)));
        drop(local);
        let disk = disk.crash(Crash::Torn);
        let (local, _) = open(&disk).unwrap();
        let mut found = durable_part(local.catalog());
        for vhost in &mut found.vhosts {
            vhost.queues.retain(|queue| queue.queue.as_ref().unwrap().name != "late");
        }
        assert_eq!(Some(&found), states.last(), "seed {seed}");
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_later() {
    let disk = SimDisk::new(1);
    let (mut local, states) = written(&disk, 1);
    disk.set_capacity(Some(disk.used()));
    let many: Vec<Command> = (0..2_000).map(|at| declare(&format!("{}{at}", "n".repeat(60)), true)).collect();
    assert!(matches!(local.propose(&many), Err(LogError::Full { .. })));
    assert_eq!(Some(&durable_part(local.catalog())), states.last());
    // What fits in the space reserved before goes on.
    local.propose(&[declare("small", true)]).unwrap();
    disk.set_capacity(None);
    local.propose(&many).unwrap();
    let expected = durable_part(local.catalog());
    assert_eq!(local.catalog().topology().queue_count(), 2_002);
    let (local, _) = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(durable_part(local.catalog()), expected);
}

#[test]
fn a_long_log_gives_way_to_a_snapshot() {
    let disk = SimDisk::new(1);
    let (mut local, _) = open(&disk).unwrap();
    local.propose(&[command::create_vhost("/", "", &[])]).unwrap();
    let name = "n".repeat(200);
    for round in 0..30 {
        let commands: Vec<Command> =
            (0..100).flat_map(|_| [declare(&name, true), command::delete_queue("/", &name, None)]).collect();
        local.propose(&commands).unwrap();
        let used = disk.used();
        assert!(used < super::LOG_MAX_BYTES + 256 * 1024, "round {round}: {used} octets used");
    }
    let expected = durable_part(local.catalog());
    let (local, recovery) = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(durable_part(local.catalog()), expected);
    assert!(recovery.snapshot_index > 1 << 32);
}

#[test]
fn transient_things_end_with_a_start_and_cost_no_sync() {
    let disk = SimDisk::new(1);
    let (mut local, _) = written(&disk, 1);
    let before = disk.changes();
    local.propose(&[declare("passing", false)]).unwrap();
    assert_eq!(disk.changes(), before);
    assert!(local.catalog().topology().queue("/", "passing").is_some());
    // A durable command takes it along.
    local.propose(&[declare("staying", true)]).unwrap();
    let (local, recovery) = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(recovery.commands, 4);
    let topology = local.catalog().topology();
    assert!(topology.queue("/", "passing").is_none() && topology.queue("/", "staying").is_some());
}

#[test]
fn foreign_files_are_left_alone() {
    let disk = SimDisk::new(1);
    drop(written(&disk, 1));
    drop(disk.create(Path::new("/data/catalog/notes.txt")).unwrap());
    drop(open(&disk).unwrap());
    assert!(disk.content(Path::new("/data/catalog/notes.txt")).is_some());
}

#[test]
fn an_index_that_cannot_be_is_damage() {
    let commands = |index| proto::meta::LogBatch { entries: vec![proto::meta::LogEntry { index, command: None }] };
    for index in [super::format::INDEX_MAX + 1, u64::MAX] {
        let mut log = super::format::log_header(0).to_vec();
        super::format::write_batch(1, &commands(index), &mut log);
        super::format::write_batch(2, &commands(3), &mut log);
        let snapshot = super::format::write_snapshot(&Snapshot { index, ..Snapshot::default() });
        for (name, content) in [("log-0000000000000000", log), ("snapshot", snapshot)] {
            let disk = SimDisk::new(1);
            disk.create_dir(&dir()).unwrap();
            let file = disk.create(&dir().join(name)).unwrap();
            file.allocate(content.len() as u64).unwrap();
            file.write_at(&content, 0).unwrap();
            let error = open(&disk).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("greater than any can be"), "{error}");
        }
    }
}
