//! Certificates, the cluster CA and tokens.
