//! The plan as a value: ordered steps with reasons and diffs, and the safety checks over it. Pure.
