//! Queues, store and catalog under seeds and faults, against an oracle.
