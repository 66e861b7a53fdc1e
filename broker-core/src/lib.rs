//! Names, messages, exchanges, topology, queues and the message store: what every other floor stands on.
