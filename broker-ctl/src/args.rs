//! The command line: `brokerctl NOUN VERB`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Operates a running brokerd through the socket in its data directory. Whoever may open the socket is the operator; there is no password.
#[derive(Clone, Debug, Parser)]
#[command(name = "brokerctl", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// How and where to ask.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub noun: Noun,
}

const AFTER_HELP: &str = "\
The broker is found at --socket, else at admin.sock in --data-dir, else in ./data.
Old scripts: `brokerctl compat rabbitmqctl add_vhost v` speaks as rabbitmqctl does; so does a link to brokerctl named rabbitmqctl.

Exit codes: 0 done; 64 wrong command line; 65 bad data, or what is named does not exist; 67 no such user; 69 the broker cannot be
reached or refuses; 70 a fault; 75 no answer in time; 77 not permitted.

Examples:
  brokerctl status
  brokerctl vhost create shop
  printf secret | brokerctl user create ann --tags management
  brokerctl perm set ann '.*' '.*' '.*' -p shop
  brokerctl policy set bounded '^events' '{\"max-length\": 1000}' -p shop --apply-to queues
  brokerctl queue list -p shop -o json
  brokerctl definitions export > broker.json
  brokerctl cluster status";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Data directory of the broker [default: ./data]
    #[arg(long, global = true, value_name = "DIR", env = "BROKERCTL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its socket, where it is not in the data directory
    #[arg(long, global = true, value_name = "PATH", env = "BROKERCTL_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Form of lists
    #[arg(long, short, global = true, value_name = "FORM", default_value = "table")]
    pub output: Form,
    /// Vhost that is meant; lists without it show all
    #[arg(long, short = 'p', global = true, value_name = "VHOST")]
    pub vhost: Option<String>,
    /// Columns of a list, with commas between them
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Seconds to wait for the broker
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Form of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns.
    Table,
    /// A JSON list of objects.
    Json,
}

