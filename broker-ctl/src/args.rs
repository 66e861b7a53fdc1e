//! The command line: `brokerctl NOUN VERB`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Operates a running brokerd: through the socket in its data directory, where whoever may open it is the operator, or elsewhere over TLS as a user of the broker.
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
The broker is found at --socket, at admin.sock in --data-dir, with --context or at --host; else with BROKERCTL_SOCKET, BROKERCTL_DATA_DIR,
BROKERCTL_HOST or BROKERCTL_CONTEXT; else in the context that `brokerctl context select` has chosen; else in ./data.
Old scripts: `brokerctl compat rabbitmqctl add_vhost v` speaks as rabbitmqctl does; so does a link to brokerctl named rabbitmqctl.

Exit codes: 0 done; 64 wrong command line; 65 bad data, or what is named does not exist; 67 no such user; 69 the broker cannot be
reached or refuses, or a check failed; 70 a fault; 75 no answer in time; 77 not permitted; 78 the file of contexts is wrong.

Examples:
  brokerctl status
  brokerctl vhost create shop
  printf secret | brokerctl user create ann --tags management
  brokerctl perm set ann '.*' '.*' '.*' -p shop
  brokerctl policy set bounded '^events' '{\"max-length\": 1000}' -p shop --apply-to queues
  brokerctl queue list -p shop -o json
  brokerctl definitions export > broker.json
  brokerctl cluster status
  brokerctl context add shop --host a.example.org,b.example.org --login ann --ca-file ca.pem
  brokerctl queue list --context shop";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Which broker is asked.
    #[command(flatten)]
    pub place: Where,
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

/// Which broker is asked: one on this machine, or one elsewhere. Nothing of it is secret.
#[derive(Clone, Debug, Default, Args)]
pub struct Where {
    /// Data directory of a broker on this machine [env: BROKERCTL_DATA_DIR] [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its socket, where it is not in the data directory [env: BROKERCTL_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Named broker of `brokerctl context` [env: BROKERCTL_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["socket", "data_dir"])]
    pub context: Option<String>,
    /// Broker elsewhere, which is asked over TLS: HOST or HOST:PORT of its broker.admin.listener; several are tried in order [env: BROKERCTL_HOST]
    #[arg(long, visible_alias = "node", global = true, value_name = "HOST", value_delimiter = ',', conflicts_with_all = ["socket", "data_dir"], help_heading = ELSEWHERE)]
    pub host: Vec<String>,
    /// User to log in as there [env: BROKERCTL_USER]
    #[arg(long, global = true, value_name = "USER", help_heading = ELSEWHERE)]
    pub login: Option<String>,
    /// File that holds the user's password; without one it is asked for on the terminal [env: BROKERCTL_PASSWORD_FILE, BROKERCTL_PASSWORD]
    #[arg(long, global = true, value_name = "FILE", help_heading = ELSEWHERE)]
    pub login_password_file: Option<PathBuf>,
    /// Certificates of the authorities that the broker's must come from, PEM [env: BROKERCTL_CA_FILE] [default: those of the machine]
    #[arg(long, global = true, value_name = "FILE", help_heading = ELSEWHERE)]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show, where the broker asks for one, PEM [env: BROKERCTL_CERTIFICATE]
    #[arg(long, global = true, value_name = "FILE", help_heading = ELSEWHERE)]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM [env: BROKERCTL_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = ELSEWHERE)]
    pub key: Option<PathBuf>,
    /// Name in the broker's certificate, if it is not the host [env: BROKERCTL_SERVER_NAME]
    #[arg(long, global = true, value_name = "NAME", help_heading = ELSEWHERE)]
    pub server_name: Option<String>,
}

const ELSEWHERE: &str = "Options for a broker elsewhere";

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
    /// Whether a node is as it should be: code 0 if so, 69 if not
    #[command(subcommand)]
    Check(Check),
    /// Brokers by name: where they are, and who logs in
    #[command(subcommand)]
    Context(Context),
    /// Writes a script that completes command lines in a shell
    #[command(visible_alias = "completions", after_help = COMPLETION_HELP)]
    Completion {
        /// The shell
        shell: Shell,
    },
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

/// Verbs of checks.
#[derive(Clone, Debug, Subcommand)]
pub enum Check {
    /// The node serves: it is up, not about to stop, and in contact with the catalog of its cluster. Takes no login
    Running {
        /// Goes on, and tells every change
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// The same, and clients are let in: it is neither drained nor paused. Takes no login
    Ready {
        /// Goes on, and tells every change
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// The node's main loop turns, whatever else. Takes no login
    Live {
        /// Goes on, and tells every change
        #[arg(long, short = 'w')]
        watch: bool,
    },
    /// No alarm is set on any node that runs
    Alarms,
    /// No alarm is set on this node
    LocalAlarms,
    /// The node sees a majority of its cluster
    Majority,
    /// The node listens on a port
    Port {
        /// The port
        port: u16,
    },
    /// The node listens for a protocol
    Protocol {
        /// amqp, amqps or admin/ssl
        name: String,
    },
}

/// Verbs of contexts.
#[derive(Clone, Debug, Subcommand)]
pub enum Context {
    /// Adds a context, or changes one: the options of the command line are kept under its name, and what is not said stays
    #[command(visible_alias = "set", after_help = CONTEXT_HELP)]
    Add {
        /// Its name
        name: String,
        /// It is the one from now on where none is named
        #[arg(long)]
        select: bool,
    },
    /// Has a context be the one where none is named
    #[command(visible_alias = "use")]
    Select {
        /// Its name
        name: String,
    },
    /// Lists contexts
    List,
    /// Shows a context, without a password it may have
    Show {
        /// Its name [default: the selected one]
        name: Option<String>,
    },
    /// Deletes a context
    Delete {
        /// Its name
        name: String,
    },
}

const COMPLETION_HELP: &str = "\
Examples:
  brokerctl completion bash > ~/.local/share/bash-completion/completions/brokerctl
  brokerctl completion zsh > \"${fpath[1]}/_brokerctl\"
  brokerctl completion fish > ~/.config/fish/completions/brokerctl.fish";

const CONTEXT_HELP: &str = "\
Contexts are kept in brokerctl/config.toml in $XDG_CONFIG_HOME, or in ~/.config. No password is written there; name a file that holds it, or type it
each time.

Examples:
  brokerctl context add shop --host a.example.org,b.example.org:15681 --login ann --login-password-file ~/.shop --ca-file ca.pem --select
  brokerctl context add here --data-dir /var/lib/broker";

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
