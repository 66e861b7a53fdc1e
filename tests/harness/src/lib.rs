//! Starts brokers for the tests: brokerd, and Debian's rabbitmq-server with ports and data of its own.
