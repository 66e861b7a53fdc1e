//! The brokerctl command. Filled by the cluster issue; it will see the broker only through the admin service of `proto`.