/// What it is about.
#[derive(Clone, Debug, Subcommand)]
pub enum Noun {
    /// Shows the node: version, counts, alarms, listeners
    Status,
    /// Definitions files: users, vhosts, policies, queues and bindings as JSON that RabbitMQ reads too
    #[command(subcommand)]
    Definitions(Definitions),
    /// Policies and operator policies
    #[command(subcommand)]
    Policy(Policy),
    /// Virtual hosts and their limits
    #[command(subcommand)]
    Vhost(Vhost),
    /// Users, their passwords, tags and limits
    #[command(subcommand)]
    User(User),
    /// Permissions of users in vhosts
    #[command(subcommand)]
    Perm(Perm),
    /// Runtime parameters of components, and global ones
    #[command(subcommand)]
    Param(Param),
    /// Queues
    #[command(subcommand)]
    Queue(Queue),
    /// Exchanges
    #[command(subcommand)]
    Exchange(ListOnly),
    /// Bindings
    #[command(subcommand)]
    Binding(ListOnly),
    /// Client connections
    #[command(subcommand)]
    Connection(Connection),
    /// Channels of client connections
    #[command(subcommand)]
    Channel(ListOnly),
    /// Consumers
    #[command(subcommand)]
    Consumer(ListOnly),
    /// Limits of memory and disk, at which publishers are blocked
    #[command(subcommand)]
    Alarm(Alarm),
    /// The cluster: which nodes belong to it, joining and leaving it, and what to do when too many are lost
    #[command(subcommand)]
    Cluster(Cluster),
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(Node),
    /// Speaks as rabbitmqctl: `brokerctl compat rabbitmqctl COMMAND ...`
    #[command(disable_help_flag = true)]
    Compat {
        /// Tool and command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Verbs of what can only be listed.
#[derive(Clone, Debug, Subcommand)]
pub enum ListOnly {
    /// Lists them
    List,
}

/// Verbs of definitions.
#[derive(Clone, Debug, Subcommand)]
pub enum Definitions {
    /// Writes all definitions to a file or to standard output
    Export {
        /// The file; `-` or nothing for standard output
        file: Option<PathBuf>,
    },
    /// Merges a file into what is there: users, permissions, policies and parameters are overwritten; queues and exchanges that exist stay
    Import {
        /// The file; `-` for standard input
        file: PathBuf,
    },
}

/// Verbs of policies.
#[derive(Clone, Debug, Subcommand)]
pub enum Policy {
    /// Creates a policy or replaces it
    Set {
        /// Its name
        name: String,
        /// Regular expression over the names of queues and exchanges
        pattern: String,
        /// What is set, as JSON: '{"max-length": 1000}'
        definition: String,
        /// The higher one wins
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i64,
        /// all, queues, exchanges, classic_queues, quorum_queues or streams
        #[arg(long, default_value = "all")]
        apply_to: String,
        /// An operator policy: it bounds what policies and arguments set
        #[arg(long)]
        operator: bool,
    },
    /// Deletes a policy
    Delete {
        /// Its name
        name: String,
        /// An operator policy
        #[arg(long)]
        operator: bool,
    },
    /// Lists policies
    List {
        /// Operator policies
        #[arg(long)]
        operator: bool,
    },
}

/// Verbs of vhosts.
#[derive(Clone, Debug, Subcommand)]
pub enum Vhost {
    /// Creates a vhost
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Tags, with commas between them
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// classic or quorum: type of durable queues declared without one
        #[arg(long, default_value = "")]
        default_queue_type: String,
    },
    /// Deletes a vhost with all it holds
    Delete {
        /// Its name
        name: String,
    },
    /// Lists vhosts
    List,
    /// Changes a vhost; what is not said stays
    Update {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Tags, with commas between them
        #[arg(long)]
        tags: Option<String>,
        /// classic or quorum
        #[arg(long)]
        default_queue_type: Option<String>,
        /// Whether messages are copied to amq.rabbitmq.trace
        #[arg(long)]
        trace: Option<Switch>,
    },
    /// Limits of a vhost
    #[command(subcommand)]
    Limits(Limits),
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Verbs of limits.
#[derive(Clone, Debug, Subcommand)]
pub enum Limits {
    /// Sets limits; those that are not said are lifted
    Set {
        /// The vhost or user
        name: String,
        /// As JSON: '{"max-connections": 100}'
        limits: String,
    },
    /// Lifts all limits
    Clear {
        /// The vhost or user
        name: String,
    },
    /// Lists limits
    List,
}

/// Verbs of users.
#[derive(Clone, Debug, Subcommand)]
pub enum User {
    /// Creates a user; the password is read from standard input or a file
    Create {
        /// Its name
        name: String,
        /// administrator, monitoring, policymaker, management, with commas between them
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// Where its password comes from
        #[command(flatten)]
        password: Password,
    },
    /// Deletes a user with its permissions
    Delete {
        /// Its name
        name: String,
    },
    /// Changes a password; it is read from standard input or a file
    Passwd {
        /// The user
        name: String,
        /// Where its password comes from
        #[command(flatten)]
        password: Password,
    },
    /// Replaces a user's tags; without any takes them all
    Tags {
        /// The user
        name: String,
        /// The tags
        tags: Vec<String>,
    },
    /// Lists users
    List,
    /// Limits of a user
    #[command(subcommand)]
    Limits(Limits),
}

/// Where a password comes from. Never from the command line, which every process can read.
#[derive(Clone, Debug, Args)]
pub struct Password {
    /// File that holds the password; a line break at its end does not count [default: standard input]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// No login with a password
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
}

/// Verbs of permissions.
#[derive(Clone, Debug, Subcommand)]
pub enum Perm {
    /// Gives a user permissions in a vhost: CONFIGURE WRITE READ, or with --topic WRITE READ; regular expressions
    Set {
        /// The user
        user: String,
        /// CONFIGURE, or WRITE of topic permissions
        first: String,
        /// WRITE, or READ of topic permissions
        second: String,
        /// READ
        third: Option<String>,
        /// Topic permissions: over routing keys of this exchange
        #[arg(long, value_name = "EXCHANGE")]
        topic: Option<String>,
    },
    /// Takes a user's permissions in a vhost
    Clear {
        /// The user
        user: String,
        /// Topic permissions: of this exchange, or of all without a name
        #[arg(long, value_name = "EXCHANGE", num_args = 0..=1)]
        topic: Option<Option<String>>,
    },
    /// Lists permissions
    List {
        /// Topic permissions
        #[arg(long)]
        topic: bool,
        /// Only this user's
        #[arg(long)]
        user: Option<String>,
    },
}

/// Verbs of parameters.
#[derive(Clone, Debug, Subcommand)]
pub enum Param {
    /// Sets a parameter: COMPONENT NAME JSON, or with --global NAME JSON
    Set {
        /// COMPONENT, or NAME of a global parameter
        first: String,
        /// NAME, or JSON of a global parameter
        #[arg(allow_negative_numbers = true)]
        second: String,
        /// JSON
        #[arg(allow_negative_numbers = true)]
        third: Option<String>,
        /// A global parameter
        #[arg(long)]
        global: bool,
    },
    /// Deletes a parameter: COMPONENT NAME, or with --global NAME
    Delete {
        /// Component and name
        #[arg(required = true, num_args = 1..=2)]
        words: Vec<String>,
        /// A global parameter
        #[arg(long)]
        global: bool,
    },
    /// Lists parameters
    List {
        /// Global ones
        #[arg(long)]
        global: bool,
    },
}

/// Verbs of queues.
#[derive(Clone, Debug, Subcommand)]
pub enum Queue {
    /// Lists queues
    List,
    /// Throws a queue's ready messages away
    Purge {
        /// Its name
        name: String,
    },
    /// Deletes a queue with its messages
    Delete {
        /// Its name
        name: String,
        /// Only without consumers
        #[arg(long)]
        if_unused: bool,
        /// Only without ready messages
        #[arg(long)]
        if_empty: bool,
    },
}

/// Verbs of connections.
#[derive(Clone, Debug, Subcommand)]
pub enum Connection {
    /// Lists connections
    List,
    /// Closes connections: one by its pid or number, those of a user, of a vhost (-p), or all
    Close {
        /// pid or number as `connection list` shows it
        connection: Option<String>,
        /// Those of this user
        #[arg(long)]
        user: Option<String>,
        /// All, or all of the vhost
        #[arg(long)]
        all: bool,
        /// What the client is told
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Verbs of clusters.
#[derive(Clone, Debug, Subcommand)]
pub enum Cluster {
    /// Shows the cluster as this node sees it: members, who leads, versions, alarms, listeners
    #[command(after_help = "Examples:\n  brokerctl cluster status\n  brokerctl cluster status -o json")]
    Status,
    /// Shows which node sees which: a row for each node, with what it last said of itself
    #[command(
        after_help = "yes: it sees that one; NO: it does not; ?: this node has not heard from it, so nobody knows.\n\nExample:\n  brokerctl cluster partitions"
    )]
    Partitions,
    /// Sets the name of the cluster, which clients and tools are told
    Name {
        /// The name
        name: String,
    },
    /// Has this node join the cluster of another one. It starts again; what it has is set aside in its data directory, not deleted
    #[command(after_help = JOIN_HELP)]
    Join {
        /// Any node of the cluster: HOST, HOST:PORT (its cluster.listener.port, 25672 by default) or rabbit@HOST
        node: String,
    },
    /// Has this node leave its cluster. Its queues are gone with it; its data is set aside in its data directory, not deleted
    #[command(after_help = LEAVE_HELP)]
    Leave {
        /// End afterwards instead of starting again as a blank node
        #[arg(long)]
        stop: bool,
        /// Its queues may go
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// Takes a node that does not run out of the cluster for good, with its queues
    #[command(
        after_help = "A node that was forgotten does not come back by itself: start it with an empty data directory, and it joins as a new one.\n\nExample:\n  brokerctl cluster forget rabbit@c"
    )]
    Forget {
        /// Its name, as `cluster status` shows it
        name: String,
    },
    /// Waits until so many nodes of the cluster run, this one among them
    #[command(
        after_help = "It waits as long as --timeout says (60 seconds), also for a broker that is not there yet.\n\nExample:\n  brokerctl cluster await 3 --timeout 300"
    )]
    Await {
        /// So many
        #[arg(value_parser = clap::value_parser!(u64).range(1..=50))]
        nodes: u64,
    },
    /// Has a node whose cluster has lost its majority for good form a new cluster of itself
    #[command(after_help = FORCE_BOOT_HELP)]
    ForceBoot {
        /// What only the lost nodes have may be lost
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// The secret by which the nodes of a cluster know each other
    #[command(subcommand)]
    Secret(Secret),
}

