//! Text from templates and variables (Jinja). Pure; an undefined variable is an error.
