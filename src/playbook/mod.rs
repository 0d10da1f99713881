//! Order: playbooks in Ansible's syntax → typed plays, blocks and tasks. Pure.