const JOIN_HELP: &str = "\
Both nodes need the same secret (cluster.secret_file). The node is given a number by the cluster and starts again, with the same
process number; vhosts, users, queues and all else are those of the cluster from then on. What it had is kept as catalog.before-join and
store.before-join in its data directory. A node that belongs to a cluster with others has to leave it first.

Examples:
  brokerctl cluster join a.example.org
  brokerctl cluster join rabbit@a --data-dir /var/lib/broker";

const LEAVE_HELP: &str = "\
The others take over nothing: queues that live on this node are gone for the cluster, so empty or move them first; `brokerctl node drain` keeps
clients away meanwhile. Afterwards the node starts again, with the same process number, as a blank one that belongs to no other, whatever nodes
its configuration lists; with --stop it ends, and is blank at its next start. What it had is kept as catalog.before-leave and store.before-leave.

Examples:
  brokerctl cluster leave --yes
  brokerctl cluster leave --yes --stop";

const FORCE_BOOT_HELP: &str = "\
For the last way out: more than half of the nodes are gone and will not come back. This node goes on alone, with all that its own log holds, as
a new cluster with a new identity; nodes of the old one are not let in again, so that nothing they know differently comes back. Lost are
the queues of the other nodes with their messages, and changes (new queues, users, ...) that did not reach this node.
It works while brokerd runs, waits for the others, or is stopped; then it is done at the next start. What was lost is written to
force-boot.txt in the data directory, and the old catalog is kept as catalog.before-force-boot.
Do it on one node only. The others join it with an empty data directory.

