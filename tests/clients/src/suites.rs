//! The suites: where each comes from, how it is run, and for how long at most.

use std::time::Duration;

/// A client's suite.
#[derive(Debug)]
pub struct Suite {
    /// Its name here.
    pub name: &'static str,
    /// The package and version that it comes from; `install` pins them.
    pub source: &'static str,
    /// How it is run.
    pub program: Program,
    /// What it needs in the broker's configuration.
    pub conf: &'static str,
    /// Environment variables that it reads.
    pub environment: &'static [(&'static str, &'static str)],
    /// After this time it is cut off.
    pub limit: Duration,
}

/// How a suite is run. Directories are those that `install` made.
#[derive(Debug)]
pub enum Program {
    /// pytest with these arguments, in a directory of `python-suites`, with the packages of an environment.
    Pytest {
        /// The environment.
        packages: &'static str,
        /// The directory.
        directory: &'static str,
        /// Paths of tests, and options.
        arguments: &'static [&'static str],
    },
    /// Every test of a compiled Go test program, each in a process of its own, so that a panic costs one test.
    Go {
        /// A directory of `go-suites`.
        directory: &'static str,
    },
    /// The test programs that cargo builds in a directory of `rust-suites`, with these options.
    Cargo {
        /// The directory.
        directory: &'static str,
        /// Options of `cargo test`.
        arguments: &'static [&'static str],
    },
    /// Files of tests for node's own runner.
    Node {
        /// A directory of `node-suites`.
        directory: &'static str,
        /// The files.
        files: &'static [&'static str],
    },
    /// The Celery application of this crate.
    Celery,
}

const LOGIN: &[(&str, &str)] = &[
    ("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"),
    ("AMQP_ADDR", "amqp://guest:guest@127.0.0.1:5672/%2f"),
    ("RABBITMQ_HOST", "localhost"),
    ("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/%2f"),
    ("URL", "amqp://guest:guest@localhost:5672"),
];

const AMQPSTORM: &[(&str, &str)] = &[
    ("AMQP_HOST", "localhost"),
    ("AMQP_USERNAME", "guest"),
    ("AMQP_PASSWORD", "guest"),
    ("AMQP_URI", "amqp://guest:guest@localhost:5672/%2F"),
    ("AMQP_HTTP_URL", "http://localhost:15672"),
    ("AMQP_SSL_HOST", "localhost"),
    ("AMQP_SSL_URI", "amqps://guest:guest@localhost:5671/%2F"),
];

/// All suites, in the order in which they run.
pub const ALL: &[Suite] = &[
    Suite {
        name: "py-amqp",
        source: "amqp 5.4.2 (PyPI)",
        program: Program::Pytest { packages: "celery", directory: "amqp", arguments: &["t/integration/test_rmq.py"] },
        conf: "",
        environment: LOGIN,
        limit: minutes(10),
    },
    Suite {
        name: "kombu",
        source: "kombu 5.7.0 (PyPI)",
        program: Program::Pytest {
            packages: "celery",
            directory: "kombu",
            arguments: &["t/integration/test_py_amqp.py"],
        },
        conf: "",
        environment: LOGIN,
        limit: minutes(15),
    },
    Suite {
        name: "celery-app",
        source: "celery 5.7.0 (PyPI), tests/clients/celery",
        program: Program::Celery,
        conf: "",
        environment: LOGIN,
        limit: minutes(10),
    },
    Suite {
        name: "lapin",
        source: "lapin 4.12.3 (crates.io)",
        program: Program::Cargo { directory: "lapin", arguments: &["--features", "smol"] },
        conf: "",
        environment: LOGIN,
        limit: minutes(10),
    },
    Suite {
        name: "amqprs",
        source: "amqprs 2.1.5 (crates.io)",
        program: Program::Cargo { directory: "amqprs", arguments: &[] },
        conf: "default_user = user\ndefault_pass = bitnami",
        environment: LOGIN,
        limit: minutes(15),
    },
    Suite {
        name: "streadway",
        source: "golang-github-streadway-amqp-dev 0.0~git20200716.e6b33f4-3 (Debian)",
        program: Program::Go { directory: "streadway" },
        conf: "",
        environment: LOGIN,
        limit: minutes(15),
    },
    Suite {
        name: "amqp091-go",
        source: "github.com/rabbitmq/amqp091-go 1.16.0 (Go modules)",
        program: Program::Go { directory: "amqp091" },
        conf: "",
        environment: LOGIN,
        limit: minutes(20),
    },
    Suite {
        name: "amqplib",
        source: "amqplib 2.2.0 (npm; later ones leave their tests out)",
        program: Program::Node {
            directory: "amqplib",
            files: &[
                "test/callback_api.test.js",
                "test/channel_api.test.js",
                "test/connect.test.js",
                "test/recovery.test.js",
            ],
        },
        conf: "",
        environment: LOGIN,
        limit: minutes(10),
    },
    Suite {
        name: "aiormq",
        source: "aiormq 7.2.4 (PyPI)",
        program: Program::Pytest {
            packages: "aio",
            directory: "aiormq",
            arguments: &["-p", "aiormq_fixtures", "tests"],
        },
        conf: "",
        environment: LOGIN,
        limit: minutes(20),
    },
    Suite {
        name: "aio-pika",
        source: "aio-pika 10.2.1 (PyPI)",
        program: Program::Pytest { packages: "aio", directory: "aio_pika", arguments: &["tests"] },
        conf: "",
        environment: LOGIN,
        limit: minutes(20),
    },
    Suite {
        name: "amqpstorm",
        source: "AMQPStorm 3.1.4 (PyPI)",
        program: Program::Pytest {
            packages: "storm",
            directory: "amqpstorm",
            arguments: &["-p", "amqpstorm_cleanup", "amqpstorm/tests/functional"],
        },
        conf: "",
        environment: AMQPSTORM,
        limit: minutes(15),
    },
    Suite {
        name: "rabbitpy",
        source: "rabbitpy 3.0.2 (PyPI)",
        program: Program::Pytest {
            packages: "storm",
            directory: "rabbitpy",
            arguments: &["tests/test_integration.py", "tests/integration"],
        },
        conf: "",
        environment: LOGIN,
        limit: minutes(10),
    },
];

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}
