//! The etcd v3 API: one file per service. Never touches the disk.