Example:
  brokerctl cluster force-boot --yes --data-dir /var/lib/broker";

/// Verbs of secrets.
#[derive(Clone, Debug, Subcommand)]
pub enum Secret {
    /// Makes a file with a new secret that only its owner may read. It is not shown
    #[command(
        after_help = "Copy the file to every node, where it must belong to brokerd's user, and name it with cluster.secret_file.\n\nExample:\n  brokerctl cluster secret new /etc/broker/secret"
    )]
    New {
        /// The file; it must not be there
        file: PathBuf,
    },
}

/// Verbs of nodes.
#[derive(Clone, Debug, Subcommand)]
pub enum Node {
    /// Lists the nodes of the cluster
    List,
    /// Closes this node's client listeners and connections, and has another node lead. It stays in the cluster, and its queues can be reached through others
    #[command(
        after_help = "For an upgrade or a restart: clients move to other nodes first. It lasts until `brokerctl node revive` or the next start.\n\nExample:\n  brokerctl node drain --data-dir /var/lib/broker"
    )]
    Drain,
    /// Has a node that was drained serve clients again
    Revive,
}

/// Verbs of alarms.
#[derive(Clone, Debug, Subcommand)]
pub enum Alarm {
    /// Shows limits and what is used
    List,
    /// Changes limits until the next start: lower ones set an alarm, higher ones clear it
    Set {
        /// Memory of the broker above which publishers are blocked: 0.4 (a share) or 2GB
        #[arg(long, value_name = "SHARE|SIZE")]
        memory_watermark: Option<String>,
        /// Free disk below which publishers are blocked: 2GB, or mem:1.0 (a multiple of memory)
        #[arg(long, value_name = "SIZE|mem:FACTOR")]
        disk_limit: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn patterns_and_priorities_may_begin_with_anything() {
        let cli = Cli::try_parse_from(["brokerctl", "perm", "set", "u", "^-", "", ".*", "-p", "v"]).unwrap();
        assert_eq!(cli.global.vhost.as_deref(), Some("v"));
        let Noun::Perm(Perm::Set { first, second, third, .. }) = cli.noun else { unreachable!() };
        assert_eq!((&*first, &*second, third.as_deref()), ("^-", "", Some(".*")));
        Cli::try_parse_from(["brokerctl", "param", "set", "limit", "-5", "--global"]).unwrap();
        Cli::try_parse_from(["brokerctl", "policy", "set", "p", "", "{}", "--priority", "-5"]).unwrap();
        assert!(
            Cli::try_parse_from(["brokerctl", "user", "create", "u", "password"]).is_err(),
            "never on the command line"
        );
    }
}
