//! Who: Ansible's YAML inventory → hosts, groups and variables. Pure but for its one loader file.
