//! Protobuf messages of the cluster, the catalog and the admin service.
